"""Walks through what the modules of a site have, range by range; looks a second time before it says that one differs.

A range of which all sums agree is done. Else its rows are compared; what is missing may just be on its way, so that it
is a finding only if it is still missing some seconds later, and no message that was there before waits any more.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from quickcomm.contracts.checking import (
    ANSWERED,
    FIRST,
    MAX_FAULTS,
    TRANSCRIBED,
    Compare,
    CompareAudio,
    CompareDashboard,
    CompareIntelligence,
    Contents,
    Conversations,
    Key,
    ListBacklog,
    RecentAudio,
    RecentDashboard,
    Waiting,
)
from quickcomm.contracts.commands import Command, ListDeadLetters
from quickcomm.contracts.operations import ListOperations
from quickcomm.contracts.saga import OPERATIONS, OperationView
from quickcomm.kernel.checking.compare import (
    AUDIO,
    DASHBOARD,
    INTELLIGENCE,
    Finding,
    compare,
    compare_copies,
    copies_differ,
    differs,
    digest_of,
    in_order,
)
from quickcomm.kernel.checking.operations import of_operations
from quickcomm.kernel.checking.ranges import Range, ranges_of
from quickcomm.kernel.checking.repairs import REPAIRS, Letter, of_letters, with_repairs
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError

SIDES: Final[dict[str, type[Compare]]] = {
    DASHBOARD: CompareDashboard,
    INTELLIGENCE: CompareIntelligence,
    AUDIO: CompareAudio,
}
MESSAGES: Final = "messages"
"""Cannot be asked for, where their store is away."""
STUCK_NS: Final = 60 * 10**9
"""A message that waits for longer is told of."""
NS: Final = 10**9
DAY_NS: Final = 86_400 * NS
PURGED_WITHIN_NS: Final = 2 * 3_600 * NS
"""Each store deletes what is too old when its own hour has come."""
_UTTERANCES: Final = (TRANSCRIBED, ANSWERED)
T = TypeVar("T")
ALL: Final[Range] = (FIRST, None)
Suspect = tuple[Range, list[Finding]]
"""What seems to be wrong with a range."""
Differences = dict[Finding, tuple[str, str]]
"""With the digests of both sides; empty where a side has none."""

log = structlog.get_logger(__name__)


class Ask(Protocol):
    """Sends a request to the module that answers it. Raises `QuickCommError`."""

    async def __call__(self, request: Command, /) -> Any: ...


class CheckOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`page`: utterances in a range. `share` of a core that it may take: it rests between the ranges.

    `settle_s`: how long what was just said may be on its way; 0 where nothing runs.
    """

    page: int = 5_000
    share: float = 1.0
    settle_s: float = 10.0
    retention_days: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`unavailable`: what could not be asked, and why."""

    findings: tuple[Finding, ...] = ()
    utterances: int = 0
    ranges: int = 0
    seconds: float = 0.0
    unavailable: dict[str, str] = {}


class Checker:
    """For one check."""

    def __init__(self, ask: Ask, clock: Clock, options: CheckOptions = CheckOptions()) -> None:  # noqa: B008 - frozen
        self._ask = ask
        self._clock = clock
        self._options = options
        self._unavailable: dict[str, str] = {}
        self._utterances = self._ranges = 0

    async def recent(self, since_ns: int) -> list[Range]:
        """Return the ranges of the conversations that audio or the dashboard has seen change since then."""
        keys: set[Key] = set()
        for request in (RecentAudio(since_ns=since_ns), RecentDashboard(since_ns=since_ns)):
            try:
                keys.update(_as(await self._ask(request), Conversations).keys)
            except QuickCommError as error:
                self._unavailable[request.module] = str(error)
        return ranges_of(keys)

    async def run(self, ranges: Sequence[Range] = (ALL,)) -> Report:
        """Check the site, or only these ranges of it."""
        began = self._clock.monotonic()
        suspects: list[Suspect] = []
        for after, end in ranges:
            async for reached, found in self._walk(after, end):
                if found:
                    suspects.append((reached, found))
        before, looked_ns = await self._list(ListBacklog(), Waiting), self._clock.now_ns()
        found = [each for _, findings in suspects for each in findings]
        waiting = before
        if self._options.settle_s and (found or _old(before, looked_ns)):
            await self._clock.sleep(self._options.settle_s)
            found = await _still(suspects, self._compared_again)
            waiting = await self._list(ListBacklog(), Waiting)
        letters = await self._list(ListDeadLetters(), Letter)
        kept = [each for each in found if not (self._explains(waiting, looked_ns, each) or self._may_be_purged(each))]
        stuck = _stuck(before, waiting, self._clock.now_ns()) if self._options.settle_s else []
        return Report(
            findings=(*with_repairs(in_order(kept), letters), *stuck, *of_letters(letters), *await self._operations()),
            utterances=self._utterances,
            ranges=self._ranges,
            seconds=round(self._clock.monotonic() - began, 2),
            unavailable=self._unavailable,
        )

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _walk(self, after: Key, end: Key | None) -> AsyncIterator[tuple[Range, list[Finding]]]:
        """Yield each range, and what seems to be wrong with it."""
        while True:
            sides = await self._sums(after, end)
            reached = min((each.until for each in sides.values() if each.until is not None), default=None)
            self._ranges += 1
            counts = [each.kinds[kind].count for each in sides.values() for kind in _UTTERANCES if kind in each.kinds]
            self._utterances += max(counts, default=0)
            yield (after, reached), await self._compared(sides, (after, reached))
            if reached is None or reached == end:
                return
            after = reached

    async def _compared(self, sides: dict[str, Contents], reached: Range) -> list[Finding]:
        if differs(sides):
            sides = await self._sums(*reached, items=True)
        return compare(sides)

    async def _compared_again(self, reached: Range) -> list[Finding]:
        return compare(await self._sums(*reached, items=True))

    async def _sums(self, after: Key, end: Key | None, *, items: bool = False) -> dict[str, Contents]:
        """Have all sides tell of one range: as far as each of them can in one answer."""
        sides: dict[str, Contents] = {}
        until = end
        for module in (*SIDES, *SIDES):
            if module in self._unavailable or (module in sides and sides[module].until == until):
                continue
            request = SIDES[module](after=after, until=until, limit=self._options.page, items=items)
            told = await self._told(module, request)
            if told is not None:
                sides[module], until = told, told.until
        return sides

    async def _told(self, module: str, request: Compare) -> Contents | None:
        began = self._clock.monotonic()
        try:
            answer = await self._ask(request)
        except QuickCommError as error:
            self._unavailable[module] = str(error)
            return None
        if self._options.share < 1:
            took_s = self._clock.monotonic() - began
            await self._clock.sleep(took_s * (1 / self._options.share - 1))
        return _as(answer, Contents)

    async def _operations(self) -> list[Finding]:
        """Return the operations over several modules that are neither done nor taken back, and get no further."""
        try:
            found = [_as(each, OperationView) for each in await self._ask(ListOperations(unfinished=True))]
        except QuickCommError as error:
            self._unavailable[OPERATIONS] = str(error)
            return []
        return of_operations(found, self._clock.now_ns())

    async def _list(self, request: Command, kind: type[T]) -> list[T]:
        try:
            return [_as(each, kind) for each in await self._ask(request)]
        except QuickCommError as error:
            self._unavailable[MESSAGES] = str(error)
            return []

    def _explains(self, waiting: Iterable[Waiting], looked_ns: int, finding: Finding) -> bool:
        """Return True if a message that may be the missing one still waits; newer ones cannot be."""
        if MESSAGES in self._unavailable and finding.event:
            return True  # nobody knows
        return any(
            f"{each.stream}/{each.group}" == finding.event
            and (each.oldest_ns <= looked_ns or not self._options.settle_s)
            for each in waiting
        )

    def _may_be_purged(self, finding: Finding) -> bool:
        days = self._options.retention_days
        horizon_ns = self._clock.now_ns() - days * DAY_NS + PURGED_WITHIN_NS
        return bool(days) and 0 < finding.since_ns < horizon_ns


class Parity:
    """Compares two dashboards, such as both sides of a migration: counts and digests by range, then rows."""

    def __init__(
        self,
        here: Ask,
        there: Ask,
        clock: Clock,
        options: CheckOptions = CheckOptions(),  # noqa: B008 - frozen
        settled: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`settled`: returns when both have what was on its way at the call; None: after `options.settle_s`."""
        self._settled = settled or (lambda: clock.sleep(options.settle_s))
        self._sides = (here, there)
        self._clock = clock
        self._options = options

    async def run(self, ranges: Sequence[Range] = (ALL,)) -> Report:
        """Compare all that they have, or only these ranges of it. Raises `QuickCommError` where one cannot be asked."""
        began = self._clock.monotonic()
        suspects: list[tuple[Range, Differences]] = []
        cards = parts = 0
        for after, end in ranges:
            async for reached, (here, there) in self._walk(after, end):
                parts, cards = parts + 1, cards + max(each.kinds["cards"].count for each in (here, there))
                if copies_differ(here, there) and sum(len(found) for _, found in suspects) < MAX_FAULTS:
                    suspects.append((reached, await self._compared(reached)))
        if self._options.settle_s and any(found for _, found in suspects):
            await self._settled()
            suspects = [(reached, _lasting(found, await self._compared(reached))) for reached, found in suspects]
        found = [each for _, differences in suspects for each in differences]
        seconds = round(self._clock.monotonic() - began, 2)
        return Report(findings=tuple(in_order(found)), utterances=cards, ranges=parts, seconds=seconds)

    async def _walk(self, after: Key, end: Key | None) -> AsyncIterator[tuple[Range, tuple[Contents, Contents]]]:
        """Yield each range, with what both have in it."""
        while True:
            here, there = await self._sums(after, end)
            yield (after, there.until), (here, there)
            if there.until is None or there.until == end:
                return
            after = there.until

    async def _sums(self, after: Key, end: Key | None) -> tuple[Contents, Contents]:
        """Return what both have in one range: as far as each of them can tell in one answer."""
        here = await self._told(0, (after, end))
        there = await self._told(1, (after, here.until))
        return (here if there.until == here.until else await self._told(0, (after, there.until))), there

    async def _compared(self, reached: Range) -> Differences:
        here, there = [await self._told(side, reached, items=True) for side in (0, 1)]
        return {each: (digest_of(here, each), digest_of(there, each)) for each in compare_copies(here, there)}

    async def _told(self, side: int, reached: Range, *, items: bool = False) -> Contents:
        after, until = reached
        request = CompareDashboard(after=after, until=until, limit=self._options.page, items=items, content=True)
        return _as(await self._sides[side](request), Contents)


