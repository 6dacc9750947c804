"""Where decisions are made: in the transaction that folds them, or in a log that several databases fold."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from quickcomm.contracts.decisions import Decision
from quickcomm.dashboard.model.records import Closing
from quickcomm.dashboard.ports import Applied, DecisionLog, NotDecidingError, StaleDecisionError, State, Store
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.dashboard.service.standing import Standing
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import BusyError, QuickCommError

ATTEMPTS: Final = 40
AT_ONCE: Final = 64
"""So many edits that wait are decided together, and take as long as one."""
RETRY_S: Final = 0.05
"""Between two attempts to decide on a state that lacks decisions of another process: they are on their way."""

T = TypeVar("T")
M = TypeVar("M")
Folding = Callable[[Projector], None]
Show = Callable[[Applied], None]
"""Called with what a transaction has changed as soon as it is committed: so pages get changes in their order."""
Utterances = Iterable[tuple[str, str]]
"""(site, utterance id)."""


def fold(messages: Iterable[M], apply: Callable[[Projector, M], None]) -> Folding:
    """Return what applies the messages in their order."""
    taken = tuple(messages)

    def run(projector: Projector) -> None:
        for message in taken:
            apply(projector, message)

    return run


def settling(utterances: Utterances) -> Callable[[Decider], None]:
    """Return what decides what follows from these, and from all of which more is known than before."""
    taken = tuple(utterances)
    return lambda decider: decider.settle(taken)


def matching_again(closings: Iterable[Closing]) -> Callable[[Decider], None]:
    """Return what matches closings with tasks that were said before them and have come since."""
    taken = tuple(closings)

    def work(decider: Decider) -> None:
        for closing in taken:
            decider.match_again(closing)

    return work


class Deciding(Protocol):
    async def folded(self, folding: Folding, show: Show, utterances: Utterances = ()) -> None:
        """Fold messages about these utterances."""
        ...

    async def decide(self, work: Callable[[Decider], T], show: Show, folding: Folding | None = None) -> T:
        """Fold messages, then decide; return when the decisions are durable and folded.

        `work` may run more than once. Raises what it raises, and `BusyError` where nothing can be decided now.
        """
        ...


class DecidedHere:
    """One database, whose transactions decide what follows from the messages that they fold."""

    def __init__(self, store: Store, clock: Clock, closing_confidence: float) -> None:
        self._store = store
        self._clock = clock
        self._closing_confidence = closing_confidence

    async def folded(self, folding: Folding, show: Show, utterances: Utterances = ()) -> None:
        """Decide what follows as well, also of messages that come again: their decisions may not have been made."""
        await self.decide(settling(utterances), show, folding)

    async def decide(self, work: Callable[[Decider], T], show: Show, folding: Folding | None = None) -> T:
        result, applied = await self._store.transact(lambda state: self.within(state, work, folding))
        show(applied)
        return result

    def within(self, state: State, work: Callable[[Decider], T], folding: Folding | None = None) -> tuple[T, Applied]:
        """As `decide`, in a transaction that is there already; return what it changes, too."""
        projector = Projector(state, self._closing_confidence)
        if folding is not None:
            folding(projector)
        result = work(Decider(projector, state, self._clock.now_ns()))
        return result, projector.finish()


class _Wanted(msgspec.Struct, eq=False):
    """A decision that waits for its turn."""

    work: Callable[[Decider], Any]
    show: Show
    folding: Folding | None
    outcome: asyncio.Future[Any]

    def settle(self, found: object) -> None:
        """Give the caller its result, unless it was cancelled."""
        if self.outcome.done():
            return
        if isinstance(found, BaseException):
            self.outcome.set_exception(found)
        else:
            self.outcome.set_result(found)


class _Undone(QuickCommError):  # noqa: N818 - a result, not an error
    """Takes the transaction back in which something was decided."""

    def __init__(self, outcomes: list[object], made: list[Decision]) -> None:
        super().__init__()
        self.outcomes = outcomes
        self.made = made


class DecidingInLog:
    """Decides on this database as it is, appends to the log, and folds what was appended.

    Decisions are computed in a transaction that is taken back. The log refuses them where it has newer ones about the
    same subjects: these are folded first, and it is decided again. Edits that come in meanwhile are decided together,
    so that twenty people who edit at once do not wait for one another.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        closing_confidence: float,
        log: DecisionLog,
        standing: Standing = Standing(),  # noqa: B008 - without state of its own
    ) -> None:
        self._store = store
        self._clock = clock
        self._closing_confidence = closing_confidence
        self._log = log
        self._standing = standing
        self._turn = asyncio.Lock()
        self._waiting: deque[_Wanted] = deque()
        self._working: set[asyncio.Task[None]] = set()

    async def folded(self, folding: Folding, show: Show, utterances: Utterances = ()) -> None:  # noqa: ARG002 - see `Deciding`
        def transaction(state: State) -> Applied:
            projector = Projector(state, self._closing_confidence)
            folding(projector)
            return projector.finish()

        show(await self._store.transact(transaction))

    async def decide(self, work: Callable[[Decider], T], show: Show, folding: Folding | None = None) -> T:
        """Fold for good before anything is decided.

        Two messages that together have a consequence may be in hand at once: who decides second sees both. Raises
        `NotDecidingError` where the other side has the lease.
        """
        self._check()
        wanted = _Wanted(work, show, folding, asyncio.get_running_loop().create_future())
        self._waiting.append(wanted)
        task = asyncio.create_task(self._work(), name="dashboard:deciding")  # goes on where the one who asked has left
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        result: T = await wanted.outcome
        return result

    async def _work(self) -> None:
        """Decide what waits first, with the edits behind it."""
        async with self._turn:
            if not (batch := self._next()):
                return
            try:
                async with self._store.alone():
                    outcomes = await self._all(batch)
            except BaseException as error:
                for each in batch:
                    each.settle(error if isinstance(error, Exception) else BusyError("The dashboard is stopping."))
                if not isinstance(error, Exception):
                    raise
                return
            for each, found in zip(batch, outcomes, strict=False):
                each.settle(found)
            self._waiting.extendleft(reversed(batch[len(outcomes) :]))

    def _next(self) -> list[_Wanted]:
        """Return what is decided together: one with messages to fold stands alone, as its receipts are its own."""
        batch: list[_Wanted] = []
        while self._waiting and len(batch) < AT_ONCE:
            first = self._waiting[0]
            if batch and (first.folding is not None or first.show != batch[0].show):
                break
            self._waiting.popleft()
            if not first.outcome.done():
                batch.append(first)
            if first.folding is not None and batch:
                break
        return batch

    async def _all(self, batch: Sequence[_Wanted]) -> list[object]:
        """Return what became of each, or of the first of them."""
        first = batch[0]
        if first.folding is not None:
            await self.folded(first.folding, first.show)
        outcomes, made = await self._made([each.work for each in batch])
        if made:
            await self.folded(fold(made, Projector.decision), first.show)
        return outcomes

    async def _made(self, works: Sequence[Callable[[Decider], object]]) -> tuple[list[object], list[Decision]]:
        """Decide until the log takes the decisions; return them."""
        for _ in range(ATTEMPTS):
            if not self._log.epoch:
                await self._hold()
            outcomes, made = await self._decided(works)
            try:
                await self._log.append(made)
            except StaleDecisionError:
                await self._clock.sleep(RETRY_S)
            except NotDecidingError:  # the lease moved, or the store was emptied
                self._check()
                await self._hold()
            else:
                return outcomes, made
        raise BusyError("What others have decided is not known here yet; try again in a moment.")

    async def _hold(self) -> None:
        known = await self._store.transact(lambda state: state.newest_epoch())
        await self._log.hold(known, self._standing.version)

    def _check(self) -> None:
        if not self._standing.decides:
            raise NotDecidingError("The other side decides for this site now.")

    async def _decided(self, works: Sequence[Callable[[Decider], object]]) -> tuple[list[object], list[Decision]]:
        """Decide one after the other, up to the first that bears on what one before it has decided."""
        now_ns, epoch = self._clock.now_ns(), self._log.epoch

        def transaction(state: State) -> None:
            projector = Projector(state, self._closing_confidence)
            outcomes: list[object] = []
            made: dict[tuple[str, str], Decision] = {}
            for work in works:
                decider = Decider(projector, state, now_ns, epoch)
                try:
                    outcome = work(decider)
                except QuickCommError as error:
                    outcomes.append(error)
                    if decider.made:  # the projector has what is not to be
                        break
                    continue
                if made.keys() & decider.made.keys():
                    break
                outcomes.append(outcome)
                made |= decider.made
            raise _Undone(outcomes, list(made.values()))

        try:
            await self._store.transact(transaction)
        except _Undone as undone:
            return undone.outcomes, undone.made
        raise AssertionError("unreachable")  # pragma: no cover
