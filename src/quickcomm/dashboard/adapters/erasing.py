"""Erases what the dashboard has of utterances: cards, tasks, closings, decisions, the full text, summaries."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.decisions import ArchiveDecision, archive_subject
from quickcomm.contracts.erasing import Erased, EraseDashboard, FindDashboard, Scope, Wanted
from quickcomm.dashboard.adapters.changed import renew_side
from quickcomm.dashboard.adapters.dialects import fts
from quickcomm.dashboard.adapters.history import NO_SUMMARY
from quickcomm.dashboard.adapters.state import CLOSING, TASK, SqlState
from quickcomm.dashboard.adapters.tables import (
    closings,
    conversations,
    decided_in,
    decisions,
    erased,
    rooms,
    tasks,
    utterances,
)
from quickcomm.dashboard.model.decisions import without_erased
from quickcomm.kernel.erasing.messages import erase_messages
from quickcomm.kernel.erasing.reading import has_name, mentions
from quickcomm.kernel.erasing.tombstones import WHOLE, bury, is_of
from quickcomm.kernel.erasing.traces import remove_traces
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.storage import Database

TOGETHER: Final = 500
TABLES: Final = ("dashboard_utterances", "dashboard_tasks", "dashboard_closings", "dashboard_decisions")
TABLES_WITH_WORDS: Final = (*TABLES, "dashboard_fts", "dashboard_conversations")


def erasing_answers(database: Database, on_erased: Callable[[str], None] = lambda _site: None) -> list[Answer]:
    """Return what is answered about erasure. `on_erased`: called with the site of which something is gone."""

    async def find(request: FindDashboard) -> Scope:
        return await database.read(lambda connection: _find(connection, request))

    async def erase(request: EraseDashboard) -> list[Erased]:
        counts = await database.write(lambda connection: erase_in(connection, request))
        on_erased(request.scope.site)
        gone = await remove_traces(database, TABLES_WITH_WORDS) if request.traces else ""
        return [
            Erased(store=f"dashboard, {database.name}", what=what, count=count, gone=gone)
            for what, count in counts.items()
        ]

    return [(FindDashboard, find), (EraseDashboard, erase)]


def erase_in(connection: Connection, request: EraseDashboard) -> dict[str, int]:
    """Delete what a scope stands for within a transaction, with tombstones; return how much of what it was."""
    scope = request.scope
    is_new = bury(connection, erased, request)
    for table, kind, owner in ((tasks, TASK, tasks.c.task_id), (closings, CLOSING, closings.c.closing_id)):
        owners = sa.select(owner).where(is_of(table, scope))
        connection.execute(
            rooms.delete().where(rooms.c.site == scope.site, rooms.c.kind == kind, rooms.c.owner.in_(owners))
        )
    numbers = sa.select(utterances.c.id).where(is_of(utterances, scope))
    connection.execute(fts.delete().where(fts.c.rowid.in_(numbers)))
    counts = {
        what: connection.execute(table.delete().where(is_of(table, scope))).rowcount
        for what, table in (
            ("tasks", tasks),
            ("closings", closings),
            ("decisions", decisions),
            ("cards", utterances),
        )
    }
    counts["decisions"] += _without_assignees(connection, scope)
    counts["summaries"] = _without_summaries(connection, scope, None if is_new else request.at_ns)
    renew_side(connection)
    return counts | erase_messages(connection, scope)


def still_there(connection: Connection) -> sa.ColumnElement[bool] | None:
    """Return the condition for utterances that were erased and are there; None where nothing ever was erased."""
    if connection.execute(sa.select(erased.c.site).limit(1)).first() is None:
        return None
    return sa.exists().where(
        erased.c.site == utterances.c.site,
        erased.c.conversation_id == utterances.c.conversation_id,
        erased.c.utterance_id.in_((WHOLE, utterances.c.utterance_id)),
    )


def _without_assignees(connection: Connection, scope: Scope) -> int:
    """Have the closings of conversations forget whose the erased tasks were; return how many of them knew it."""
    changed = 0
    for conversation in scope.touched():
        here = sa.and_(decisions.c.site == scope.site, decisions.c.subject == archive_subject(conversation))
        payload = connection.execute(sa.select(decisions.c.payload).where(here)).scalar()
        if payload is None:
            continue
        before = decided_in(payload)
        after = without_erased(before, lambda utterance_id: scope.has(scope.site, utterance_id))
        if after is not before:
            connection.execute(decisions.update().where(here).values(payload=msgspec.json.encode(after)))
            changed += 1
    return changed


def _without_summaries(connection: Connection, scope: Scope, until_ns: int | None) -> int:
    """Count the utterances of each conversation anew, and forget its summary; return how many had one.

    `until_ns`: summaries that were made later stay; None: none does.
    """
    row, state, found = conversations.c, SqlState(connection), 0
    heard = (
        sa.select(sa.func.count())
        .where(utterances.c.site == row.site, utterances.c.conversation_id == row.conversation_id, utterances.c.heard)
        .scalar_subquery()
    )
    for name in scope.touched():
        here = sa.and_(row.site == scope.site, row.conversation_id == name)
        if until_ns is not None:
            here = sa.and_(here, row.summary_ns.between(1, until_ns))
        summary = connection.execute(sa.select(row.summary).where(here)).scalar()
        if summary is not None:
            found += summary != ""
            change = state.next_change(scope.site)
            connection.execute(conversations.update().where(here).values(utterances=heard, change=change, **NO_SUMMARY))
    return found


def _find(connection: Connection, request: FindDashboard) -> Scope:
    """Return the utterances that are meant, each with all copies of the same transmission."""
    wanted = request.wanted
    found = {*request.utterances, *_meant(connection, wanted)}
    for ids in _parts(found):
        first = sa.select(utterances.c.copy_of).where(_are(wanted, utterances.c.utterance_id, ids))
        found.update(each for each in connection.execute(first).scalars() if each is not None)
    for ids in _parts(found):
        found.update(
            connection.execute(
                sa.select(utterances.c.utterance_id).where(_are(wanted, utterances.c.copy_of, ids))
            ).scalars()
        )
    whole = (wanted.conversation,) if wanted.conversation else ()
    return Scope(site=wanted.site, conversations=whole).joined(Scope(site=wanted.site, utterances=tuple(found)))


def _meant(connection: Connection, wanted: Wanted) -> Iterator[str]:
    row = utterances.c
    if wanted.conversation:
        scope = Scope(site=wanted.site, conversations=(wanted.conversation,))
        yield from connection.execute(sa.select(row.utterance_id).where(is_of(utterances, scope))).scalars()
    elif wanted.name:
        yield from _named(connection, wanted)
    else:
        spoken = row.spoken_ns.between(wanted.since_ns, wanted.until_ns - 1)
        yield from connection.execute(sa.select(row.utterance_id).where(row.site == wanted.site, spoken)).scalars()


def _named(connection: Connection, wanted: Wanted) -> Iterator[str]:
    said = sa.select(utterances.c.utterance_id, utterances.c.transcript, utterances.c.found)
    for name, *payloads in _rows(connection, said.where(utterances.c.site == wanted.site)):
        if any(payload and has_name(payload, wanted.name) for payload in payloads):
            yield name
    given = sa.select(tasks.c.utterance_id, tasks.c.assignee, tasks.c.completed_by, tasks.c.summary)
    for name, *texts in _rows(connection, given.where(tasks.c.site == wanted.site)):
        if any(mentions(text, wanted.name) for text in texts):
            yield name
    decided = sa.select(decisions.c.utterance_id, decisions.c.payload).where(decisions.c.site == wanted.site)
    for name, payload in _rows(connection, decided):
        if not has_name(payload, wanted.name):
            continue
        what = decided_in(payload).what
        if isinstance(what, ArchiveDecision):  # it is about no utterance, and names whose tasks were closed with it
            yield from (task.utterance_id for task in what.tasks if mentions(task.assignee, wanted.name))
        else:
            yield name


def _rows(connection: Connection, query: sa.Select[Any]) -> Iterator[Any]:
    return iter(connection.execute(query.execution_options(yield_per=TOGETHER)))


def _are(wanted: Wanted, column: sa.ColumnElement[str], ids: Iterable[str]) -> sa.ColumnElement[bool]:
    return sa.and_(utterances.c.site == wanted.site, column.in_(ids))


def _parts(names: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(names)
    return (ordered[start : start + TOGETHER] for start in range(0, len(ordered), TOGETHER))
