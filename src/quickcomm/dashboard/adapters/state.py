"""Records inside one transaction of the database; what the projector reads and writes."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from quickcomm.contracts.timing import Latency
from quickcomm.dashboard.adapters.tables import (
    changes,
    closing_record,
    closings,
    conversation_record,
    conversations,
    fts,
    rooms,
    tag,
    task_record,
    tasks,
    utterance_record,
    utterances,
)
from quickcomm.dashboard.model.records import Closing, ConversationRecord, TaskRecord, UtteranceRecord, task_id
from quickcomm.dashboard.ports import State
from quickcomm.kernel.storage import Database

T = TypeVar("T")
TASK = "t"
CLOSING = "c"


class SqlStore:
    """Hands each unit of work the records of one write transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def transact(self, work: Callable[[State], T]) -> T:
        return await self._database.write(lambda connection: work(SqlState(connection)))


class SqlState:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def utterance(self, site: str, utterance_id: str) -> UtteranceRecord | None:
        query = sa.select(utterances).where(utterances.c.site == site, utterances.c.utterance_id == utterance_id)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else utterance_record(row)

    def save_utterance(self, record: UtteranceRecord) -> None:
        heard, found = record.heard, record.found
        spoken_ns = heard.spoken_at_ns if heard else found.speech_ended_ns if found else 0
        row_id = self._upsert(
            utterances,
            ("site", "utterance_id"),
            {
                "site": record.site,
                "utterance_id": record.utterance_id,
                "conversation_id": record.conversation_id,
                "channel": heard.channel if heard else "",
                "spoken_ns": spoken_ns,
                "heard": heard is not None,
                "change": record.change,
                "transcript": msgspec.json.encode(heard) if heard else None,
                "found": msgspec.json.encode(found) if found else None,
            },
        )
        if heard is not None:
            self._index(row_id, record)

    def conversation(self, site: str, conversation_id: str) -> ConversationRecord | None:
        query = sa.select(conversations).where(
            conversations.c.site == site, conversations.c.conversation_id == conversation_id
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else conversation_record(row)

    def save_conversation(self, record: ConversationRecord) -> None:
        values = msgspec.structs.asdict(record)
        values["ledgers"] = msgspec.json.encode(record.ledgers)
        self._upsert(conversations, ("site", "conversation_id"), values)

    def task(self, site: str, task_id: str) -> TaskRecord | None:
        found = self._tasks(tasks.c.site == site, tasks.c.task_id == task_id)
        return found[0] if found else None

    def tasks_of(self, site: str, utterance_id: str) -> list[TaskRecord]:
        return self._tasks(tasks.c.site == site, tasks.c.utterance_id == utterance_id)

    def tasks_acknowledged(self, site: str, channel: str) -> list[TaskRecord]:
        return self._tasks(tasks.c.site == site, tasks.c.channel == channel, tasks.c.status == "acknowledged")

    def tasks_in_rooms(self, site: str, rooms: Iterable[str], since_ns: int) -> list[TaskRecord]:
        return self._tasks(tasks.c.site == site, tasks.c.task_id.in_(_owners(TASK, site, rooms, since_ns)))

    def save_task(self, record: TaskRecord) -> None:
        values = msgspec.structs.asdict(record)
        values["rooms"] = msgspec.json.encode(record.rooms)
        self._upsert(tasks, ("site", "task_id"), values)
        self._save_rooms(record.site, TASK, record.task_id, record.rooms, record.created_ns)

    def delete_task(self, record: TaskRecord) -> None:
        self._connection.execute(tasks.delete().where(tasks.c.site == record.site, tasks.c.task_id == record.task_id))
        self._save_rooms(record.site, TASK, record.task_id, (), 0)

    def closings_of(self, site: str, utterance_id: str) -> list[Closing]:
        return self._closings(closings.c.site == site, closings.c.utterance_id == utterance_id)

    def closings_in_rooms(self, site: str, rooms: Iterable[str], since_ns: int) -> list[Closing]:
        owners = _owners(CLOSING, site, rooms, since_ns)
        return self._closings(closings.c.site == site, closings.c.closing_id.in_(owners))

    def save_closing(self, record: Closing) -> None:
        closing_id = task_id(record.utterance_id, record.insight_index)
        values = msgspec.structs.asdict(record)
        values["rooms"] = msgspec.json.encode(record.rooms)
        values["closing_id"] = closing_id
        statement = insert(closings).values(values)
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["site", "closing_id"], set_=dict(statement.excluded))
        )
        self._save_rooms(record.site, CLOSING, closing_id, record.rooms, record.at_ns)

    def delete_closing(self, record: Closing) -> None:
        closing_id = task_id(record.utterance_id, record.insight_index)
        self._connection.execute(
            closings.delete().where(closings.c.site == record.site, closings.c.closing_id == closing_id)
        )
        self._save_rooms(record.site, CLOSING, closing_id, (), 0)

    def next_change(self, site: str) -> int:
        statement = insert(changes).values(site=site, change=1)
        upsert = statement.on_conflict_do_update(index_elements=["site"], set_={"change": changes.c.change + 1})
        return int(self._connection.execute(upsert.returning(changes.c.change)).scalar_one())

    def save_receipt(self, site: str, utterance_id: str, receipt: Latency) -> None:
        self._connection.execute(
            utterances.update()
            .where(utterances.c.site == site, utterances.c.utterance_id == utterance_id)
            .values(receipt=msgspec.json.encode(receipt))
        )

    def save_painted(self, site: str, utterance_id: str, painted_ms: float) -> None:
        """The first report of a card stands."""
        self._connection.execute(
            utterances.update()
            .where(
                utterances.c.site == site, utterances.c.utterance_id == utterance_id, utterances.c.painted_ms.is_(None)
            )
            .values(painted_ms=painted_ms)
        )

    def purge(self, before_ns: int, limit: int) -> int:
        old = (
            sa.select(conversations.c.site, conversations.c.conversation_id)
            .where(conversations.c.ended_ns < before_ns)
            .limit(1)
        )
        conversation = self._connection.execute(old).one_or_none()
        if conversation is None:
            return self._purge_orphans(before_ns, limit)
        site, conversation_id = conversation
        mine = sa.and_(utterances.c.site == site, utterances.c.conversation_id == conversation_id)
        purged = self._purge_utterances(mine, limit)
        if purged < limit:
            self._connection.execute(
                conversations.delete().where(
                    conversations.c.site == site, conversations.c.conversation_id == conversation_id
                )
            )
            purged += 1
        return purged

    def _purge_orphans(self, before_ns: int, limit: int) -> int:
        """Insights whose transcript never came, and conversations of which nothing but utterances was heard."""
        purged = self._purge_utterances(
            sa.and_(utterances.c.heard.is_(False), utterances.c.spoken_ns < before_ns), limit
        )
        stubs = sa.and_(conversations.c.at_ns == 0, conversations.c.last_spoken_ns < before_ns)
        ended = conversations.update().where(stubs, conversations.c.ended_ns.is_(None))
        return purged + self._connection.execute(ended.values(state="expired", ended_ns=0)).rowcount

    def _purge_utterances(self, which: sa.ColumnElement[bool], limit: int) -> int:
        query = sa.select(utterances.c.id, utterances.c.site, utterances.c.utterance_id).where(which).limit(limit)
        rows = self._connection.execute(query).all()
        for row in rows:
            for task in self.tasks_of(row.site, row.utterance_id):
                self.delete_task(task)
            for closing in self.closings_of(row.site, row.utterance_id):
                self.delete_closing(closing)
        ids = [row.id for row in rows]
        self._connection.execute(fts.delete().where(fts.c.rowid.in_(ids)))
        self._connection.execute(utterances.delete().where(utterances.c.id.in_(ids)))
        return len(rows)

    def _index(self, row_id: int, record: UtteranceRecord) -> None:
        heard, found = record.heard, record.found
        if heard is None:
            return
        insights = found.insights if found else ()
        tags = [tag("s", record.site), tag("c", heard.channel), tag("k", heard.conversation_id)]
        tags += [tag("d", department) for department in sorted({insight.department for insight in insights})]
        self._connection.execute(fts.delete().where(fts.c.rowid == row_id))
        self._connection.execute(
            fts.insert().values(
                rowid=row_id,
                text=heard.text,
                summary=" ".join(insight.summary for insight in insights),
                rooms=" ".join(room for insight in insights for room in insight.rooms),
                tags=" ".join(tags),
            )
        )

    def _upsert(self, table: sa.Table, key: tuple[str, ...], values: dict[str, Any]) -> int:
        statement = insert(table).values(values)
        changed = {name: statement.excluded[name] for name in values if name not in key}
        upsert = statement.on_conflict_do_update(index_elements=list(key), set_=changed)
        return int(self._connection.execute(upsert.returning(table.c.id)).scalar_one())

    def _save_rooms(self, site: str, kind: str, owner: str, names: tuple[str, ...], at_ns: int) -> None:
        self._connection.execute(
            rooms.delete().where(rooms.c.site == site, rooms.c.kind == kind, rooms.c.owner == owner)
        )
        if names:
            self._connection.execute(
                rooms.insert(),
                [
                    {"site": site, "kind": kind, "room": room, "at_ns": at_ns, "owner": owner}
                    for room in dict.fromkeys(names)
                ],
            )

    def _tasks(self, *conditions: sa.ColumnElement[bool]) -> list[TaskRecord]:
        query = sa.select(tasks).where(*conditions).order_by(tasks.c.created_ns, tasks.c.insight_index)
        return [task_record(row) for row in self._connection.execute(query)]

    def _closings(self, *conditions: sa.ColumnElement[bool]) -> list[Closing]:
        query = sa.select(closings).where(*conditions).order_by(closings.c.insight_index)
        return [closing_record(row) for row in self._connection.execute(query)]


def _owners(kind: str, site: str, names: Iterable[str], since_ns: int) -> sa.Select[tuple[Any]]:
    return sa.select(rooms.c.owner).where(
        rooms.c.site == site, rooms.c.kind == kind, rooms.c.room.in_(list(names)), rooms.c.at_ns >= since_ns
    )
