"""Answers the checker what this dashboard has: ids and faults for the site's check, contents to compare dashboards."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.checking import (
    ANSWERED,
    ENDED,
    TRANSCRIBED,
    Compare,
    CompareDashboard,
    Contents,
    Conversations,
    Key,
    ListTranscripts,
    RecentDashboard,
    Transcript,
)
from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.erasing import ERASED
from quickcomm.contracts.insight import TASK_DONE
from quickcomm.dashboard.adapters.erasing import still_there
from quickcomm.dashboard.adapters.tables import closings, conversations, decisions, tasks, utterances
from quickcomm.dashboard.adapters.unfolded import unfolded
from quickcomm.kernel.checking.gathering import Gathering, reach, within
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.storage import Database

OVER: Final = ("ended", "expired")
_UTTERANCE: Final = (utterances.c.site, utterances.c.utterance_id)
_TASK: Final = (tasks.c.site, tasks.c.utterance_id)
_CONVERSATION: Final = (conversations.c.site, conversations.c.conversation_id)
_FIRST: Final = utterances.alias("first")
_ledgers: Final = msgspec.json.Decoder(tuple[Ledger, ...])


class _Asked(msgspec.Struct):
    index: int
    intent: str


class _Found(msgspec.Struct):
    """Of a stored `InsightsFound`, what opens tasks."""

    insights: tuple[_Asked, ...] = ()
    opens_tasks: tuple[int, ...] = ()


_found: Final = msgspec.json.Decoder(_Found)


class _Kind(NamedTuple):
    """Rows of two dashboards that must be alike: `by` places them in a range, `id` names them."""

    table: sa.Table
    by: sa.Column[Any]
    id: sa.Column[Any]
    at_ns: sa.Column[Any]
    columns: tuple[sa.Column[Any], ...]


def _all_but(table: sa.Table, *names: str) -> tuple[sa.Column[Any], ...]:
    return tuple(column for column in table.c if column.name not in names)


_CONTENT: Final[Mapping[str, _Kind]] = {
    "cards": _Kind(
        utterances,
        utterances.c.utterance_id,
        utterances.c.utterance_id,
        utterances.c.spoken_ns,
        (utterances.c.transcript, utterances.c.found, utterances.c.copy_of, utterances.c.corrected),
    ),
    "tasks": _Kind(tasks, tasks.c.utterance_id, tasks.c.task_id, tasks.c.created_ns, _all_but(tasks, "id")),
    "closings": _Kind(closings, closings.c.utterance_id, closings.c.closing_id, closings.c.at_ns, _all_but(closings)),
    "decisions": _Kind(
        decisions, decisions.c.utterance_id, decisions.c.subject, decisions.c.at_ns, _all_but(decisions)
    ),
    "conversations": _Kind(
        conversations,
        conversations.c.conversation_id,
        conversations.c.conversation_id,
        conversations.c.at_ns,
        _all_but(conversations, "id", "change"),
    ),
}
"""Another kind of row is one entry here."""


def digest_answers(database: Database) -> list[Answer]:
    async def contents(request: CompareDashboard) -> Contents:
        return await database.read(lambda connection: _gather(connection, request))

    async def recent(request: RecentDashboard) -> Conversations:
        row, since_ns = conversations.c, request.since_ns
        query = sa.select(*_CONVERSATION).where(sa.or_(row.at_ns >= since_ns, row.last_spoken_ns >= since_ns))
        query = query.order_by(*_CONVERSATION).limit(request.limit)
        decided = sa.select(decisions.c.site, decisions.c.utterance_id).where(decisions.c.at_ns >= since_ns)
        decided = decided.order_by(decisions.c.site, decisions.c.utterance_id).limit(request.limit)
        rows, edited = await database.read(
            lambda connection: (connection.execute(query).all(), connection.execute(decided).all())
        )
        keys = {(site, name.partition(":")[0]) for site, name in (*rows, *edited)}
        return Conversations(keys=sorted(keys)[: request.limit])

    async def transcripts(request: ListTranscripts) -> list[Transcript]:
        return await database.read(lambda connection: list(_transcripts(connection, request)))

    return [(CompareDashboard, contents), (RecentDashboard, recent), (ListTranscripts, transcripts)]


def _gather(connection: Connection, request: Compare) -> Contents:
    gathering = Gathering(request, until := reach(connection, *_UTTERANCE, request))
    if request.content:
        for name, kind in _CONTENT.items():
            here = within(kind.table.c.site, kind.by, request, until)
            query = sa.select(kind.table.c.site, kind.id, kind.at_ns, *kind.columns).where(here)
            rows = connection.execute(query)
            gathering.add(name, ((row[0], row[1], tuple(row[3:]), row[2]) for row in rows))
        return gathering.contents()
    _utterances(connection, request, until, gathering)
    _orphans(connection, request, until, gathering)
    if (erased := still_there(connection)) is not None:
        query = sa.select(*_UTTERANCE, utterances.c.spoken_ns).where(within(*_UTTERANCE, request, until), erased)
        for site, name, spoken_ns in connection.execute(query):
            gathering.fault(ERASED, site, name, spoken_ns, "the dashboard has its card")
    for decision in unfolded(connection, request, until):
        what = decision.subject
        gathering.fault("decision.unfolded", decision.site, decision.what.utterance_id, decision.at_ns, what)
    _ended(connection, request, until, gathering)
    return gathering.contents()


def _utterances(connection: Connection, request: Compare, until: Key | None, gathering: Gathering) -> None:
    """Add the ids of what was heard and answered; tell of tasks that were to be opened and are not there."""
    of = utterances.c
    query = sa.select(*_UTTERANCE, of.spoken_ns, of.heard, of.found, of.copy_of)
    rows = connection.execute(query.where(within(*_UTTERANCE, request, until))).all()
    gathering.add(TRANSCRIBED, ((row.site, row.utterance_id, None, row.spoken_ns) for row in rows if row.heard))
    gathering.add(ANSWERED, ((row.site, row.utterance_id, None, row.spoken_ns) for row in rows if row.found))
    opened = sa.select(*_TASK, tasks.c.insight_index).where(within(*_TASK, request, until))
    there = {tuple(row) for row in connection.execute(opened)}
    for row in rows:
        if row.heard and row.found and row.copy_of is None:
            for index in _opens(row.found):
                if (row.site, row.utterance_id, index) not in there:
                    gathering.fault("task.missing", row.site, row.utterance_id, row.spoken_ns, f"task {index}")


def _opens(stored: bytes) -> list[int]:
    found = _found.decode(stored)
    return [each.index for each in found.insights if each.index in found.opens_tasks and each.intent != TASK_DONE]


def _orphans(connection: Connection, request: Compare, until: Key | None, gathering: Gathering) -> None:
    """Tell of tasks without their utterance, and of copies without their first."""
    lost = (
        sa.select(*_TASK, tasks.c.created_ns, tasks.c.task_id)
        .where(within(*_TASK, request, until))
        .where(~sa.exists().where(utterances.c.site == tasks.c.site, utterances.c.utterance_id == tasks.c.utterance_id))
    )
    for row in connection.execute(lost):
        gathering.fault("task.orphan", row.site, row.utterance_id, row.created_ns, f"task {row.task_id}")
    alone = (
        sa.select(*_UTTERANCE, utterances.c.spoken_ns, utterances.c.copy_of)
        .where(within(*_UTTERANCE, request, until), utterances.c.copy_of.is_not(None))
        .where(~sa.exists().where(_FIRST.c.site == utterances.c.site, _FIRST.c.utterance_id == utterances.c.copy_of))
    )
    for row in connection.execute(alone):
        gathering.fault("copy.orphan", row.site, row.utterance_id, row.spoken_ns, f"a copy of {row.copy_of}")


def _ended(connection: Connection, request: Compare, until: Key | None, gathering: Gathering) -> None:
    row = conversations.c
    heard = sa.select(sa.func.count()).where(
        utterances.c.site == row.site, utterances.c.conversation_id == row.conversation_id, utterances.c.heard
    )
    query = sa.select(
        *_CONVERSATION, row.state, row.ledgers, row.at_ns, row.utterances, heard.scalar_subquery().label("heard")
    ).where(within(*_CONVERSATION, request, until), row.at_ns > 0)
    rows = [(row, _ledgers.decode(row.ledgers)) for row in connection.execute(query)]
    for each, ledgers in rows:
        if each.utterances != each.heard:
            what = f"{each.utterances} utterances counted, {each.heard} are there"
            gathering.fault("conversation.miscounted", each.site, each.conversation_id, each.at_ns, what)
        gathering.check_ledgers(each.site, each.conversation_id, ledgers, each.at_ns)
    over = ((each, ledgers) for each, ledgers in rows if each.state in OVER)
    gathering.add(ENDED, ((row.site, row.conversation_id, ledgers, row.at_ns) for row, ledgers in over))


def _transcripts(connection: Connection, request: ListTranscripts) -> Iterator[Transcript]:
    for site, name in request.keys:
        query = sa.select(utterances.c.transcript).where(
            utterances.c.site == site, utterances.c.utterance_id == name, utterances.c.heard
        )
        for (message,) in connection.execute(query):
            yield Transcript(message=bytes(message).decode())
