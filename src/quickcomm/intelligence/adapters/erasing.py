"""Erases what intelligence has of utterances: results, the backlog, notes for summaries, answers of the model."""

from collections.abc import Callable
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.erasing import Erased, EraseIntelligence, Scope
from quickcomm.intelligence.adapters.sql_cache import answers
from quickcomm.intelligence.adapters.sql_results import debts, erased, results
from quickcomm.intelligence.adapters.sql_talks import talks
from quickcomm.kernel.erasing.messages import erase_messages
from quickcomm.kernel.erasing.tombstones import WHOLE, bury, is_of
from quickcomm.kernel.erasing.traces import remove_traces
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.storage import Database

TABLES_WITH_WORDS: Final = (
    *("intelligence_results", "intelligence_owed", "intelligence_talks", "intelligence_cache"),
    *("bus_messages", "bus_dead_letters"),
)


def erasing_answer(database: Database, on_erased: Callable[[Scope], None] = lambda _scope: None) -> Answer:
    """Return what is answered to an erasure. `on_erased`: makes the process forget what it has in memory."""

    async def erase(request: EraseIntelligence) -> list[Erased]:
        on_erased(request.scope)
        counts = await database.write(lambda connection: _erase(connection, request))
        gone = await remove_traces(database, TABLES_WITH_WORDS) if request.traces else ""
        store = f"intelligence, {database.name}"
        return [Erased(store=store, what=what, count=count, gone=gone) for what, count in counts.items()]

    return EraseIntelligence, erase


def still_there() -> sa.ColumnElement[bool]:
    """Return the condition for results that were erased and are there."""
    conversation = sa.func.substr(results.c.utterance_id, 1, sa.func.length(erased.c.conversation_id) + 1)
    return sa.exists().where(
        erased.c.site == results.c.site,
        sa.or_(
            erased.c.utterance_id == results.c.utterance_id,
            sa.and_(erased.c.utterance_id == WHOLE, conversation == erased.c.conversation_id + ":"),
        ),
    )


def _erase(connection: Connection, request: EraseIntelligence) -> dict[str, int]:
    scope = request.scope
    is_new = bury(connection, erased, request)
    counts = {
        "results": connection.execute(results.delete().where(is_of(results, scope))).rowcount,
        "backlog": connection.execute(debts.delete().where(is_of(debts, scope))).rowcount,
    }
    _without_context(connection, scope)
    mine = sa.and_(talks.c.site == scope.site, talks.c.conversation_id.in_(scope.touched()))
    if not is_new:  # what was remembered since then is of what is left
        mine = sa.and_(mine, talks.c.at_ns <= request.at_ns)
    counts["notes for summaries"] = connection.execute(talks.delete().where(mine)).rowcount
    # Their keys are digests of the text: which of them are meant, only the text could tell.
    counts["answers of the model"] = connection.execute(answers.delete()).rowcount
    return counts | erase_messages(connection, scope)


def _without_context(connection: Connection, scope: Scope) -> None:
    """Have the backlog renewed without what was said before each utterance.

    Which of those words were erased is not known.
    """
    for row in connection.execute(sa.select(debts).where(debts.c.site == scope.site)).all():
        stored = msgspec.json.decode(row.payload)
        if stored["heard"].get("context"):
            stored["heard"]["context"] = []
            here = sa.and_(debts.c.site == row.site, debts.c.utterance_id == row.utterance_id)
            connection.execute(debts.update().where(here).values(payload=msgspec.json.encode(stored)))
