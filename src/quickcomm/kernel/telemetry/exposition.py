"""The metrics of this process as Prometheus reads them; while modules move, each series says its side."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from quickcomm.kernel.telemetry.side import label_of, side_here

READS: Final = Counter("quickcomm_metrics_reads", "How often these metrics were read over HTTP")
SIDE: Final = "side"
PROCESS: Final = "process"
CREATED: Final = "_created"


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


class _Site(Collector):
    """The metrics of this process, and those of others with the label `process`; a family's series stand together."""

    def __init__(self, others: Mapping[str, str]) -> None:
        self._others = others

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for metric in _Sided(REGISTRY).collect():  # some are made once, and must stay as they are
            own = families[metric.name] = Metric(metric.name, metric.documentation, metric.type)
            own.samples = list(metric.samples)
        for process, text in self._others.items():
            for metric in text_string_to_metric_families(text):
                if metric.name.endswith(CREATED):
                    continue  # in the text a family of its own, here part of the one that it belongs to
                known = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                labelled = [each._replace(labels=each.labels | {PROCESS: process}) for each in metric.samples]
                known.samples = [*known.samples, *labelled]
        yield from families.values()


def metrics_answer(others: Mapping[str, str] = MappingProxyType({})) -> web.Response:
    """Return the answer to `GET /metrics`. `others`: the metrics of other processes, as text, by their names."""
    READS.inc()
    body = generate_latest(_Site(others)) if others else exposition()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
