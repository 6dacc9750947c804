"""What is known of an utterance on its way, as plain values: no OpenTelemetry until a trace is kept."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import msgspec

from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed

Attributes = dict[str, str | int | float | bool]
Key = tuple[str, str]
"""Site and utterance id."""
Kind = Literal["internal", "server", "client", "producer", "consumer"]
MODULES: Final = frozenset({"audio", "intelligence", "dashboard"})


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
    kind: Kind = "internal"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Whose utterance it is, and when it was said. `speech_ended_ns`: when the last of it arrived."""

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
        speech_ended_ns=message.speech_ended_ns + round(message.late_ms * 1e6),
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
    modules: frozenset[str] = MODULES
    """Those whose stages are told here, once each: the receipt has all of them, and other processes have it too."""


class Over(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation that is over. `module`: under whose name it is told."""

    site: str
    conversation_id: str
    channel: str
    started_ns: int
    ended_ns: int
    state: str
    module: str = "audio"


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """From the process with the page to those before it: keep this trace, though its receipt does not say why."""

    site: str
    conversation_id: str
    utterance_id: str
    why: str
    painted_ms: float | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A call that is over and worth keeping. `links`: (trace id, span id) of what caused it beside its parent."""

    name: str
    module: str
    kind: Kind
    trace_id: int
    span_id: int
    parent_id: int | None
    start_ns: int
    end_ns: int
    attributes: Attributes
    links: tuple[tuple[int, int], ...] = ()
    error: str = ""


Links = Callable[[], Sequence[str | None]]
"""`traceparent`s of what caused a call; asked only if the call is kept."""


class Call(Protocol):
    """Something that this process does for somebody: a request, a batch of messages, a transaction.

    Used as a context manager. Calls within it, also of other tasks that it starts, are its children.
    """

    @property
    def traceparent(self) -> str | None:
        """For whoever is asked on its behalf; None where tracing is off."""
        ...

    def note(self, **attributes: str | float | bool) -> None:
        """Attributes, with `__` for each dot of their names."""
        ...

    def failed(self, error: str) -> None: ...

    def lasting(self) -> None:
        """It is meant to take long: no reason to keep it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /
    ) -> None: ...


class Sink(Protocol):
    """Where kept traces go. Nothing here waits."""

    def utterance(self, kept: Kept) -> None: ...

    def painted(self, origin: Origin, start_ns: int, end_ns: int) -> None:
        """The page was later than the trace."""
        ...

    def conversation(self, over: Over) -> None: ...

    def call(self, made: Made) -> None: ...

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

    def finished(self, origin: Origin, latency: Latency, *, parent: str | None = None) -> None:
        """It was pushed: its receipt is whole. `parent`: the `traceparent` that came with the last message of it."""
        ...

    def passed_on(self, origin: Origin, latency: Latency) -> None:
        """What this module had to do is done."""
        ...

    def onward(self, site: str, utterance_id: str, parent: str | None) -> str | None:
        """`parent` for the next message; flagged where it is known here already that the trace is kept."""
        ...

    def receipt(self, site: str, utterance_id: str, latency: Latency) -> None:
        """The process with the page says that it was pushed, and how long all of it took."""
        ...

    def word(self, word: Word) -> None: ...

    def call(
        self, name: str, kind: Kind = "internal", *, parent: str | None = None, links: Links | None = None
    ) -> Call:
        """Begin one, with `with`. `parent`: the `traceparent` that came with it; else the call that it is within."""
        ...

    @property
    def here(self) -> str | None:
        """Trace id of the call that this is within, as 32 hexadecimal digits."""
        ...

    def keep(self, made: Made) -> None:
        """Send a span whose times are known, such as one that outlasts a process."""
        ...

    def painted(self, site: str, utterance_id: str, ms: float) -> None: ...

    def conversation(self, over: Over) -> None:
        """It is over; may be said again."""
        ...
