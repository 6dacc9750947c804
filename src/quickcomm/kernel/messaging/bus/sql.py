"""The bus inside a process: a table plus a wake-up, with the same guarantees as the one between services.

`append` joins the caller's transaction, so that a message is published exactly when its cause is stored.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa
import structlog
from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from quickcomm.contracts.checking import Standing, Waiting
from quickcomm.contracts.erasing import Erased, Scope, Wanted
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.erasing.messages import erase_messages, find_in_messages
from quickcomm.kernel.erasing.traces import remove_traces
from quickcomm.kernel.errors import NotFoundError, QuickCommError
from quickcomm.kernel.messaging.bus.handling import (
    LETTERS_AT_MOST,
    MAX_ATTEMPTS,
    carried,
    handle,
    letters_alarm,
    published_ns,
)
from quickcomm.kernel.messaging.bus.port import Alarms, DeadLetter, Delivery, Handler
from quickcomm.kernel.messaging.bus.sql_tables import (
    MIGRATIONS,
    PARTITIONS,
    append,
    dead,
    groups,
    messages,
    partition,
    topic,
)
from quickcomm.kernel.storage.database import Database, StorageError
from quickcomm.kernel.storage.migrations import migrate

BATCH: Final = 64
RETRY_S: Final = 3.0
TRIM_EVERY_S: Final = 60.0
ACK_WITHIN_S: Final = 0.2
"""Acknowledgements of a group are written together; what a crash loses of them is handled again."""

log = structlog.get_logger(__name__)
_HERE: Final = sa.and_(
    groups.c.stream == sa.bindparam("of_stream"),
    groups.c.group_name == sa.bindparam("of_group"),
    groups.c.part == sa.bindparam("of_part"),
)
# Made once: to build a statement takes longer than to run it.
_ACKNOWLEDGE: Final = groups.update().where(_HERE).values(acked_id=sa.bindparam("cursor"))
_FETCH: Final = (
    sa.select(messages.c.id, messages.c.key, messages.c.payload)
    .where(
        messages.c.stream == sa.bindparam("stream"),
        messages.c.part == sa.bindparam("part"),
        messages.c.id > sa.bindparam("after"),
    )
    .order_by(messages.c.id)
    .limit(BATCH)
)


class _Place(NamedTuple):
    """Where a group stands: one partition of one stream."""

    stream: str
    group: str
    part: int

    def where(self) -> dict[str, str | int]:
        return {"of_stream": self.stream, "of_group": self.group, "of_part": self.part}


class _Turn(NamedTuple):
    """Batches of a partition are acknowledged in their order."""

    before: asyncio.Event
    done: asyncio.Event


class _Acks:
    """How far a group has come, not yet written."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._cursors: dict[_Place, int] = {}
        self._added = asyncio.Event()

    def add(self, place: _Place, cursor: int) -> None:
        self._cursors[place] = cursor
        self._added.set()

    def forget(self, place: _Place) -> None:
        """Something higher is about to be written otherwise."""
        self._cursors.pop(place, None)

    async def write(self) -> None:
        """Raises what the database says; what was to be written still is."""
        self._added.clear()
        written = dict(self._cursors)
        if not written:
            return
        rows = [{**place.where(), "cursor": cursor} for place, cursor in written.items()]
        await self._database.write(lambda connection: connection.execute(_ACKNOWLEDGE, rows))
        for place, cursor in written.items():
            if self._cursors.get(place) == cursor:
                del self._cursors[place]

    async def write_forever(self) -> None:
        while True:
            await self._added.wait()
            await asyncio.sleep(ACK_WITHIN_S)
            try:
                await self.write()
            except QuickCommError as error:  # also a database that is too busy
                log.warning("bus.ack_failed", error=str(error))
                self._added.set()
                await self._clock.sleep(RETRY_S)


