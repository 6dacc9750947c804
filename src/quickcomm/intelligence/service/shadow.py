"""Understands a share of the other side's utterances as well, and compares: nothing of it is published.

Fed by `Understanding` with what the other side answers, and by the stream of insights with its answers. There is one
utterance in hand at a time; what is too much is left out and counted. See docs/adr/0045.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeVar

import msgspec
import structlog

from quickcomm.contracts.erasing import Scope
from quickcomm.contracts.evidence import (
    MAX_DIFFERENCES,
    MAX_SAMPLES,
    RECENT,
    Difference,
    FieldAgreement,
    Shadowed,
)
from quickcomm.contracts.identity import BUCKETS, bucket
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import InsightsFound
from quickcomm.intelligence.model.comparing import FIELDS, NUMBER, differing
from quickcomm.intelligence.ports import Classifier, Heard, OpensTask
from quickcomm.intelligence.service.metrics import SHADOWED
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.telemetry.measured import Bill

MAX_WAITING: Final = 64
"""Utterances that wait to be understood."""
MAX_PAIRS: Final = 1_024
"""Utterances that wait for either answer."""
ANSWER_WITHIN_S: Final = 10.0
SERVED_WITHIN_S: Final = 60.0
"""So long after it was said the other side's answer is waited for."""
LOOK_EVERY_S: Final = 1.0
IDLE_S: Final = 0.05
NO_ANSWER: Final = "no answer"
DEGRADED: Final = "no answer of the model"
_NOT_COMPARED: Final = frozenset({NO_ANSWER, DEGRADED, NUMBER})
"""Differences with which no field can be compared."""
Result = Literal["alike", "different", "unanswered", "unserved", "degraded", "shed"]
_Key = tuple[str, str]
T = TypeVar("T")

log = structlog.get_logger(__name__)


class _Pair(msgspec.Struct, kw_only=True):
    """Two answers to one utterance. `ms`: how long it took here; `failed`: without an answer."""

    heard: Heard
    since: float
    answer: tuple[Insight, ...] = ()
    ms: float = 0.0
    failed: bool = False
    served: InsightsFound | None = None

    @property
    def understood(self) -> bool:
        return self.failed or bool(self.answer)


