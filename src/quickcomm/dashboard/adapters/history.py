"""The dashboard's tables as they are copied, and what becomes of their rows in a dashboard that is in use.

A row that is not there yet is stored as it is. One that is, because its messages came meanwhile, is merged with it.
Copied rows get negative ids, so that lists by arrival have them behind everything that was heard here, and records of
one moment stay in their order.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData

from quickcomm.contracts.decisions import (
    ArchiveDecision,
    ClosingDecision,
    CopyDecision,
    Decision,
    DispatchDecision,
    TaskDecision,
    TextDecision,
)
from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.dashboard.adapters.changed import renew_side
from quickcomm.dashboard.adapters.dialects import dialect_of, fts
from quickcomm.dashboard.adapters.state import CLOSING, TASK, SqlState, words_of
from quickcomm.dashboard.adapters.tables import (
    Row,
    changes,
    closing_record,
    closings,
    conversation_record,
    conversations,
    decided_in,
    decisions,
    rooms,
    task_record,
    tasks,
    utterance_record,
    utterances,
)
from quickcomm.dashboard.model.decisions import closing_decision, corrected, without_erased
from quickcomm.dashboard.model.history import closing_with, conversation_with, task_with, utterance_with
from quickcomm.dashboard.model.matching import reopened_by_voice
from quickcomm.dashboard.model.records import Closing
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.copier.copier import CopiedTable, Values
from quickcomm.kernel.copier.sql import insert_new, is_stale, marks_table, matching, note_begun
from quickcomm.kernel.storage import Database

TABLES: Final = (
    CopiedTable("changes", changes, ("site",), repeatable=False),
    CopiedTable("decisions", decisions, ("site", "subject")),
    CopiedTable("tasks", tasks, ("id",), newest_first=True),
    CopiedTable("closings", closings, ("site", "closing_id")),
    CopiedTable("utterances", utterances, ("id",), newest_first=True),
    CopiedTable("conversations", conversations, ("id",), newest_first=True),
)
"""In their order no record is matched against half of what it refers to."""
MARKS: Final = marks_table("dashboard_backfill")
NUMBERED: Final = {"tasks": tasks, "utterances": utterances, "conversations": conversations}
BEHIND: Final = 2**53
"""Subtracted from the ids of copied rows."""
SETTLE: Final = 50
NO_SUMMARY: Final[Values] = {"summary": "", "summary_source": "local", "summary_revision": 0, "summary_ns": 0}
"""Of a conversation of which something was erased."""
_replace = msgspec.structs.replace
_rooms = msgspec.json.Decoder(tuple[str, ...])


def write(connection: Connection, table: str, rows: list[Values], closing_confidence: float) -> None:
    """Write a page within a transaction. Raises `CopyError` where new rows are not read back as they were."""
    behind = [row | {"id": row["id"] - BEHIND} if "id" in row else row for row in rows]
    _Page(connection, closing_confidence).write(table, behind)


def write_below(connection: Connection, table: str, rows: list[Values]) -> None:
    """`write`, where rows of any number of other sites may be: new ids are below all that are here, in their order."""
    if "id" in rows[0]:
        column = NUMBERED[table].c.id
        lowest = min(connection.execute(sa.select(sa.func.min(column))).scalar() or 0, 0)
        rows = [row | {"id": lowest - place} for place, row in enumerate(rows, start=1)]
    _Page(connection, CLOSING_CONFIDENCE).write(table, rows)


def clear(connection: Connection) -> None:
    """Delete all rows of the dashboard, and have clients' cursors end."""
    for table in (changes, decisions, tasks, closings, utterances, conversations, rooms, fts):
        connection.execute(table.delete())
    renew_side(connection)


def begin_anew(connection: Connection) -> None:
    """Empty the tables where they are stale, once: what comes by the streams from now on stays."""
    if is_stale(connection, MARKS):
        clear(connection)
        note_begun(connection, MARKS)


