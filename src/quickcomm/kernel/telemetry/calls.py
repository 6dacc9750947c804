"""Calls that are no utterance's own: requests, batches of messages, transactions. What is worth keeping becomes spans.

Which: what its caller keeps, what failed, what was slow, and of the others a sample, drawn by the trace id. A call that
is within another belongs to its trace. Until its end it is an object with a few fields.
"""

import asyncio
import random
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Self

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.telemetry.ids import SAMPLED, in_sample, parsed
from quickcomm.kernel.telemetry.settings import TelemetrySettings
from quickcomm.kernel.telemetry.spans import Attributes, Kind, Links, Made, Sink

NS_PER_MS: Final = 1_000_000
MAX_LINKS: Final = 128
DRAWN: Final = frozenset({"server", "consumer"})
"""Kinds of which a sample is kept where they are nobody's part; others only where they are slow or fail."""
UNHURRIED: Final = frozenset({"consumer"})
"""How long a batch takes depends on what is in it: an utterance's own stages say what was slow."""

_here: ContextVar["LiveCall | None"] = ContextVar("quickcomm_call", default=None)
_chance: Final = random.Random()  # noqa: S311 - ids need to differ, not to be secret


class LiveCall:
    """A `Call`."""

    __slots__ = (
        "_attributes", "_calls", "_error", "_kept", "_kind", "_links", "_name", "_parent_id", "_slow", "_span_id",
        "_start_ns", "_token", "_trace_id",
    )  # fmt: skip

    def __init__(self, calls: "Calls", name: str, kind: Kind, parent: str | None, links: Links | None) -> None:
        self._calls = calls
        self._name = name
        self._kind = kind
        self._links = links
        self._attributes: Attributes = {}
        self._error = ""
        self._slow = kind not in UNHURRIED
        self._span_id = 0
        self._start_ns = 0
        self._token: Token[LiveCall | None] | None = None
        around, given = _here.get(), parsed(parent)
        self._parent_id: int | None = None
        if given is not None:
            self._trace_id, self._parent_id, self._kept = given
        elif around is not None:
            self._trace_id, self._parent_id, self._kept = around.trace_id, around.span_id, around.kept
        else:
            self._trace_id = _chance.getrandbits(128) or 1
            self._kept = kind in DRAWN and calls.drawn(self._trace_id)

    @property
    def trace_id(self) -> int:
        return self._trace_id

    @property
    def kept(self) -> bool:
        return self._kept

    @property
    def span_id(self) -> int:
        if not self._span_id:
            self._span_id = _chance.getrandbits(64) or 1
        return self._span_id

    @property
    def traceparent(self) -> str | None:
        return f"00-{self._trace_id:032x}-{self.span_id:016x}-{SAMPLED if self._kept else 0:02x}"

    def note(self, **attributes: str | float | bool) -> None:
        for name, value in attributes.items():
            self._attributes[name.replace("__", ".")] = value

    def failed(self, error: str) -> None:
        self._error = error

    def lasting(self) -> None:
        self._slow = False

    def __enter__(self) -> Self:
        self._token = _here.set(self)
        self._start_ns = self._calls.now_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /
    ) -> None:
        if self._token is not None:
            _here.reset(self._token)
        if error is not None and not self._error and not isinstance(error, asyncio.CancelledError):
            self._error = error.code if isinstance(error, QuickCommError) else type(error).__name__
        end_ns = self._calls.now_ns()
        slow = self._slow and end_ns - self._start_ns > self._calls.slow_ns
        if self._kept or self._error or slow:
            self._calls.keep(self._made(end_ns))

    def _made(self, end_ns: int) -> Made:
        links = [parsed(parent) for parent in (self._links() if self._links else ())][:MAX_LINKS]
        return Made(
            name=self._name,
            module=self._calls.process,
            kind=self._kind,
            trace_id=self._trace_id,
            span_id=self.span_id,
            parent_id=self._parent_id,
            start_ns=self._start_ns,
            end_ns=end_ns,
            attributes=self._attributes,
            links=tuple((link[0], link[1]) for link in links if link is not None),
            error=self._error,
        )


class Calls:
    def __init__(self, settings: TelemetrySettings, clock: Clock, sink: Sink, process: str) -> None:
        """`process`: its name, as in `quickcomm-{process}`."""
        self._settings = settings
        self._sink = sink
        self.now_ns = clock.now_ns
        self.process = process
        self.slow_ns = settings.slow_call_ms * NS_PER_MS

    def drawn(self, trace_id: int) -> bool:
        return in_sample(trace_id, self._settings.sample)

    def begin(self, name: str, kind: Kind, parent: str | None, links: Links | None) -> LiveCall:
        return LiveCall(self, name, kind, parent, links)

    def keep(self, made: Made) -> None:
        self._sink.call(made)


def trace_id_here() -> str | None:
    """Of the call that this is within, as 32 hexadecimal digits."""
    around = _here.get()
    return None if around is None else f"{around.trace_id:032x}"