class SqlBus:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._wakers: dict[str, list[asyncio.Event]] = {}
        self._letters = 0
        database.on_commit(self._wake)

    def migrate(self) -> None:
        migrate(self._database.engine, "bus", MIGRATIONS)

    async def publish(self, stream: str, key: str, payload: bytes) -> None:
        await self._database.write(lambda connection: append(connection, stream, key, payload))

    async def subscribe(self, stream: str, group: str, handler: Handler, *, overlap: int = 1) -> None:
        """Register the group and deliver to it until cancelled. A new group starts with what the stream still holds."""
        await self._database.write(lambda connection: _register(connection, stream, group))
        acks = _Acks(self._database, self._clock)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(acks.write_forever(), name=f"bus:{stream}:{group}:acks")
                for part in range(PARTITIONS):
                    place = _Place(stream, group, part)
                    consuming = self._consume(place, handler, overlap, acks)
                    tasks.create_task(consuming, name=f"bus:{stream}:{group}:{part}")
        finally:
            with contextlib.suppress(QuickCommError):
                await acks.write()

    @property
    def trouble(self) -> str | None:
        """Nothing of its own: its database speaks for itself."""
        return None

    @property
    def alarms(self) -> Alarms:
        return (letters_alarm(self._letters),) if self._letters else ()

    async def aclose(self) -> None:
        """The database is closed by who opened it."""

    async def maintain(self) -> None:
        """Delete what every registered group has acknowledged, now and then, until cancelled."""
        while True:
            try:
                await self._database.write(_trim)
                self._letters = await self._database.read(_letters)
            except QuickCommError as error:
                log.warning("bus.trim_failed", error=str(error))
            await asyncio.sleep(TRIM_EVERY_S)

    async def dead_letters(self) -> list[DeadLetter]:
        def load(connection: Connection) -> list[DeadLetter]:
            return [_dead_letter(row) for row in connection.execute(sa.select(dead).order_by(dead.c.id))]

        return await self._database.read(load)

    async def replay(self, dead_letter_id: int) -> None:
        """Publish it again. Groups that handled it already see it twice, and drop it by its id."""

        def run(connection: Connection) -> None:
            row = connection.execute(sa.select(dead).where(dead.c.id == dead_letter_id)).one_or_none()
            if row is None:
                raise NotFoundError(f"There is no dead letter {dead_letter_id}.")
            append(connection, row.stream, row.key, row.payload)
            connection.execute(dead.delete().where(dead.c.id == dead_letter_id))

        await self._database.write(run)
        self._letters = await self._database.read(_letters)

    async def drop(self, dead_letter_id: int) -> None:
        def run(connection: Connection) -> None:
            if connection.execute(dead.delete().where(dead.c.id == dead_letter_id)).rowcount == 0:
                raise NotFoundError(f"There is no dead letter {dead_letter_id}.")

        await self._database.write(run)
        self._letters = await self._database.read(_letters)

    async def find(self, wanted: Wanted) -> set[str]:
        """Return the ids of utterances in messages that a name or a time stands for."""
        return await self._database.read(lambda connection: find_in_messages(connection, wanted))

    async def erase(self, scope: Scope, *, traces: bool = True) -> list[Erased]:
        counts = await self._database.write(lambda connection: erase_messages(connection, scope))
        self._letters = await self._database.read(_letters)
        gone = await remove_traces(self._database, (messages.name, dead.name)) if traces else ""
        store = f"messages, {self._database.name}"
        return [Erased(store=store, what=what, count=count, gone=gone) for what, count in counts.items()]

    async def backlog(self) -> dict[str, int]:
        """Messages not yet acknowledged, by `stream/group`."""
        return await self._database.read(_backlog)

    async def waiting(self) -> list[Waiting]:
        return await self._database.read(_waiting)

    async def standing(self, key: str, utterance_id: str) -> list[Standing]:
        return await self._database.read(lambda connection: _standings(connection, key, utterance_id))

    async def answer_ms(self) -> float | None:
        return None

    def _wake(self, topics: set[str]) -> None:
        for each in topics:
            for waker in self._wakers.get(each, ()):
                waker.set()

    async def _consume(self, place: _Place, handler: Handler, overlap: int, acks: "_Acks") -> None:
        waker = asyncio.Event()
        wakers = self._wakers.setdefault(topic(place.stream, place.part), [])
        wakers.append(waker)
        cursor, newest = await self._database.read(lambda connection: _acked(connection, place))
        free = asyncio.Semaphore(overlap)
        before = asyncio.Event()
        before.set()
        more = True
        try:
            async with asyncio.TaskGroup() as in_hand:
                while True:
                    await free.acquire()
                    batch: list[Delivery] = []
                    while not batch:
                        if not more:
                            await waker.wait()
                        waker.clear()
                        batch = await self._fetch(place.stream, place.part, cursor, newest)
                        more = len(batch) == BATCH
                    cursor = batch[-1].message_id
                    done = asyncio.Event()
                    taken = in_hand.create_task(
                        self._take(place, batch, handler, _Turn(before, done), acks), name="bus:batch"
                    )
                    taken.add_done_callback(lambda _: free.release())
                    before = done
        finally:
            wakers.remove(waker)

    async def _take(
        self, place: _Place, batch: Sequence[Delivery], handler: Handler, turn: "_Turn", acks: "_Acks"
    ) -> None:
        """Have a batch handled; acknowledge it once those before it are."""
        failed = await handle(place.group, batch, handler, self._clock)
        await turn.before.wait()
        cursor = batch[-1].message_id
        if failed:
            acks.forget(place)
            await self._bury(place, cursor, failed)
        else:
            acks.add(place, cursor)
        turn.done.set()

    async def _fetch(self, stream: str, part: int, after: int, newest: int) -> list[Delivery]:
        while True:
            try:
                return await self._database.read(lambda connection: _fetch(connection, stream, part, after, newest))
            except StorageError as error:
                log.warning("bus.fetch_failed", stream=stream, error=str(error))
                await self._clock.sleep(RETRY_S)

    async def _bury(self, place: _Place, cursor: int, failed: Sequence[tuple[Delivery, str]]) -> None:
        """Make dead letters of them and acknowledge up to `cursor`, in one transaction."""
        rows = [self._as_dead(place.group, delivery, reason) for delivery, reason in failed]

        def run(connection: Connection) -> None:
            connection.execute(dead.insert(), rows)
            newest = connection.execute(sa.select(sa.func.max(dead.c.id))).scalar_one()
            connection.execute(dead.delete().where(dead.c.id <= newest - LETTERS_AT_MOST))
            connection.execute(_ACKNOWLEDGE, {**place.where(), "cursor": cursor})

        while True:
            try:
                await self._database.write(run)
            except QuickCommError as error:  # also a database that is too busy
                log.warning("bus.ack_failed", group=place.group, stream=place.stream, error=str(error))
                await self._clock.sleep(RETRY_S)
            else:
                self._letters += len(rows)
                return

    def _as_dead(self, group: str, delivery: Delivery, reason: str) -> dict[str, object]:
        log.error("bus.dead_letter", group=group, stream=delivery.stream, message_id=delivery.message_id)
        return {
            "stream": delivery.stream,
            "group_name": group,
            "key": delivery.key,
            "payload": delivery.payload,
            "reason": reason,
            "attempts": MAX_ATTEMPTS,
            "at_ns": self._clock.now_ns(),
        }


