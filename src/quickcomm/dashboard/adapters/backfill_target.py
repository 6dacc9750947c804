"""Writes pages of an earlier database into the dashboard's own, each with its position in one transaction.

A row that is not there yet is stored as it is and read back. One that is, because its messages came meanwhile, is
brought together with it. What comes over gets negative ids, so that lists by arrival have it behind all that was heard
here, and records of one moment stay in their order.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.backfill import BackfillPage, decoded, digest, written
from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.dashboard.adapters.backfill_tables import PARTS, Values, as_row
from quickcomm.dashboard.adapters.dialects import dialect_of
from quickcomm.dashboard.adapters.state import CLOSING, TASK, SqlState, words_of
from quickcomm.dashboard.adapters.tables import (
    backfill,
    changes,
    closing_record,
    closings,
    conversation_record,
    conversations,
    rooms,
    task_record,
    tasks,
    utterance_record,
    utterances,
)
from quickcomm.dashboard.model.backfill import closing_with, conversation_with, task_with, utterance_with
from quickcomm.dashboard.model.matching import reopened_by_voice
from quickcomm.dashboard.model.records import Closing
from quickcomm.dashboard.service.backfill import BackfillError, Progress
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.storage import Database

BEHIND: Final = 2**53
"""Taken from the id of what comes over."""
ALL: Final = "all"
DONE: Final = "done"
RUNNING: Final = "running"
SETTLE: Final = 50
_replace = msgspec.structs.replace
_rooms = msgspec.json.Decoder(tuple[str, ...])


class SqlBackfillTarget:
    """Implements `Target`."""

    def __init__(self, database: Database, closing_confidence: float = CLOSING_CONFIDENCE) -> None:
        self._database = database
        self._closing_confidence = closing_confidence

    async def finished(self) -> bool:
        return (await self.progress(ALL)).done

    async def progress(self, table: str) -> Progress:
        return await self._database.read(lambda connection: _progress(connection, table))

    async def apply(self, page: BackfillPage, before: Progress) -> Progress:
        part = PARTS[page.table]
        if page.columns != part.columns:
            raise BackfillError(
                f"The earlier database's {page.table} have other columns. Both sides must be of one version."
            )
        rows = decoded(page.rows)
        after = Progress(
            after=page.after,
            rows=before.rows + len(rows),
            digest=digest(rows, before.digest),
            done=not page.more,
        )

        def run(connection: Connection) -> Progress:
            present = _progress(connection, page.table)
            if present != before:
                return present  # another process has been quicker
            _Arrival(connection, self._closing_confidence).take(
                page.table, [dict(zip(part.columns, row, strict=True)) for row in rows]
            )
            _save_progress(connection, page.table, after)
            return after

        return await self._database.write(run)

    async def rewind(self, table: str) -> None:
        await self._database.write(lambda connection: _save_progress(connection, table, Progress()))

    async def settle(self) -> None:
        born_here = (
            sa.select(closings)
            .join(
                utterances,
                sa.and_(utterances.c.site == closings.c.site, utterances.c.utterance_id == closings.c.utterance_id),
            )
            .where(utterances.c.id > 0)
        )
        found = await self._database.read(
            lambda connection: [closing_record(row) for row in connection.execute(born_here)]
        )
        waiting = sorted((closing for closing in found if closing.rooms), key=lambda closing: closing.order)
        for start in range(0, len(waiting), SETTLE):
            batch = waiting[start : start + SETTLE]
            await self._database.write(lambda connection, batch=batch: _settle(connection, batch))  # type: ignore[misc]

    async def finish(self) -> None:
        await self._database.write(lambda connection: _save_progress(connection, ALL, Progress(done=True)))


def _settle(connection: Connection, batch: Sequence[Closing]) -> None:
    projector = Projector(SqlState(connection))
    for closing in batch:
        projector.match_again(closing)
    projector.finish()


def _progress(connection: Connection, table: str) -> Progress:
    row = connection.execute(sa.select(backfill).where(backfill.c.table_name == table)).one_or_none()
    if row is None:
        return Progress()
    return Progress(after=row.after, rows=row.row_count, digest=int(row.digest, 16), done=row.state == DONE)


def _save_progress(connection: Connection, table: str, progress: Progress) -> None:
    values = {
        "table_name": table,
        "after": progress.after,
        "row_count": progress.rows,
        "digest": written(progress.digest),
        "state": DONE if progress.done else RUNNING,
    }
    connection.execute(dialect_of(connection).save(backfill, ("table_name",)), values)


class _Arrival:
    """One page in one transaction."""

    def __init__(self, connection: Connection, closing_confidence: float) -> None:
        self._connection = connection
        self._state = SqlState(connection)
        self._projector = Projector(self._state, closing_confidence)

    def take(self, table: str, arrived: list[Values]) -> None:
        {
            "changes": self._changes,
            "tasks": self._tasks,
            "closings": self._closings,
            "utterances": self._utterances,
            "conversations": self._conversations,
        }[table](arrived)
        self._projector.finish()

    def _changes(self, arrived: list[Values]) -> None:
        """Count on from there, so that no page that looked at the earlier one misses anything.

        What changed here meanwhile moves up behind it. This is done once: the position of the table says so.
        """
        for row in arrived:
            for table in (utterances, conversations):
                moved = table.update().where(table.c.site == row["site"]).values(change=table.c.change + row["change"])
                self._connection.execute(moved)
            count = dialect_of(self._connection).insert(changes).values(row)
            more = {"change": changes.c.change + row["change"]}
            self._connection.execute(count.on_conflict_do_update(index_elements=["site"], set_=more))

    def _tasks(self, arrived: list[Values]) -> None:
        fresh, known = self._parted(tasks, "task_id", arrived)
        self._insert(tasks, "task_id", [_behind(row) for row in fresh])
        self._insert_rooms(TASK, "task_id", "created_ns", fresh)
        self._settle_with_utterances(fresh)
        for row in known:
            own = self._state.task(row["site"], row["task_id"])
            if own is not None:
                task = task_with(own, task_record(as_row(row)))
                if task != own:
                    self._projector.adopt_task(task)

    def _closings(self, arrived: list[Values]) -> None:
        fresh, known = self._parted(closings, "closing_id", arrived)
        for row in fresh:
            if self._reopened_since(closing_record(as_row(row))):
                row["pinned"] = True
        self._insert(closings, "closing_id", fresh)
        self._insert_rooms(CLOSING, "closing_id", "at_ns", fresh)
        self._settle_with_utterances(fresh)
        for row in known:
            earlier = closing_record(as_row(row))
            for own in self._state.closings_of(earlier.site, earlier.utterance_id):
                if own.insight_index == earlier.insight_index:
                    self._bring_together(own, earlier)

    def _settle_with_utterances(self, fresh: list[Values]) -> None:
        """Those whose utterance is here already: a later revision of it may not want them."""
        if not fresh:
            return
        for row in self._present(utterances, "utterance_id", fresh, [utterances]):
            record = utterance_record(row)
            if record.complete:
                self._projector.adopt(record)

    def _bring_together(self, own: Closing, earlier: Closing) -> None:
        if own.task_id is not None and earlier.task_id not in {None, own.task_id}:
            task = self._state.task(earlier.site, earlier.task_id or "")
            if task is not None and task.completed_by_utterance == earlier.utterance_id:
                self._projector.adopt_task(reopened_by_voice(task))  # `settle` decides which of the two it was
        closing = closing_with(own, earlier)
        if closing != own:
            self._state.save_closing(_replace(closing, pinned=closing.pinned or self._reopened_since(closing)))

    def _reopened_since(self, closing: Closing) -> bool:
        """A person has reopened here what it had closed there: it is spent."""
        task = self._state.task(closing.site, closing.task_id) if closing.task_id else None
        return task is not None and task.completed_by_utterance != closing.utterance_id

    def _utterances(self, arrived: list[Values]) -> None:
        fresh, known = self._parted(utterances, "utterance_id", arrived)
        fresh = [_behind(row) for row in fresh]
        self._insert(utterances, "utterance_id", fresh)
        words = []
        for row in fresh:
            record = utterance_record(as_row(row))
            if record.heard is not None:
                words.append(words_of(row["id"], record, record.heard))
        dialect_of(self._connection).index(self._connection, words, new=True)
        for row in known:
            earlier = utterance_record(as_row(row))
            own = self._state.utterance(earlier.site, earlier.utterance_id)
            if own is None:
                continue
            record = utterance_with(own, earlier)
            if record is not own:
                self._projector.adopt(record)
            if own.receipt.total is None and earlier.receipt.total is not None:
                self._state.save_receipt(earlier.site, earlier.utterance_id, earlier.receipt)
            if row["painted_ms"] is not None:
                self._state.save_painted(earlier.site, earlier.utterance_id, row["painted_ms"])

    def _conversations(self, arrived: list[Values]) -> None:
        fresh, known = self._parted(conversations, "conversation_id", arrived)
        self._insert(conversations, "conversation_id", [_behind(row) for row in fresh])
        for row in known:
            earlier = conversation_record(as_row(row))
            own = self._state.conversation(earlier.site, earlier.conversation_id)
            if own is None:
                continue
            heard = sa.select(sa.func.count()).where(
                utterances.c.site == own.site, utterances.c.conversation_id == own.conversation_id, utterances.c.heard
            )
            merged = conversation_with(own, earlier, self._connection.execute(heard).scalar_one())
            if merged != own:
                self._state.save_conversation(_replace(merged, change=self._state.next_change(own.site)))

    def _parted(self, table: sa.Table, key: str, arrived: list[Values]) -> tuple[list[Values], list[Values]]:
        """Rows that are not there yet, and those that are."""
        there = {
            (row.site, getattr(row, key)) for row in self._present(table, key, arrived, [table.c.site, table.c[key]])
        }
        fresh = [row for row in arrived if (row["site"], row[key]) not in there]
        return fresh, [row for row in arrived if (row["site"], row[key]) in there]

    def _present(
        self, table: sa.Table, key: str, wanted: list[Values], columns: Sequence[Any]
    ) -> Iterator[sa.Row[Any]]:
        for site, group in groupby(sorted(wanted, key=_site), key=_site):
            query = sa.select(*columns).where(table.c.site == site, table.c[key].in_([row[key] for row in group]))
            yield from self._connection.execute(query)

    def _insert(self, table: sa.Table, key: str, fresh: list[Values]) -> None:
        """Store them, and read them back. Raises `BackfillError` where that is not the same."""
        if not fresh:
            return
        self._connection.execute(table.insert(), fresh)
        names = list(fresh[0])
        stored = self._present(table, key, fresh, [table.c[name] for name in names])
        if digest(tuple(row) for row in stored) != digest(tuple(row[name] for name in names) for row in fresh):
            raise BackfillError(f"The database did not give back {table.name} as they were stored.")

    def _insert_rooms(self, kind: str, key: str, time: str, fresh: list[Values]) -> None:
        named = [
            {"site": row["site"], "kind": kind, "room": room, "at_ns": row[time], "owner": row[key]}
            for row in fresh
            for room in dict.fromkeys(_rooms.decode(row["rooms"]))
        ]
        if named:
            self._connection.execute(rooms.insert(), named)


def _site(row: Values) -> str:
    return str(row["site"])


def _behind(row: Values) -> Values:
    return row | {"id": row["id"] - BEHIND}
