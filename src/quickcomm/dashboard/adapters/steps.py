"""Answers commands of operations over several modules: each step is a decision, and so is what takes it back."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from quickcomm.contracts.closing import ArchiveConversation, ReopenConversation
from quickcomm.contracts.correcting import AmendUtterance, RestoreUtterance
from quickcomm.contracts.dispatching import ConfirmDispatch, DescribeTask, ReleaseTask, ReserveTask
from quickcomm.contracts.messaging import Request
from quickcomm.contracts.saga import StepRequest, Undone
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.ports import NotDecidingError
from quickcomm.dashboard.service import correcting, dispatching
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.service import DashboardService
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.rpc import Answer, NotOwnerError
from quickcomm.kernel.saga import Compensating, Transaction, Transactional
from quickcomm.kernel.storage import Database

R = TypeVar("R")
Work = Callable[[Decider, Any], R]


def step_answers(service: DashboardService, database: Database, clock: Clock) -> list[Answer]:
    """Return who answers. The decision itself has the key of the step: in the log of decisions there is no other place.

    Where decisions are transactions of this database, the steps are, too.
    """
    steps = _Steps(service, database, clock)
    return [
        steps.does(ArchiveConversation, Decider.archive),
        steps.undoes(ReopenConversation, ArchiveConversation, Decider.reopen),
        steps.does(AmendUtterance, correcting.amend),
        steps.undoes(RestoreUtterance, AmendUtterance, correcting.restore),
        steps.does(ReserveTask, dispatching.reserve),
        steps.undoes(ReleaseTask, ReserveTask, dispatching.release),
        steps.does(ConfirmDispatch, dispatching.confirm),
        (DescribeTask, steps.decided(dispatching.described)),
    ]


class _Steps:
    def __init__(self, service: DashboardService, database: Database, clock: Clock) -> None:
        self._service = service
        self._database = database
        self._clock = clock

    def does(self, kind: type[StepRequest[R]], work: Work[R]) -> Answer:
        if not self._service.decides_in_transactions:
            return kind, self.decided(work)
        return Transactional(kind, self._database, self._clock, self._within(work)).answer

    def undoes(self, kind: type[StepRequest[Undone]], of: type[StepRequest[R]], work: Work[Undone]) -> Answer:
        """`of`: the command of the step that is taken back."""
        if not self._service.decides_in_transactions:
            return kind, self.decided(work)
        within = self._within(work)

        def back(transaction: Transaction, request: Any, _reply: R) -> None:
            within(transaction, request)

        return Compensating(kind, of, self._database, self._clock, back).answer

    def decided(self, work: Work[R]) -> Callable[[Request[R]], Awaitable[R]]:
        async def answer(request: Request[R]) -> R:
            try:
                return await self._service.decide(lambda decider: work(decider, request))
            except NotDecidingError as error:
                raise NotOwnerError(str(error)) from error

        return answer

    def _within(self, work: Work[R]) -> Callable[[Transaction, Any], R]:
        def effect(transaction: Transaction, request: Any) -> R:
            state = SqlState(transaction.connection)
            reply, show = self._service.decide_within(state, lambda decider: work(decider, request))
            transaction.after(show)
            return reply

        return effect
