"""Records inside one transaction of the database; what the projector reads and writes."""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import cache, lru_cache
from typing import Any, Final, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.decisions import Decision, archive_subject
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.adapters.dialect import Words
from quickcomm.dashboard.adapters.dialects import dialect, fts
from quickcomm.dashboard.adapters.tables import (
    changes,
    closing_record,
    closings,
    conversation_record,
    conversations,
    decided_in,
    decisions,
    erased,
    found_in,
    heard_in,
    rooms,
    tag,
    task_record,
    tasks,
    utterance_record,
    utterances,
)
from quickcomm.dashboard.model.copies import DELAY_NS, Said, said
from quickcomm.dashboard.model.records import Closing, ConversationRecord, TaskRecord, UtteranceRecord, task_id
from quickcomm.dashboard.ports import State
from quickcomm.kernel.erasing.tombstones import Tombstones
from quickcomm.kernel.storage import Database

T = TypeVar("T")
TASK: Final = "t"
CLOSING: Final = "c"
COMPARED: Final = 2048
LONGEST_NS: Final = 60 * 10**9
"""An utterance that began longer before does not last until now."""


def _p(name: str) -> sa.BindParameter[Any]:
    return sa.bindparam(name)


def _in_rooms(kind: str) -> sa.Select[tuple[Any]]:
    return sa.select(rooms.c.owner).where(
        rooms.c.site == _p("site"),
        rooms.c.kind == kind,
        rooms.c.room.in_(sa.bindparam("rooms", expanding=True)),
        rooms.c.at_ns >= _p("since_ns"),
    )


# Built once: to build a statement costs several times what it takes to run it.
_UTTERANCE: Final = sa.select(utterances).where(
    utterances.c.site == _p("site"), utterances.c.utterance_id == _p("utterance_id")
)
_UTTERANCE_ID: Final = sa.select(utterances.c.id).where(
    utterances.c.site == _p("site"), utterances.c.utterance_id == _p("utterance_id")
)
_COPIES: Final = sa.select(utterances).where(
    utterances.c.site == _p("site"), utterances.c.copy_of == _p("utterance_id"), utterances.c.copy_of.is_not(None)
)
_SPAN: Final = utterances.alias("span")
# Which they are, the index of spans knows; only then are rows read.
_BESIDE: Final = sa.select(utterances.c.transcript, utterances.c.found, utterances.c.copy_of).where(
    utterances.c.transcript.is_not(None),
    utterances.c.found.is_not(None),
    utterances.c.id.in_(
        sa.select(_SPAN.c.id).where(
            _SPAN.c.site == _p("site"),
            _SPAN.c.spoken_ns.between(_p("earliest_ns"), _p("latest_ns")),
            sa.or_(
                sa.and_(_SPAN.c.spoken_ns >= _p("inner_since_ns"), _SPAN.c.ended_ns <= _p("outer_until_ns")),
                sa.and_(_SPAN.c.spoken_ns <= _p("outer_since_ns"), _SPAN.c.ended_ns >= _p("inner_until_ns")),
            ),
        )
    ),
)
_CONVERSATION: Final = sa.select(conversations).where(
    conversations.c.site == _p("site"), conversations.c.conversation_id == _p("conversation_id")
)
# Sorted by us: asked for an order, SQLite would rather walk the index that has it than use the one that is selective.
_TASKS: Final = sa.select(tasks).where(tasks.c.site == _p("site"))
_TASK: Final = _TASKS.where(tasks.c.task_id == _p("task_id"))
_TASKS_OF: Final = _TASKS.where(tasks.c.utterance_id == _p("utterance_id"))
_IN_CONVERSATION: Final = sa.and_(
    utterances.c.site == _p("site"), utterances.c.conversation_id == _p("conversation_id")
)
_TASKS_UNFINISHED: Final = _TASKS.where(
    tasks.c.status != "done", tasks.c.utterance_id.in_(sa.select(utterances.c.utterance_id).where(_IN_CONVERSATION))
)
_UNANSWERED: Final = (
    sa.select(utterances.c.id).where(_IN_CONVERSATION, utterances.c.heard, utterances.c.found.is_(None)).limit(1)
)
_TASKS_ACKNOWLEDGED: Final = _TASKS.where(tasks.c.channel == _p("channel"), tasks.c.status == "acknowledged")
# A room has few unfinished tasks and many finished ones: of those only what may have to be opened again is wanted.
_TASKS_IN_ROOMS: Final = _TASKS.where(
    tasks.c.task_id.in_(_in_rooms(TASK)),
    sa.or_(tasks.c.status != "done", tasks.c.completed_ns >= _p("closed_since_ns")),
)
_DELETE_TASK: Final = tasks.delete().where(tasks.c.site == _p("site"), tasks.c.task_id == _p("task_id"))
_CLOSINGS: Final = sa.select(closings).where(closings.c.site == _p("site"))
_CLOSINGS_OF: Final = _CLOSINGS.where(closings.c.utterance_id == _p("utterance_id"))
_CLOSINGS_IN_ROOMS: Final = _CLOSINGS.where(closings.c.closing_id.in_(_in_rooms(CLOSING)))
_DELETE_CLOSING: Final = closings.delete().where(
    closings.c.site == _p("site"), closings.c.closing_id == _p("closing_id")
)
# All tasks of an utterance have its id and a colon before their index; a semicolon is what comes behind a colon.
_CLOSINGS_ON: Final = _CLOSINGS.where(closings.c.task_id > _p("since"), closings.c.task_id < _p("until"))
_TASKS_CLOSED_BY: Final = _TASKS.where(tasks.c.completed_by_utterance == _p("utterance_id"))
_DECISION: Final = sa.select(decisions.c.payload).where(
    decisions.c.site == _p("site"), decisions.c.subject == _p("subject")
)
_DECISIONS_OF: Final = (
    sa.select(decisions.c.payload)
    .where(decisions.c.site == _p("site"), decisions.c.utterance_id == _p("utterance_id"))
    .order_by(decisions.c.subject)
)
_FORGET_DECISIONS: Final = decisions.delete().where(
    decisions.c.site == _p("site"), decisions.c.utterance_id == _p("utterance_id")
)
_FORGET_ARCHIVE: Final = decisions.delete().where(decisions.c.site == _p("site"), decisions.c.subject == _p("subject"))
_DELETE_ROOMS: Final = rooms.delete().where(
    rooms.c.site == _p("site"), rooms.c.kind == _p("kind"), rooms.c.owner == _p("owner")
)
_SAVE_ROOMS: Final = rooms.insert()