def _register(connection: Connection, stream: str, group: str) -> None:
    rows = [{"stream": stream, "group_name": group, "part": part, "acked_id": 0} for part in range(PARTITIONS)]
    connection.execute(insert(groups).on_conflict_do_nothing(), rows)


def _acked(connection: Connection, place: _Place) -> tuple[int, int]:
    """How far the group has come, and the newest message there is."""
    acked = int(connection.execute(sa.select(groups.c.acked_id).where(_HERE), place.where()).scalar_one())
    newest = connection.execute(sa.select(sa.func.max(messages.c.id))).scalar()
    return acked, max(acked, newest or 0)


def _fetch(connection: Connection, stream: str, part: int, after: int, newest: int) -> list[Delivery]:
    """`newest`: what came when nobody could have had it yet has a higher id."""
    rows = connection.execute(_FETCH, {"stream": stream, "part": part, "after": after})
    return [
        Delivery(message_id=row.id, stream=stream, key=row.key, payload=row.payload, fresh=row.id > newest)
        for row in rows
    ]


def _trim(connection: Connection) -> None:
    acked = sa.select(groups.c.stream, groups.c.part, sa.func.min(groups.c.acked_id)).group_by(
        groups.c.stream, groups.c.part
    )
    for stream, part, lowest in connection.execute(acked).all():
        connection.execute(
            messages.delete().where(messages.c.stream == stream, messages.c.part == part, messages.c.id <= lowest)
        )


def _letters(connection: Connection) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(dead)).scalar_one())


def _backlog(connection: Connection) -> dict[str, int]:
    return {f"{stream}/{group}": count for stream, group, count, _ in _counted(connection)}


def _waiting(connection: Connection) -> list[Waiting]:
    found = []
    for stream, group, count, first in _counted(connection):
        if count:
            payload = connection.execute(sa.select(messages.c.payload).where(messages.c.id == first)).scalar()
            found.append(Waiting(stream=stream, group=group, count=count, oldest_ns=published_ns(payload or b"")))
    return found


def _standings(connection: Connection, key: str, utterance_id: str) -> list[Standing]:
    part = partition(key)
    found = []
    for group in connection.execute(sa.select(groups).where(groups.c.part == part)).all():
        behind = sa.and_(messages.c.stream == group.stream, messages.c.part == part, messages.c.id > group.acked_id)
        rows = connection.execute(sa.select(messages).where(behind).order_by(messages.c.id)).all()
        mine = ((row, carried(row.payload)) for row in rows if row.key == key)
        waits = next((row for row, each in mine if not utterance_id or each.utterance_id == utterance_id), None)
        found.append(
            Standing(
                stream=group.stream,
                partition=part,
                group=group.group_name,
                count=len(rows),
                oldest_ns=published_ns(rows[0].payload) if rows else 0,
                waits_since_ns=0 if waits is None else published_ns(waits.payload),
            )
        )
    return found


def _counted(connection: Connection) -> Sequence[tuple[str, str, int, int]]:
    """Return stream, group, how many messages wait, and the first of them."""
    waiting = (
        sa.select(groups.c.stream, groups.c.group_name, sa.func.count(messages.c.id), sa.func.min(messages.c.id))
        .outerjoin(
            messages,
            sa.and_(
                messages.c.stream == groups.c.stream,
                messages.c.part == groups.c.part,
                messages.c.id > groups.c.acked_id,
            ),
        )
        .group_by(groups.c.stream, groups.c.group_name)
    )
    return connection.execute(waiting).all()


def _dead_letter(row: sa.Row[tuple[object, ...]]) -> DeadLetter:
    values = row._asdict()
    values["group"] = values.pop("group_name")
    return DeadLetter(**values)
