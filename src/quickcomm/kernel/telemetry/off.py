"""Tracing that is off: messages carry their ids, and nothing is kept."""

from quickcomm.contracts.timing import Latency
from quickcomm.kernel.telemetry.ids import traceparent
from quickcomm.kernel.telemetry.spans import Batch, Detail, Origin, Over


class NoTraces:
    on = False

    def traceparent(self, site: str, utterance_id: str) -> str:
        return traceparent(site, utterance_id, 0.0)

    def heard(self, origin: Origin, latency: Latency, *, batch: Batch | None = None, error: str = "") -> None:
        pass

    def detail(self, site: str, utterance_id: str, detail: Detail) -> None:
        pass

    def finished(self, origin: Origin, latency: Latency) -> None:
        pass

    def passed_on(self, origin: Origin, latency: Latency) -> None:
        pass

    def painted(self, site: str, utterance_id: str, ms: float) -> None:
        pass

    def conversation(self, over: Over) -> None:
        pass