async def settle(database: Database, match_again: Callable[[Sequence[Closing]], Awaitable[None]]) -> None:
    """Match closings that were said meanwhile with the tasks from before; clients that poll begin again."""
    said_here = (
        sa.select(closings)
        .join(
            utterances,
            sa.and_(utterances.c.site == closings.c.site, utterances.c.utterance_id == closings.c.utterance_id),
        )
        .where(utterances.c.id > 0)
    )
    found = await database.read(lambda connection: [closing_record(row) for row in connection.execute(said_here)])
    waiting = sorted((closing for closing in found if closing.rooms), key=lambda closing: closing.order)
    for start in range(0, len(waiting), SETTLE):
        await match_again(waiting[start : start + SETTLE])
    await database.write(renew_side)


class _Page:
    """One page in one transaction."""

    def __init__(self, connection: Connection, closing_confidence: float) -> None:
        self._connection = connection
        self._state = SqlState(connection)
        self._projector = Projector(self._state, closing_confidence)

    def write(self, table: str, rows: list[Values]) -> None:
        writers: Mapping[str, Callable[[list[Values]], None]] = {
            "changes": self._changes,
            "decisions": self._decisions,
            "tasks": self._tasks,
            "closings": self._closings,
            "utterances": self._utterances,
            "conversations": self._conversations,
        }
        rows = [kept for row in rows if (kept := self._without_erased(row)) is not None]
        writers[table](rows)
        self._projector.finish()

    def _without_erased(self, row: Values) -> Values | None:
        """Return a row without what was erased here after it was read there; None where nothing of it stays."""
        erased = self._state.erased
        if "subject" in row and not row["utterance_id"]:  # about a whole conversation
            found = without_erased(decided_in(row["payload"]), lambda each: erased.hides(row["site"], each))
            return row | {"payload": msgspec.json.encode(found)}
        if "utterance_id" in row:
            return None if erased.hides(row["site"], row["utterance_id"]) else row
        if "summary_ns" in row and erased.hides_summary(row["site"], row["conversation_id"], row["summary_ns"]):
            return row | NO_SUMMARY
        return row

    def _changes(self, rows: list[Values]) -> None:
        """Count on from there, so that no page that looked at the source misses anything.

        What changed here meanwhile moves up behind it.
        """
        for row in rows:
            for table in (utterances, conversations):
                moved = table.update().where(table.c.site == row["site"]).values(change=table.c.change + row["change"])
                self._connection.execute(moved)
            count = dialect_of(self._connection).insert(changes).values(row)
            more = {"change": changes.c.change + row["change"]}
            self._connection.execute(count.on_conflict_do_update(index_elements=["site"], set_=more))

    def _decisions(self, rows: list[Values]) -> None:
        for row in rows:
            self._projector.decision(decided_in(row["payload"]))

    def _tasks(self, rows: list[Values]) -> None:
        fresh, known = insert_new(self._connection, tasks, ("site", "task_id"), rows)
        self._insert_rooms(TASK, "task_id", "created_ns", fresh)
        self._settle_with_utterances(fresh)
        for earlier in map(task_record, _as_rows(known)):
            own = self._state.task(earlier.site, earlier.task_id)
            if own is not None and (task := task_with(own, earlier)) != own:
                self._projector.save_task(task)

    def _closings(self, rows: list[Values]) -> None:
        for row, closing in zip(rows, map(closing_record, _as_rows(rows)), strict=True):
            row["pinned"] = row["pinned"] or self._is_reopened(closing)
        fresh, known = insert_new(self._connection, closings, ("site", "closing_id"), rows)
        self._insert_rooms(CLOSING, "closing_id", "at_ns", fresh)
        self._settle_with_utterances(fresh)
        for earlier in map(closing_record, _as_rows(known)):
            for own in self._state.closings_of(earlier.site, earlier.utterance_id):
                if own.insight_index == earlier.insight_index:
                    self._merge_closing(own, earlier)

    def _merge_closing(self, own: Closing, earlier: Closing) -> None:
        if own.task_id is not None and earlier.task_id not in {None, own.task_id}:
            task = self._state.task(earlier.site, earlier.task_id or "")
            if task is not None and task.completed_by_utterance == earlier.utterance_id:
                self._projector.save_task(reopened_by_voice(task))  # `settle` decides which of the two it was
        if (closing := closing_with(own, earlier)) != own:
            self._state.save_closing(closing)

    def _is_reopened(self, closing: Closing) -> bool:
        """Return True if a person has reopened here what it had closed there: it is spent."""
        task = self._state.task(closing.site, closing.task_id) if closing.task_id else None
        return task is not None and task.completed_by_utterance != closing.utterance_id

    def _settle_with_utterances(self, fresh: list[Values]) -> None:
        """Adopt utterances that are here already: a later revision may not want these tasks and closings."""
        for row in matching(self._connection, utterances, ("site", "utterance_id"), fresh):
            record = utterance_record(row)
            if record.complete:
                self._projector.adopt(record)

    def _settle_with_decisions(self, fresh: list[Values]) -> None:
        """Bring utterances in line with decisions that came while their rows and those of their tasks were copied."""
        place = ("site", "utterance_id")
        newer = {
            (decision.site, decision.what.utterance_id)
            for row in matching(self._connection, decisions, place, fresh)
            if self._is_newer(decision := decided_in(row.payload))
        }
        for row in _as_rows(fresh):
            if (row.site, row.utterance_id) in newer:
                self._projector.adopt(utterance_record(row))

    def _is_newer(self, decision: Decision) -> bool:
        """Return True if the stored records are not yet as decided."""
        what = decision.what
        match what:
            case TaskDecision():
                task = self._state.task(decision.site, what.task_id)
                return task is None or task.version < decision.version
            case ClosingDecision():
                known = self._state.closings_of(decision.site, what.utterance_id)
                return any(closing_decision(each) != what for each in known if each.insight_index == what.insight_index)
            case CopyDecision():
                record = self._state.utterance(decision.site, what.utterance_id)
                return record is not None and record.copy_of != what.copy_of
            case TextDecision():
                record = self._state.utterance(decision.site, what.utterance_id)
                return record is not None and record.corrected != corrected(
                    self._state.decisions_of(decision.site, what.utterance_id)
                )
            case ArchiveDecision() | DispatchDecision():
                return False  # no record of an utterance follows from it

    def _utterances(self, rows: list[Values]) -> None:
        fresh, known = insert_new(self._connection, utterances, ("site", "utterance_id"), rows)
        words = [
            words_of(row.id, record, record.heard)
            for row in _as_rows(fresh)
            if (record := utterance_record(row)).heard is not None
        ]
        dialect_of(self._connection).index(self._connection, words, new=True)
        self._settle_with_decisions(fresh)
        for row in _as_rows(known):
            earlier = utterance_record(row)
            own = self._state.utterance(earlier.site, earlier.utterance_id)
            if own is None:
                continue
            record = utterance_with(own, earlier)
            if record is not own:
                self._projector.adopt(record)
            if own.receipt.total is None and earlier.receipt.total is not None:
                self._state.save_receipt(earlier.site, earlier.utterance_id, earlier.receipt)
            if row.painted_ms is not None:
                self._state.save_painted(earlier.site, earlier.utterance_id, row.painted_ms)

    def _conversations(self, rows: list[Values]) -> None:
        _, known = insert_new(self._connection, conversations, ("site", "conversation_id"), rows)
        for earlier in map(conversation_record, _as_rows(known)):
            own = self._state.conversation(earlier.site, earlier.conversation_id)
            if own is None:
                continue
            heard = sa.select(sa.func.count()).where(
                utterances.c.site == own.site, utterances.c.conversation_id == own.conversation_id, utterances.c.heard
            )
            merged = conversation_with(own, earlier, self._connection.execute(heard).scalar_one())
            if merged != own:
                self._state.save_conversation(_replace(merged, change=self._state.next_change(own.site)))

    def _insert_rooms(self, kind: str, key: str, time: str, fresh: list[Values]) -> None:
        named = [
            {"site": row["site"], "kind": kind, "room": room, "at_ns": row[time], "owner": row[key]}
            for row in fresh
            for room in dict.fromkeys(_rooms.decode(row["rooms"]))
        ]
        if named:
            self._connection.execute(rooms.insert(), named)


def _as_rows(values: list[Values]) -> list[Row]:
    """Make rows for the functions that turn rows into records."""
    names = SimpleResultMetaData(list(values[0]) if values else [])
    found: IteratorResult[Any] = IteratorResult(names, iter([tuple(each.values()) for each in values]))
    return list(found)
