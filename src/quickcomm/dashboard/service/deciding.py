"""Where decisions are made: in the transaction that folds them, or in a log that several databases fold."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from quickcomm.contracts.decisions import Decision
from quickcomm.dashboard.model.records import Closing
from quickcomm.dashboard.ports import Applied, DecisionLog, NotDecidingError, StaleDecisionError, State, Store
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.dashboard.service.standing import Standing
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import BusyError, QuickCommError

ATTEMPTS: Final = 40
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


class _Undone(QuickCommError):  # noqa: N818 - a result, not an error
    """Takes the transaction back in which something was decided."""

    def __init__(self, result: object, made: list[Decision]) -> None:
        super().__init__()
        self.result = result
        self.made = made


class DecidingInLog:
    """Decides on this database as it is, appends to the log, and folds what was appended.

    Decisions are computed in a transaction that is taken back. The log refuses them where it has newer ones about the
    same subjects: these are folded first, and it is decided again.
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
        async with self._turn, self._store.alone():
            if folding is not None:
                await self.folded(folding, show)
            result, made = await self._made(work)
            if made:
                await self.folded(fold(made, Projector.decision), show)
            return result

    async def _made(self, work: Callable[[Decider], T]) -> tuple[T, list[Decision]]:
        """Decide until the log takes the decisions; return them."""
        for _ in range(ATTEMPTS):
            if not self._log.epoch:
                await self._hold()
            result, made = await self._decided(work)
            try:
                await self._log.append(made)
            except StaleDecisionError:
                await self._clock.sleep(RETRY_S)
            except NotDecidingError:  # the lease moved, or the store was emptied
                self._check()
                await self._hold()
            else:
                return result, made
        raise BusyError("What others have decided is not known here yet; try again in a moment.")

    async def _hold(self) -> None:
        known = await self._store.transact(lambda state: state.newest_epoch())
        await self._log.hold(known, self._standing.version)

    def _check(self) -> None:
        if not self._standing.decides:
            raise NotDecidingError("The other side decides for this site now.")

    async def _decided(self, work: Callable[[Decider], T]) -> tuple[T, list[Decision]]:
        now_ns, epoch = self._clock.now_ns(), self._log.epoch

        def transaction(state: State) -> None:
            projector = Projector(state, self._closing_confidence)
            decider = Decider(projector, state, now_ns, epoch)
            result = work(decider)
            raise _Undone(result, list(decider.made.values()))

        try:
            await self._store.transact(transaction)
        except _Undone as undone:
            return undone.result, undone.made  # type: ignore[return-value]
        raise AssertionError("unreachable")  # pragma: no cover
