"""Tracing that is off: messages carry their ids, and nothing is kept."""

from types import TracebackType
from typing import Final, Self

from quickcomm.contracts.timing import Latency
from quickcomm.kernel.telemetry.ids import traceparent
from quickcomm.kernel.telemetry.spans import Batch, Call, Detail, Kind, Links, Made, Origin, Over, Word


class NoCall:
    """A `Call` that nobody hears of."""

    traceparent = None

    def note(self, **attributes: str | float | bool) -> None:
        pass

    def failed(self, error: str) -> None:
        pass

    def lasting(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /
    ) -> None:
        pass


NO_CALL: Final = NoCall()


class NoTraces:
    on = False
    here = None

    def traceparent(self, site: str, utterance_id: str) -> str:
        return traceparent(site, utterance_id, 0.0)

    def heard(self, origin: Origin, latency: Latency, *, batch: Batch | None = None, error: str = "") -> None:
        pass

    def detail(self, site: str, utterance_id: str, detail: Detail) -> None:
        pass

    def finished(self, origin: Origin, latency: Latency, *, parent: str | None = None) -> None:
        pass

    def passed_on(self, origin: Origin, latency: Latency) -> None:
        pass

    def onward(self, site: str, utterance_id: str, parent: str | None) -> str | None:  # noqa: ARG002 - as it came
        return parent

    def receipt(self, site: str, utterance_id: str, latency: Latency) -> None:
        pass

    def word(self, word: Word) -> None:
        pass

    def painted(self, site: str, utterance_id: str, ms: float) -> None:
        pass

    def conversation(self, over: Over) -> None:
        pass

    def call(
        self,
        name: str,  # noqa: ARG002 - nobody hears of it
        kind: Kind = "internal",  # noqa: ARG002
        *,
        parent: str | None = None,  # noqa: ARG002
        links: Links | None = None,  # noqa: ARG002
    ) -> Call:
        return NO_CALL

    def keep(self, made: Made) -> None:
        pass
