"""Archives a conversation that is closed, with its open tasks, as a step of that operation; and takes that back."""

from quickcomm.contracts.closing import ArchiveConversation, Archived, ReopenConversation
from quickcomm.contracts.saga import Undone
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.ports import NotDecidingError
from quickcomm.dashboard.service.service import DashboardService
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.rpc import Answer, NotOwnerError
from quickcomm.kernel.saga import Compensating, Transaction, Transactional
from quickcomm.kernel.storage import Database


def closing_answers(service: DashboardService, database: Database, clock: Clock) -> list[Answer]:
    """Return who answers. The decision itself has the key of the step: in the log of decisions there is no other place.

    Where decisions are transactions of this database, the steps are, too.
    """
    return _transactional(service, database, clock) if service.decides_in_transactions else _logged(service)


def _logged(service: DashboardService) -> list[Answer]:
    async def archive(request: ArchiveConversation) -> Archived:
        try:
            return await service.decide(lambda decider: decider.archive(request))
        except NotDecidingError as error:
            raise NotOwnerError(str(error)) from error

    async def reopen(request: ReopenConversation) -> Undone:
        try:
            return await service.decide(lambda decider: decider.reopen(request))
        except NotDecidingError as error:
            raise NotOwnerError(str(error)) from error

    return [(ArchiveConversation, archive), (ReopenConversation, reopen)]


def _transactional(service: DashboardService, database: Database, clock: Clock) -> list[Answer]:
    def archive(transaction: Transaction, request: ArchiveConversation) -> Archived:
        state = SqlState(transaction.connection)
        reply, show = service.decide_within(state, lambda decider: decider.archive(request))
        transaction.after(show)
        return reply

    def reopen(transaction: Transaction, request: ReopenConversation, _reply: Archived) -> None:
        state = SqlState(transaction.connection)
        _, show = service.decide_within(state, lambda decider: decider.reopen(request))
        transaction.after(show)

    step = Transactional(ArchiveConversation, database, clock, archive)
    back = Compensating(ReopenConversation, ArchiveConversation, database, clock, reopen)
    return [step.answer, back.answer]
