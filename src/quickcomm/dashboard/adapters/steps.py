"""Steps of operations that the dashboard decides: archiving a conversation, correcting an utterance; and their undo.

The decision itself has the key of the step, or its number: in the log of decisions there is no other place. Where
decisions are transactions of this database, the steps are, too.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from quickcomm.contracts.closing import ArchiveConversation, ReopenConversation
from quickcomm.contracts.correcting import AmendUtterance, RestoreUtterance
from quickcomm.contracts.saga import StepRequest, Undone
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.ports import NotDecidingError
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.service import DashboardService
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.rpc import Answer, NotOwnerError
from quickcomm.kernel.saga import Compensating, Transaction, Transactional
from quickcomm.kernel.storage import Database

R = TypeVar("R")


def step_answers(service: DashboardService, database: Database, clock: Clock) -> list[Answer]:
    """Return who answers the steps, and what takes them back."""
    steps = _Steps(service, database, clock)
    return [
        *steps.pair(ArchiveConversation, Decider.archive, ReopenConversation, Decider.reopen),
        *steps.pair(AmendUtterance, Decider.amend, RestoreUtterance, Decider.restore),
    ]


def decided(service: DashboardService, decide: Callable[[Decider, Any], R]) -> Callable[[StepRequest[R]], Awaitable[R]]:
    """Return a handler that decides on this side; another one is asked where this one does not decide."""

    async def answer(request: StepRequest[R]) -> R:
        try:
            return await service.decide(lambda decider: decide(decider, request))
        except NotDecidingError as error:
            raise NotOwnerError(str(error)) from error

    return answer


class _Steps:
    def __init__(self, service: DashboardService, database: Database, clock: Clock) -> None:
        self._service = service
        self._database = database
        self._clock = clock

    def pair(
        self,
        kind: type[StepRequest[R]],
        do: Callable[[Decider, Any], R],
        back: type[StepRequest[Undone]],
        undo: Callable[[Decider, Any], Undone],
    ) -> list[Answer]:
        """Return who answers a step, and the command that takes it back."""
        if not self._service.decides_in_transactions:
            return [(kind, decided(self._service, do)), (back, decided(self._service, undo))]

        def effect(transaction: Transaction, request: Any) -> R:
            return self._within(transaction, lambda decider: do(decider, request))

        def taken_back(transaction: Transaction, request: Any, _reply: R) -> None:
            self._within(transaction, lambda decider: undo(decider, request))

        step = Transactional(kind, self._database, self._clock, effect)
        return [step.answer, Compensating(back, kind, self._database, self._clock, taken_back).answer]

    def _within(self, transaction: Transaction, decide: Callable[[Decider], R]) -> R:
        reply, show = self._service.decide_within(SqlState(transaction.connection), decide)
        transaction.after(show)
        return reply