@lru_cache(maxsize=COMPARED)
def _compared(transcript: bytes, found: bytes, least: float) -> Said:
    """Return what a stored utterance is compared by. Each is asked for as often as others speak at its time."""
    return said(heard_in(transcript), found_in(found), least)


class Saving:
    """What to save with, in the words of one kind of database."""

    def __init__(self, name: str) -> None:
        self.dialect = dialect(name)
        self.utterance = self.dialect.save(utterances, ("site", "utterance_id"), ("id", "receipt", "painted_ms"))
        self.conversation = self.dialect.save(conversations, ("site", "conversation_id"), ("id",))
        self.task = self.dialect.save(tasks, ("site", "task_id"), ("id",))
        self.closing = self.dialect.save(closings, ("site", "closing_id"))
        self.decision = self.dialect.save(decisions, ("site", "subject"))
        self.next_change = (
            self.dialect.insert(changes)
            .values(site=_p("site"), change=1)
            .on_conflict_do_update(index_elements=["site"], set_={"change": changes.c.change + 1})
            .returning(changes.c.change)
        )


@cache
def saving(name: str) -> Saving:
    """Built once, too."""
    return Saving(name)


class SqlStore:
    """Hands each unit of work the records of one write transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def transact(self, work: Callable[[State], T]) -> T:
        return await self._database.write(lambda connection: work(SqlState(connection)))

    def alone(self) -> AbstractAsyncContextManager[None]:
        return self._database.alone()


def words_of(row: int, record: UtteranceRecord, heard: UtteranceTranscribed) -> Words:
    """What is to be found of it."""
    insights = record.found.insights if record.found else ()
    tags = [tag("s", record.site), tag("c", heard.channel), tag("k", heard.conversation_id)]
    tags += [tag("d", department) for department in sorted({insight.department for insight in insights})]
    return Words(
        row=row,
        text=record.text,
        summary=" ".join(insight.summary for insight in insights),
        rooms=" ".join(room for insight in insights for room in insight.rooms),
        tags=tuple(tags),
    )


class SqlState:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._saving = saving(connection.dialect.name)
        self.erased = Tombstones(connection, erased)

    def utterance(self, site: str, utterance_id: str) -> UtteranceRecord | None:
        row = self._run(_UTTERANCE, site=site, utterance_id=utterance_id).one_or_none()
        return None if row is None else utterance_record(row)

    def save_utterance(self, record: UtteranceRecord) -> None:
        heard, found = record.heard, record.found
        self._run(
            self._saving.utterance,
            site=record.site,
            utterance_id=record.utterance_id,
            conversation_id=record.conversation_id,
            channel=heard.channel if heard else "",
            spoken_ns=heard.spoken_at_ns if heard else found.speech_ended_ns if found else 0,
            ended_ns=heard.speech_ended_ns if heard else 0,
            copy_of=record.copy_of,
            corrected=msgspec.json.encode(record.corrected) if record.corrected else None,
            heard=heard is not None,
            change=record.change,
            transcript=msgspec.json.encode(heard) if heard else None,
            found=msgspec.json.encode(found) if found else None,
        )
        if heard is not None:
            self._index(record, heard)

    def copies_of(self, site: str, utterance_id: str) -> list[UtteranceRecord]:
        return [utterance_record(row) for row in self._run(_COPIES, site=site, utterance_id=utterance_id)]

    def said_beside(self, me: Said, site: str, least: float) -> list[tuple[Said, str | None]]:
        rows = self._run(
            _BESIDE,
            site=site,
            earliest_ns=me.started_ns - LONGEST_NS,
            latest_ns=me.ended_ns,
            inner_since_ns=me.started_ns - DELAY_NS,
            outer_since_ns=me.started_ns + DELAY_NS,
            inner_until_ns=me.ended_ns - DELAY_NS,
            outer_until_ns=me.ended_ns + DELAY_NS,
        )
        return [(_compared(row.transcript, row.found, least), row.copy_of) for row in rows]

    def conversation(self, site: str, conversation_id: str) -> ConversationRecord | None:
        row = self._run(_CONVERSATION, site=site, conversation_id=conversation_id).one_or_none()
        return None if row is None else conversation_record(row)

    def tasks_unfinished(self, site: str, conversation_id: str) -> list[TaskRecord]:
        return self._tasks(_TASKS_UNFINISHED, site=site, conversation_id=conversation_id)

    def is_answered(self, site: str, conversation_id: str) -> bool:
        return self._run(_UNANSWERED, site=site, conversation_id=conversation_id).first() is None

    def save_conversation(self, record: ConversationRecord) -> None:
        values = msgspec.structs.asdict(record)
        values["ledgers"] = msgspec.json.encode(record.ledgers)
        self._run(self._saving.conversation, **values)

    def task(self, site: str, task_id: str) -> TaskRecord | None:
        found = self._tasks(_TASK, site=site, task_id=task_id)
        return found[0] if found else None

    def tasks_of(self, site: str, utterance_id: str) -> list[TaskRecord]:
        return self._tasks(_TASKS_OF, site=site, utterance_id=utterance_id)

    def tasks_acknowledged(self, site: str, channel: str) -> list[TaskRecord]:
        return self._tasks(_TASKS_ACKNOWLEDGED, site=site, channel=channel)

    def tasks_in_rooms(self, site: str, rooms: Iterable[str], since_ns: int, closed_since_ns: int) -> list[TaskRecord]:
        return self._tasks(
            _TASKS_IN_ROOMS, site=site, rooms=list(rooms), since_ns=since_ns, closed_since_ns=closed_since_ns
        )

    def save_task(self, record: TaskRecord) -> None:
        values = msgspec.structs.asdict(record)
        values["rooms"] = msgspec.json.encode(record.rooms)
        self._run(self._saving.task, **values)
        self._save_rooms(record.site, TASK, record.task_id, record.rooms, record.created_ns)

    def delete_task(self, record: TaskRecord) -> None:
        self._run(_DELETE_TASK, site=record.site, task_id=record.task_id)
        self._save_rooms(record.site, TASK, record.task_id, (), 0)

    def closings_of(self, site: str, utterance_id: str) -> list[Closing]:
        return self._closings(_CLOSINGS_OF, site=site, utterance_id=utterance_id)

    def closings_in_rooms(self, site: str, rooms: Iterable[str], since_ns: int) -> list[Closing]:
        return self._closings(_CLOSINGS_IN_ROOMS, site=site, rooms=list(rooms), since_ns=since_ns)

    def save_closing(self, record: Closing) -> None:
        closing_id = task_id(record.utterance_id, record.insight_index)
        values = msgspec.structs.asdict(record)
        values["rooms"] = msgspec.json.encode(record.rooms)
        self._run(self._saving.closing, **values, closing_id=closing_id)
        self._save_rooms(record.site, CLOSING, closing_id, record.rooms, record.at_ns)

    def delete_closing(self, record: Closing) -> None:
        closing_id = task_id(record.utterance_id, record.insight_index)
        self._run(_DELETE_CLOSING, site=record.site, closing_id=closing_id)
        self._save_rooms(record.site, CLOSING, closing_id, (), 0)

    def closings_on(self, site: str, utterance_id: str) -> list[Closing]:
        return self._closings(_CLOSINGS_ON, site=site, since=f"{utterance_id}:", until=f"{utterance_id};")

    def tasks_closed_by(self, site: str, utterance_id: str) -> list[TaskRecord]:
        return self._tasks(_TASKS_CLOSED_BY, site=site, utterance_id=utterance_id)

    def decision(self, site: str, subject: str) -> Decision | None:
        payload = self._run(_DECISION, site=site, subject=subject).scalar_one_or_none()
        return None if payload is None else decided_in(payload)

    def decisions_of(self, site: str, utterance_id: str) -> list[Decision]:
        return [decided_in(row.payload) for row in self._run(_DECISIONS_OF, site=site, utterance_id=utterance_id)]

    def save_decision(self, decision: Decision) -> None:
        self._run(
            self._saving.decision,
            site=decision.site,
            subject=decision.subject,
            utterance_id=decision.what.utterance_id,
            epoch=decision.epoch,
            version=decision.version,
            at_ns=decision.at_ns,
            payload=msgspec.json.encode(decision),
        )

    def newest_epoch(self) -> int:
        return int(self._run(sa.select(sa.func.coalesce(sa.func.max(decisions.c.epoch), 0))).scalar_one())

    def next_change(self, site: str) -> int:
        return int(self._run(self._saving.next_change, site=site).scalar_one())

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
            self._run(_FORGET_ARCHIVE, site=site, subject=archive_subject(conversation_id))
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
        last_ns = (conversations.c.last_spoken_ns, conversations.c.summary_ns)
        stubs = sa.and_(conversations.c.at_ns == 0, *(each < before_ns for each in last_ns))
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
            self._run(_FORGET_DECISIONS, site=row.site, utterance_id=row.utterance_id)
        ids = [row.id for row in rows]
        self._connection.execute(fts.delete().where(fts.c.rowid.in_(ids)))
        self._connection.execute(utterances.delete().where(utterances.c.id.in_(ids)))
        return len(rows)

    def _index(self, record: UtteranceRecord, heard: UtteranceTranscribed) -> None:
        row = self._run(_UTTERANCE_ID, site=record.site, utterance_id=record.utterance_id).scalar_one()
        self._saving.dialect.index(self._connection, [words_of(int(row), record, heard)])

    def _run(self, statement: sa.Executable, **parameters: Any) -> sa.CursorResult[Any]:
        return self._connection.execute(statement, parameters)

    def _save_rooms(self, site: str, kind: str, owner: str, names: tuple[str, ...], at_ns: int) -> None:
        self._run(_DELETE_ROOMS, site=site, kind=kind, owner=owner)
        if names:
            self._connection.execute(
                _SAVE_ROOMS,
                [
                    {"site": site, "kind": kind, "room": room, "at_ns": at_ns, "owner": owner}
                    for room in dict.fromkeys(names)
                ],
            )

    def _tasks(self, query: sa.Executable, **parameters: Any) -> list[TaskRecord]:
        return sorted((task_record(row) for row in self._run(query, **parameters)), key=lambda task: task.order)

    def _closings(self, query: sa.Executable, **parameters: Any) -> list[Closing]:
        return sorted(
            (closing_record(row) for row in self._run(query, **parameters)), key=lambda closing: closing.order
        )