class Shadow:
    def __init__(
        self,
        classifier: Classifier,
        clock: Clock,
        ownership: Ownership,
        opens_task: OpensTask,
        share: float,
        *,
        busy: Callable[[], bool] = lambda: False,
        exhausted: Callable[[], bool] = lambda: False,
        within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        """`classifier`: one without effects. `share`: of the other side's utterances, 0 to 1.

        `busy`: whether this side has utterances of its own in hand. `exhausted`: whether no more may be spent.
        `within_s`: so long an answer may take; beyond it counts as none.
        """
        self._within_s = within_s
        self.watch: Callable[[], Awaitable[None]] | None = None
        """Run beside from the first utterance on: finds out whether a model that was down is back."""
        self._classifier = classifier
        self._clock = clock
        self._ownership = ownership
        self._opens_task = opens_task
        self._below = round(share * BUCKETS)
        self._busy = busy
        self._exhausted = exhausted
        self._pairs: OrderedDict[_Key, _Pair] = OrderedDict()
        self._early: OrderedDict[_Key, InsightsFound] = OrderedDict()
        """Answers of the other side that came before what they answer."""
        self._done: OrderedDict[_Key, None] = OrderedDict()
        """Utterances that were compared, or given up."""
        self._waiting: deque[_Key] = deque()
        self._offered = asyncio.Event()
        self._tally = Tally(clock, ownership.side)

    @property
    def active(self) -> bool:
        """Return True while this side is a shadow of the other one."""
        return self._below > 0 and self._ownership.shadows

    def takes(self, utterance_id: str) -> bool:
        """Return True for the share that is understood here: the same in every process, and each time."""
        return bucket("shadow", utterance_id) < self._below

    def offer(self, heard: Heard) -> None:
        """Have an utterance that the other side answers understood, if it is of the share. Never blocks."""
        key = (heard.site, heard.utterance_id)
        if not self._wants(key) or key in self._pairs:
            return
        if len(self._waiting) >= MAX_WAITING or len(self._pairs) >= MAX_PAIRS or self._exhausted():
            self._tally.count("shed")
            return
        self._pairs[key] = _Pair(heard=heard, since=self._clock.monotonic(), served=self._early.pop(key, None))
        self._waiting.append(key)
        self._offered.set()

    def served(self, found: InsightsFound) -> None:
        """Take the other side's answer. Its first one counts: it is what people saw."""
        key = (found.site, found.utterance_id)
        pair = self._pairs.get(key)
        if pair is not None and pair.served is None:
            pair.served = found
            self._settle(key, pair)
        elif pair is None and self._wants(key):
            self._early.setdefault(key, found)
            _trim(self._early)

    def forget(self, site: str, utterance_id: str) -> None:
        """Compare nothing of an utterance that this side has answered itself."""
        key = (site, utterance_id)
        if self._pairs.pop(key, None) is not None:
            self._finish(key)

    def erase(self, scope: Scope) -> None:
        """Compare nothing of what was erased, and forget that it differed."""
        for each in (self._pairs, self._early):
            for key in [key for key in each if scope.has(*key)]:
                del each[key]
        self._tally.erase(scope)

    def since(self, since_ns: int) -> Shadowed | None:
        """Return what was compared since then; None where this side is no shadow."""
        return self._tally.since(since_ns) if self.active else None

    @property
    def bill(self) -> Bill:
        """The calls to the model that were made for this alone."""
        return self._tally.bill

    async def run(self) -> None:
        """Understand and compare until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._understand_forever(), name="shadow:understand")
            tasks.create_task(self._expire_forever(), name="shadow:expire")
            if self.watch is not None:
                await self._offered.wait()
                tasks.create_task(_until_cancelled(self.watch), name="shadow:watch")

    # -- inside -----------------------------------------------------------------------------------------------------

    def _wants(self, key: _Key) -> bool:
        return self.active and self.takes(key[1]) and key not in self._done

    def _finish(self, key: _Key) -> None:
        self._done[key] = None
        _trim(self._done)

    async def _understand_forever(self) -> None:
        while True:
            while not self._waiting:
                self._offered.clear()
                await self._offered.wait()
            while self._busy():
                await self._clock.sleep(IDLE_S)
            if self._waiting:  # it may have expired meanwhile
                key = self._waiting.popleft()
                if (pair := self._pairs.get(key)) is not None:
                    await self._understand(key, pair)

    async def _understand(self, key: _Key, pair: _Pair) -> None:
        began = self._clock.monotonic()
        try:
            async with self._clock.timeout(self._within_s):
                [pair.answer] = await self._classifier.classify([pair.heard])
        except Exception as error:  # noqa: BLE001 - counted; without its text, which may be what was said
            log.info("shadow.unanswered", utterance_id=key[1], error=type(error).__name__)
            pair.failed = True
        pair.ms = (self._clock.monotonic() - began) * 1e3
        self._settle(key, pair)

    def _settle(self, key: _Key, pair: _Pair) -> None:
        """Compare once both answers are there."""
        served = pair.served
        if served is None or not pair.understood or self._pairs.get(key) is not pair:
            return
        del self._pairs[key]
        self._finish(key)
        if any(insight.degraded for insight in served.insights):
            self._tally.count("degraded")
            return
        if pair.failed:
            self._tally.count("unanswered")
            fields: tuple[str, ...] = (NO_ANSWER,)
        elif any(insight.degraded for insight in pair.answer):
            fields = (DEGRADED,)
        else:
            fields = differing(served.insights, pair.answer, self._opens_task)
            self._tally.took(pair.ms, served.latency.classify or 0.0)
        self._tally.compared(pair.heard, fields)

    async def _expire_forever(self) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            self.expire()

    def expire(self) -> None:
        """Give up what has waited for too long, and everything once this side is no shadow any more."""
        if not self.active:
            for each in (self._pairs, self._early, self._done, self._waiting):
                each.clear()
            return
        until = self._clock.monotonic() - SERVED_WITHIN_S
        while self._pairs and (pair := next(iter(self._pairs.values()))).since <= until:
            self._finish(self._pairs.popitem(last=False)[0])
            self._tally.count("unserved" if pair.understood else "shed")
        while self._waiting and self._waiting[0] not in self._pairs:
            self._waiting.popleft()


class Tally:
    """What a shadow has counted: bounded, the newest to stay."""

    def __init__(self, clock: Clock, side: str) -> None:
        self._clock = clock
        self._side = side
        self._counted: deque[tuple[int, Result]] = deque(maxlen=10 * MAX_SAMPLES)
        self._compared: deque[tuple[int, tuple[str, ...]]] = deque(maxlen=MAX_SAMPLES)
        self._times: deque[tuple[int, float, float]] = deque(maxlen=MAX_SAMPLES)
        self.bill = Bill(clock)
        self._differences: deque[Difference] = deque(maxlen=MAX_DIFFERENCES)

    def count(self, result: Result) -> None:
        self._counted.append((self._clock.now_ns(), result))
        SHADOWED.labels(result).inc()

    def erase(self, scope: Scope) -> None:
        kept = [each for each in self._differences if not scope.has(scope.site, each.utterance_id)]
        self._differences = deque(kept, maxlen=MAX_DIFFERENCES)

    def took(self, own_ms: float, served_ms: float) -> None:
        self._times.append((self._clock.now_ns(), own_ms, served_ms))

    def compared(self, heard: Heard, fields: tuple[str, ...]) -> None:
        """Count a comparison; `fields`: those that differ."""
        now_ns = self._clock.now_ns()
        self._compared.append((now_ns, fields))
        if fields != (NO_ANSWER,):  # else it was counted as unanswered
            SHADOWED.labels("different" if fields else "alike").inc()
        if fields:
            found = Difference(
                at_ns=now_ns,
                by=self._side,
                conversation_id=heard.conversation_id,
                utterance_id=heard.utterance_id,
                fields=fields,
            )
            self._differences.append(found)
            log.info("shadow.differs", utterance_id=heard.utterance_id, fields=fields)

    def since(self, since_ns: int) -> Shadowed:
        """Return what was counted since then, as far back as it is kept."""
        counted = Counter(result for at_ns, result in self._counted if at_ns >= since_ns)
        compared = [fields for at_ns, fields in self._compared if at_ns >= since_ns]
        times = [(own, served) for at_ns, own, served in self._times if at_ns >= since_ns]
        return Shadowed(
            compared=len(compared),
            alike=sum(not fields for fields in compared),
            fields=_by_field(compared),
            own_ms=tuple(own for own, _ in times),
            served_ms=tuple(served for _, served in times),
            spent=self.bill.since(since_ns, len(compared)),
            unanswered=counted["unanswered"],
            unserved=counted["unserved"],
            degraded=counted["degraded"],
            shed=counted["shed"],
            differences=tuple(each for each in reversed(self._differences) if each.at_ns >= since_ns),
            recent=tuple((at_ns, not fields) for at_ns, fields in self._compared if at_ns >= since_ns)[-RECENT:],
        )


async def _until_cancelled(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _trim(entries: OrderedDict[_Key, T]) -> None:
    while len(entries) > MAX_PAIRS:
        entries.popitem(last=False)


def _by_field(compared: list[tuple[str, ...]]) -> tuple[FieldAgreement, ...]:
    """Return the agreement on each field, of the utterances in which it could be compared."""
    numbered = [fields for fields in compared if not {NO_ANSWER, DEGRADED} & set(fields)]
    whole = [fields for fields in numbered if not _NOT_COMPARED & set(fields)]
    found = []
    for name in FIELDS:
        of = numbered if name == NUMBER else whole
        found.append(FieldAgreement(name=name, alike=sum(name not in fields for fields in of), of=len(of)))
    return tuple(found)
