"""Holds what is known of utterances until they are over, then decides which traces are worth keeping.

The decision comes at the end, because only then it is known what was slow or failed. Until then an utterance is a few
plain values; spans are made of what is kept. All is bounded: beyond it the oldest are decided as they are.

Where an utterance passes through several processes, each keeps its own part of it until the receipt is whole, and all
come to the same decision. The sample is drawn by the trace id; what is slow is in the receipt, which comes back from
the page's process; what failed goes on with the message, as the flag of its `traceparent`; and what was slow only on
the page is a `Word` of its own.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec
from prometheus_client import Counter

from quickcomm.contracts.timing import Latency
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.telemetry.calls import Calls, trace_id_here
from quickcomm.kernel.telemetry.ids import in_sample, parsed, trace_id_of, traceparent, with_flag
from quickcomm.kernel.telemetry.settings import TelemetrySettings
from quickcomm.kernel.telemetry.spans import (
    MODULES,
    Batch,
    Call,
    Detail,
    Kept,
    Key,
    Kind,
    Links,
    Made,
    Origin,
    Over,
    Sink,
    Word,
)
from quickcomm.kernel.telemetry.stages import STAGES

PAINT_WAIT_S: Final = 2.0
WORD_WAIT_S: Final = 3.0
"""After its receipt, where the page is another process's: that one waits for the page, and its word takes a moment."""
OPEN_S: Final = 120.0
"""Longer than the language model and all retries may take: what is not over by then has failed."""
TICK_S: Final = 0.5
MAX_DETAILS: Final = 32
MAX_REMEMBERED: Final = 2_000
UNFINISHED: Final = "The utterance did not reach the page."

TRACES = Counter("quickcomm_traces", "Utterances by what became of their traces", ["decision"])
"""Decisions: `sampled`, `slow`, `failed`, `flagged` (kept because a process before keeps it), `dropped`."""
EARLY = Counter("quickcomm_traces_decided_early", "Traces decided before their end, because too many were open")


class _Open(msgspec.Struct, kw_only=True, eq=False):
    """`due`: when it is decided, on the monotonic clock."""

    due: float
    origin: Origin | None = None
    latency: Latency = Latency()
    painted_ms: float | None = None
    error: str = ""
    flagged: bool = False
    told: str = ""
    details: list[Detail] = []
    batches: list[Batch] = []


