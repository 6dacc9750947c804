"""The metrics of this process as Prometheus reads them; while modules move, each series says its side."""

from collections.abc import Iterable, Iterator
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Metric, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from quickcomm.kernel.telemetry.side import label_of, side_here

READS: Final = Counter("quickcomm_metrics_reads", "How often these metrics were read over HTTP")
SIDE: Final = "side"


class _Sided(Collector):
    """All metrics of a registry. A series that names its side keeps it; the others have that of the process.

    A side has two values at most, and without a migration there is no such label.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        here = label_of(side_here())
        for metric in self._registry.collect():
            metric.samples = list(_sided(metric.samples, here))
            yield metric


def _sided(samples: Iterable[Sample], here: str) -> Iterator[Sample]:
    for sample in samples:
        named = sample.labels.get(SIDE)
        if named is None and here:
            yield sample._replace(labels=sample.labels | {SIDE: here})
        elif named == "":
            yield sample._replace(labels={name: value for name, value in sample.labels.items() if name != SIDE})
        else:
            yield sample


def exposition(registry: CollectorRegistry = REGISTRY) -> bytes:
    """Return all metrics in Prometheus' text format."""
    return generate_latest(_Sided(registry))


def metrics_answer() -> web.Response:
    """Return the answer to `GET /metrics`."""
    READS.inc()
    return web.Response(body=exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
