"""Holds what is known of utterances until they are over, then decides which traces are worth keeping.

The decision comes at the end, because only then it is known what was slow or failed. Until then an utterance is a few
plain values; spans are made of what is kept. All is bounded: beyond it the oldest are decided as they are.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
from prometheus_client import Counter

from quickcomm.contracts.timing import Latency
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.telemetry.ids import in_sample, trace_id_of, traceparent
from quickcomm.kernel.telemetry.settings import TelemetrySettings
from quickcomm.kernel.telemetry.spans import Batch, Detail, Kept, Key, Origin, Over, Sink

PAINT_WAIT_S: Final = 2.0
OPEN_S: Final = 120.0
"""Longer than the language model and all retries may take: what is not over by then has failed."""
TICK_S: Final = 0.5
MAX_DETAILS: Final = 32
MAX_REMEMBERED: Final = 2_000
UNFINISHED: Final = "The utterance did not reach the page."

TRACES = Counter("quickcomm_traces", "Utterances by what became of their traces", ["decision"])
"""Decisions: `sampled`, `slow`, `failed`, `dropped`."""
EARLY = Counter("quickcomm_traces_decided_early", "Traces decided before their end, because too many were open")


class _Open(msgspec.Struct, kw_only=True, eq=False):
    """`due`: when it is decided, on the monotonic clock."""

    due: float
    origin: Origin | None = None
    latency: Latency = Latency()
    painted_ms: float | None = None
    error: str = ""
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
        to_the_page: bool = True,
    ) -> None:
        """`allowed_ms`: what an utterance may take in all, where the settings do not say what is slow.

        `to_the_page`: whether utterances end in this process. It tells of all stages, for their receipt has them;
        others tell only what happened within theirs.
        """
        self._to_the_page = to_the_page
        self._settings = settings
        self._clock = clock
        self._sink = sink
        self._allowed_ms = allowed_ms
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._waiting: OrderedDict[Key, _Open] = OrderedDict()
        """Pushed, and perhaps to be painted; in the order in which they are due."""
        self._sent: OrderedDict[Key, tuple[Origin, int]] = OrderedDict()
        self._conversations: OrderedDict[Key, bool] = OrderedDict()
        """Whether a conversation's own span is worth keeping; gone once it was sent."""

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

    def finished(self, origin: Origin, latency: Latency) -> None:
        if origin.key in self._sent:
            return
        known = self._open.pop(origin.key, None) or self._waiting.pop(origin.key, None) or _Open(due=0.0)
        known.origin, known.latency = origin, latency
        known.due = self._clock.monotonic() + PAINT_WAIT_S
        self._waiting[origin.key] = known
        self._bound()

    def passed_on(self, origin: Origin, latency: Latency) -> None:
        if self._to_the_page:
            return
        known = self._open.pop(origin.key, None) or _Open(due=0.0)
        known.origin, known.latency = origin, latency
        self._decide(origin.key, known)

    def painted(self, site: str, utterance_id: str, ms: float) -> None:
        key = (site, utterance_id)
        if (known := self._waiting.pop(key, None)) is not None:
            known.painted_ms = ms
            self._decide(key, known)
        elif (sent := self._sent.pop(key, None)) is not None:
            origin, pushed_ns = sent
            self._sink.painted(origin, pushed_ns, pushed_ns + round(ms * 1e6))

    def conversation(self, over: Over) -> None:
        key = (over.site, over.conversation_id)
        if self._conversations.get(key):
            self._conversations[key] = False
            self._sink.conversation(over)

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
        error = known.error or (UNFINISHED if total is None and self._to_the_page else "")
        why = self._why(key, total or _so_far(known.latency), known.painted_ms, error)
        TRACES.labels(why).inc()
        if why == "dropped":
            return
        self._conversations.setdefault((origin.site, origin.conversation_id), True)
        if known.painted_ms is None and total is not None:
            self._sent[key] = origin, origin.speech_ended_ns + round(total * 1e6)
        for remembered in (self._sent, self._conversations):
            if len(remembered) > MAX_REMEMBERED:
                remembered.popitem(last=False)
        self._sink.utterance(
            Kept(
                origin=origin,
                latency=known.latency,
                painted_ms=known.painted_ms,
                details=tuple(known.details),
                batches=tuple(known.batches),
                why=why,
                error=error,
                stages=self._to_the_page,
            )
        )

    def _why(self, key: Key, total: float, painted_ms: float | None, error: str) -> str:
        if error:
            return "failed"
        if total + (painted_ms or 0.0) > (self._settings.slow_ms or self._allowed_ms()):
            return "slow"
        return "sampled" if in_sample(trace_id_of(*key), self._settings.sample) else "dropped"


def _so_far(latency: Latency) -> float:
    return math.fsum(ms for ms in msgspec.structs.astuple(latency) if ms is not None)
