"""The metrics of several processes in one text that Prometheus reads: each family once, other processes by name."""

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from quickcomm.contracts.health import MetricsText
from quickcomm.dashboard.service.site_metrics import metrics_of_others
from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.messaging.rpc.local import HERE
from quickcomm.kernel.telemetry.exposition import exposition, metrics_answer


class Replies:
    """An `Rpc` that has these replies."""

    async def call(self, request: object) -> object:
        raise NotImplementedError

    async def call_all(self, _request: object) -> dict[str, object]:
        return {HERE: MetricsText(text="own"), "audio-1": MetricsText(text="x 1"), "audio-2": BusyError("It is away.")}

    def serve(self, answers: object) -> None:
        raise NotImplementedError


async def test_who_does_not_answer_is_left_out() -> None:
    assert await metrics_of_others(Replies()) == {"audio-1": "x 1"}  # type: ignore[arg-type] # as far as it is used


def test_each_family_stands_once_and_no_series_twice() -> None:
    text = exposition().decode()
    body = metrics_answer({"audio-1": text, "audio-2": text}).body
    assert isinstance(body, bytes)
    lines = body.decode().splitlines()
    types = Counter(line for line in lines if line.startswith("# TYPE"))
    series = Counter(line.rpartition(" ")[0] for line in lines if not line.startswith("#"))
    assert max(types.values()) == 1
    assert max(series.values()) == 1
    reads = [
        sample.labels.get("process")
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == "quickcomm_metrics_reads_total"
    ]
    assert reads == [None, "audio-1", "audio-2"]