def _lasting(before: Differences, after: Differences) -> Differences:
    """Return what differs at both looks in the same way.

    What is talked about just now changes all the time, and is read of one side a moment later: it is compared once
    it is calm.
    """
    first = {each.name: values for each, values in before.items()}
    return {each: values for each, values in after.items() if first.get(each.name) == values}


async def _still(suspects: Iterable[Suspect], look: Callable[[Range], Awaitable[list[Finding]]]) -> list[Finding]:
    """Return what is found again at a second look."""
    still = []
    for reached, found in suspects:
        names = {each.name for each in found}
        still += [each for each in await look(reached) if each.name in names]
    return still


def _as(answer: Any, kind: type[T]) -> T:
    return answer if isinstance(answer, kind) else msgspec.convert(answer, kind)


def _old(waiting: Iterable[Waiting], now_ns: int) -> dict[str, Waiting]:
    """Return, by stream and group, where a message waits for too long."""
    return {f"{each.stream}/{each.group}": each for each in waiting if 0 < each.oldest_ns < now_ns - STUCK_NS}


def _stuck(before: Iterable[Waiting], after: Iterable[Waiting], now_ns: int) -> list[Finding]:
    """Return where the same message waits at both looks: one that was just replayed has an old time, too."""
    first = _old(before, now_ns)
    return [
        Finding(
            code="backlog.stuck",
            since_ns=each.oldest_ns,
            event=event,
            detail=f"{each.count} messages wait; the first of them for {(now_ns - each.oldest_ns) / NS:.0f} s",
            repair=REPAIRS["backlog.stuck"],
        )
        for event, each in _old(after, now_ns).items()
        if event in first and first[event].oldest_ns == each.oldest_ns
    ]