class Traces:
    def __init__(
        self,
        settings: TelemetrySettings,
        clock: Clock,
        sink: Sink,
        allowed_ms: Callable[[], float],
        *,
        modules: frozenset[str] = MODULES,
        process: str = "monolith",
        tell: Callable[[Word], None] | None = None,
    ) -> None:
        """`allowed_ms`: what an utterance may take in all, where the settings do not say what is slow.

        `modules`: those in this process; their stages are told here. `tell`: has the processes before this one keep
        what they could not know of.
        """
        self._modules = modules
        self._to_the_page = "dashboard" in modules
        self._from_the_start = "audio" in modules
        self._tell = tell
        self._calls = Calls(settings, clock, sink, process)
        self._settings = settings
        self._clock = clock
        self._sink = sink
        self._allowed_ms = allowed_ms
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._waiting: OrderedDict[Key, _Open] = OrderedDict()
        """Pushed, and perhaps to be painted, or told of; in the order in which they are due."""
        self._sent: OrderedDict[Key, tuple[Origin, int]] = OrderedDict()
        self._conversations: OrderedDict[Key, bool] = OrderedDict()
        """Those of which a trace was kept, and whether their own span is still to be sent."""
        self._over: OrderedDict[Key, Over] = OrderedDict()
        """Those that were over before."""

    @property
    def on(self) -> bool:
        return True

    @property
    def held(self) -> int:
        """Utterances in hand."""
        return len(self._open) + len(self._waiting)

    def traceparent(self, site: str, utterance_id: str) -> str:
        return traceparent(site, utterance_id, self._settings.sample)

    def heard(self, origin: Origin, latency: Latency, *, batch: Batch | None = None, error: str = "") -> None:
        known = self._find(origin.key)
        known.origin = origin
        if known.latency.total is None:
            known.latency = latency
        known.error = known.error or error
        if batch is not None:
            batch.members.append(origin.key)
            known.batches.append(batch)

    def detail(self, site: str, utterance_id: str, detail: Detail) -> None:
        key = (site, utterance_id)
        if key in self._sent:
            return  # an insight that is renewed later belongs to no receipt
        known = self._find(key)
        if len(known.details) < MAX_DETAILS:
            known.details.append(detail)
        known.error = known.error or detail.error

    def finished(self, origin: Origin, latency: Latency, *, parent: str | None = None) -> None:
        if origin.key in self._sent:
            return
        known = self._open.pop(origin.key, None) or self._waiting.pop(origin.key, None) or _Open(due=0.0)
        known.origin, known.latency = origin, latency
        known.flagged = (parsed(parent) or (0, 0, False))[2]
        known.due = self._clock.monotonic() + PAINT_WAIT_S
        self._waiting[origin.key] = known
        self._bound()

    def passed_on(self, origin: Origin, latency: Latency) -> None:
        if self._to_the_page or (self._from_the_start and origin.key not in self._open):
            return  # decided, or to be decided by others
        known = self._find(origin.key)
        known.origin = origin
        if known.latency.total is None:
            known.latency = latency

    def onward(self, site: str, utterance_id: str, parent: str | None) -> str | None:
        known = self._open.get((site, utterance_id))
        if parent is None or known is None or not known.error or parsed(parent) is None:
            return parent
        return with_flag(parent)

    def receipt(self, site: str, utterance_id: str, latency: Latency) -> None:
        key = (site, utterance_id)
        # Where this process shows it, it is finished before; unless the dashboard has moved to another one.
        if (known := self._open.pop(key, None)) is None:
            return
        known.latency = latency
        if self._why(key, known, known.error) != "dropped":
            self._decide(key, known)
        else:
            known.due = self._clock.monotonic() + WORD_WAIT_S
            self._waiting[key] = known

    def word(self, word: Word) -> None:
        key = (word.site, word.utterance_id)
        known = self._waiting.pop(key, None) or self._open.pop(key, None)
        if known is not None:
            known.told, known.painted_ms = word.why, word.painted_ms
            self._decide(key, known)

    def call(
        self, name: str, kind: Kind = "internal", *, parent: str | None = None, links: Links | None = None
    ) -> Call:
        return self._calls.begin(name, kind, parent, links)

    @property
    def here(self) -> str | None:
        return trace_id_here()

    def keep(self, made: Made) -> None:
        self._calls.keep(made)

    def painted(self, site: str, utterance_id: str, ms: float) -> None:
        key = (site, utterance_id)
        if (known := self._waiting.pop(key, None)) is not None:
            known.painted_ms = ms
            self._decide(key, known)
        elif (sent := self._sent.pop(key, None)) is not None:
            origin, pushed_ns = sent
            self._sink.painted(origin, pushed_ns, pushed_ns + round(ms * 1e6))

    def conversation(self, over: Over) -> None:
        """By the process with the page: it sees all of a conversation, whoever heard it."""
        key = (over.site, over.conversation_id)
        if not self._to_the_page:
            return
        self._over[key] = over if self._from_the_start else msgspec.structs.replace(over, module="dashboard")
        self._tell_over(key)
        _trim(self._over)

    async def run(self) -> None:
        """Decide what is due, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        now = self._clock.monotonic()
        for held in (self._waiting, self._open):
            while held:
                key, known = next(iter(held.items()))
                if known.due > now:
                    break
                del held[key]
                self._decide(key, known)

    def close(self, timeout_s: float) -> None:
        """Decide all, send what is kept. May block for so long."""
        for held in (self._waiting, self._open):
            while held:
                self._decide(*held.popitem(last=False))
        self._sink.close(timeout_s)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _find(self, key: Key) -> _Open:
        known = self._open.get(key) or self._waiting.get(key)
        if known is None:
            known = self._open[key] = _Open(due=self._clock.monotonic() + OPEN_S)
            self._bound()
        return known

    def _bound(self) -> None:
        while self.held > self._settings.max_open:
            EARLY.inc()
            held = self._waiting or self._open
            self._decide(*held.popitem(last=False))

    def _decide(self, key: Key, known: _Open) -> None:
        origin = known.origin
        if origin is None:  # only a detail of it was seen here, such as a renewal long after: nobody's trace
            return
        total = known.latency.total
        # Where no receipt comes back to, it is not known.
        unfinished = total is None and (self._to_the_page or self._from_the_start)
        error = known.error or (UNFINISHED if unfinished else "")
        why = self._why(key, known, error)
        TRACES.labels(why).inc()
        if why == "dropped":
            return
        if why == "slow" and self._tell is not None and total is not None and total <= self._limit_ms:
            self._tell(
                Word(
                    site=origin.site,
                    conversation_id=origin.conversation_id,
                    utterance_id=origin.utterance_id,
                    why=why,
                    painted_ms=known.painted_ms,
                )
            )
        self._conversations.setdefault((origin.site, origin.conversation_id), True)
        self._tell_over((origin.site, origin.conversation_id))
        if known.painted_ms is None and total is not None:
            self._sent[key] = origin, origin.speech_ended_ns + round(total * 1e6)
        _trim(self._sent)
        _trim(self._conversations)
        self._sink.utterance(
            Kept(
                origin=origin,
                latency=known.latency,
                painted_ms=known.painted_ms,
                details=tuple(known.details),
                batches=tuple(known.batches),
                why=why,
                error=error,
                modules=self._modules,
            )
        )

    def _tell_over(self, key: Key) -> None:
        """Once, with the first trace of it that is kept, or later."""
        if self._conversations.get(key) and (over := self._over.pop(key, None)) is not None:
            self._conversations[key] = False
            self._sink.conversation(over)

    @property
    def _limit_ms(self) -> float:
        return self._settings.slow_ms or self._allowed_ms()

    def _why(self, key: Key, known: _Open, error: str) -> str:
        total = known.latency.total or _so_far(known.latency)
        if error:
            return "failed"
        if known.told:
            return known.told
        if total + (known.painted_ms or 0.0) > self._limit_ms:
            return "slow"
        if in_sample(trace_id_of(*key), self._settings.sample):
            return "sampled"
        return "flagged" if known.flagged else "dropped"


def _trim(remembered: "OrderedDict[Key, Any]") -> None:
    while len(remembered) > MAX_REMEMBERED:
        remembered.popitem(last=False)


def _so_far(latency: Latency) -> float:
    return math.fsum(ms for stage in STAGES if (ms := getattr(latency, stage.name, None)) is not None)
