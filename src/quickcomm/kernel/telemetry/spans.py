"""What is known of an utterance on its way, as plain values: no OpenTelemetry until a trace is kept."""

from typing import Protocol

import msgspec

from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed

Attributes = dict[str, str | int | float | bool]
Key = tuple[str, str]
"""Site and utterance id."""


class Batch(msgspec.Struct, kw_only=True, eq=False):
    """One call of an engine for several utterances. It learns whom it was for as they are published."""

    name: str
    module: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    error: str = ""
    members: list[Key] = []
    exported: bool = False


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """Something within a stage that is worth seeing: a transaction, a call of the language model."""

    name: str
    module: str
    stage: str
    """Span name of the stage that it belongs to."""
    start_ns: int
    end_ns: int
    attributes: Attributes = {}
    error: str = ""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Whose utterance it is, and when it was said."""

    site: str
    conversation_id: str
    utterance_id: str
    channel: str
    spoken_at_ns: int
    speech_ended_ns: int

    @property
    def key(self) -> Key:
        return self.site, self.utterance_id


def origin_of(message: UtteranceTranscribed) -> Origin:
    return Origin(
        site=message.site,
        conversation_id=message.conversation_id,
        utterance_id=message.utterance_id,
        channel=message.channel,
        spoken_at_ns=message.spoken_at_ns,
        speech_ended_ns=message.speech_ended_ns,
    )


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance whose trace goes out. `why`: sampled, slow or failed."""

    origin: Origin
    latency: Latency
    painted_ms: float | None
    details: tuple[Detail, ...]
    batches: tuple[Batch, ...]
    why: str
    error: str
    stages: bool = True
    """Whether this process is the one that tells of the stages: they are all in the receipt, and told once."""


class Over(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation that is over."""

    site: str
    conversation_id: str
    channel: str
    started_ns: int
    ended_ns: int
    state: str


class Sink(Protocol):
    """Where kept traces go. Nothing here waits."""

    def utterance(self, kept: Kept) -> None: ...

    def painted(self, origin: Origin, start_ns: int, end_ns: int) -> None:
        """The page was later than the trace."""
        ...

    def conversation(self, over: Over) -> None: ...

    def close(self, timeout_s: float) -> None:
        """Send what is left, for so long at most."""
        ...


class Tracing(Protocol):
    """What modules tell. Nothing here waits, raises, or costs much; with tracing off it costs a call."""

    @property
    def on(self) -> bool: ...

    def traceparent(self, site: str, utterance_id: str) -> str:
        """For the message of an utterance."""
        ...

    def heard(self, origin: Origin, latency: Latency, *, batch: Batch | None = None, error: str = "") -> None:
        """An utterance is published: its trace is open."""
        ...

    def detail(self, site: str, utterance_id: str, detail: Detail) -> None: ...

    def finished(self, origin: Origin, latency: Latency) -> None:
        """It was pushed: its receipt is whole."""
        ...

    def passed_on(self, origin: Origin, latency: Latency) -> None:
        """What this module had to do is done. Where the utterance ends in another process, it is decided now."""
        ...

    def painted(self, site: str, utterance_id: str, ms: float) -> None: ...

    def conversation(self, over: Over) -> None:
        """It is over; may be said again."""
        ...
