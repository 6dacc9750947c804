"""Finishes a conversation that is closed, as a step of that operation."""

from quickcomm.audio.adapters.sql_sessions import SqlSessions
from quickcomm.audio.ports import SessionStore
from quickcomm.audio.service.manager import Manager
from quickcomm.contracts.closing import FinishConversation, Finished
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.saga import Transaction, Transactional
from quickcomm.kernel.storage import Database


def finishing(manager: Manager, store: SessionStore, database: Database | None, clock: Clock) -> Answer:
    """Return who answers. What a live conversation still has is published before its end is a transaction.

    In a Valkey it is no transaction of ours, and needs no key: what has ended stays so, and nothing takes it back.
    """

    async def end_here(request: FinishConversation) -> None:
        await manager.close(request.site, request.conversation_id, reason_of(request))

    async def finish(request: FinishConversation) -> Finished:
        await end_here(request)
        return await store.finish(request.site, request.conversation_id, reason_of(request))

    if database is None or not isinstance(store, SqlSessions):
        return FinishConversation, finish
    sql = store

    def effect(transaction: Transaction, request: FinishConversation) -> Finished:
        connection = transaction.connection
        return sql.finish_in(connection, request.site, request.conversation_id, reason_of(request))

    return Transactional(FinishConversation, database, clock, effect, end_here).answer


def reason_of(request: FinishConversation) -> str:
    """Return what the conversation's last message says."""
    return f"closed by {request.by}"
