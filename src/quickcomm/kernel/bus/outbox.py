"""The bus between processes, for one that has a database of its own: what it publishes goes out by an outbox.

`sql.append` puts a message into the caller's transaction, as without Valkey; here it is sent on in its order, and
deleted once the server has it. See docs/adr/0015-outbox.md.
"""

import asyncio
from typing import Any, Final

import sqlalchemy as sa
import structlog
from sqlalchemy import Connection

from quickcomm.kernel.bus.port import BusFullError, DeadLetter, Handler
from quickcomm.kernel.bus.redis import RedisBus
from quickcomm.kernel.bus.sql import TOPIC, SqlBus, messages
from quickcomm.kernel.bus.watch import ServerWatch
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.storage.database import Database
from quickcomm.kernel.telemetry import tracing

TOGETHER: Final = 256
RETRY_S: Final = 1.0
LOOK_EVERY_S: Final = 1.0
"""Where several processes have one database."""
OUTBOX: Final = "outbox"
_FETCH: Final = (
    sa.select(messages.c.id, messages.c.stream, messages.c.key, messages.c.payload)
    .order_by(messages.c.id)
    .limit(TOGETHER)
)
_DELETE: Final = messages.delete().where(messages.c.id.in_(sa.bindparam("ids", expanding=True)))
_COUNT: Final = sa.select(sa.func.count()).select_from(messages)

log = structlog.get_logger(__name__)


def _is_filled(connection: Connection) -> bool:
    return connection.execute(sa.select(messages.c.id).limit(1)).first() is not None


class OutboxBus:
    """A `Bus`. `maintain()` beside all that uses it, `aclose()` after the last use.

    A crash between sending and deleting sends a message again: consumers drop doubles by id and revision. Where several
    processes have one database, one of them sends at a time, whoever wrote it: the order holds, and nothing stays
    behind when its writer dies.
    """

    def __init__(self, url: str, database: Database, clock: Clock, bus: RedisBus | None = None) -> None:
        self._database = database
        self._clock = clock
        self._tables = SqlBus(database, clock)
        self._bus = bus or RedisBus(url, clock)
        self._sent: list[int] = []
        self._filled = asyncio.Event()
        self._watch = ServerWatch(self._bus, clock, "What is said is kept, and handled when it is back.")
        database.on_commit(self._wake)

    def migrate(self) -> None:
        self._tables.migrate()

    @property
    def trouble(self) -> str | None:
        """Why nothing is handled now, in words for an operator."""
        return self._watch.trouble

    async def aclose(self) -> None:
        """May be called again."""
        await self._bus.aclose()

    async def maintain(self) -> None:
        """Send on what is in the outbox, trim, and look after the server, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._bus.trim_forever(), name="bus:trim")
            tasks.create_task(self._watch.run(), name="bus:look")
            tasks.create_task(self._forward_forever(), name="bus:outbox")

    async def backlog(self) -> dict[str, int]:
        """Messages not yet acknowledged, by `stream/group`; those not yet sent, as `outbox`."""
        unsent = await self._database.read(lambda connection: int(connection.execute(_COUNT).scalar_one()))
        return {**await self._bus.backlog(), OUTBOX: unsent}

    # -- the port ---------------------------------------------------------------------------------------------------

    async def publish(self, stream: str, key: str, payload: bytes) -> None:
        await self._bus.publish(stream, key, payload)

    async def subscribe(self, stream: str, group: str, handler: Handler, *, overlap: int = 1) -> None:
        await self._bus.subscribe(stream, group, handler, overlap=overlap)

    async def dead_letters(self) -> list[DeadLetter]:
        return await self._bus.dead_letters()

    async def replay(self, dead_letter_id: int) -> None:
        await self._bus.replay(dead_letter_id)

    async def drop(self, dead_letter_id: int) -> None:
        await self._bus.drop(dead_letter_id)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _wake(self, topics: set[str]) -> None:
        if any(topic.startswith(TOPIC) for topic in topics):
            self._filled.set()

    async def _forward_forever(self) -> None:
        waiting = False
        while True:
            self._filled.clear()
            try:
                more = await self.forward()
            except QuickCommError as error:
                if not waiting:
                    log.warning("outbox.waits", error=str(error))
                waiting = True
                await self._clock.sleep(RETRY_S)
                continue
            waiting = False
            if not more:
                await self._until_filled()

    async def _until_filled(self) -> None:
        """Nobody says so where another process has written and died."""
        try:
            async with self._clock.timeout(LOOK_EVERY_S if self._database.shared else None):
                await self._filled.wait()
        except TimeoutError:
            return

    async def forward(self) -> bool:
        """Send on what comes first; whether there may be more. Raises what the server or the database says."""
        if self._database.shared and not await self._database.read(_is_filled):
            return False
        async with self._database.alone():
            return await self._forward()

    async def _forward(self) -> bool:
        """What was sent and could not be deleted (a full disk) is deleted before anything else is sent."""
        await self._delete_sent()
        rows = await self._database.read(lambda connection: connection.execute(_FETCH).all())
        streams: dict[str, list[Any]] = {}
        for row in rows:
            streams.setdefault(row.stream, []).append(row)
        try:
            for stream, found in streams.items():
                with tracing().call(f"send {stream}", "producer") as call:
                    call.note(messaging__destination__name=stream, messaging__batch__message_count=len(found))
                    count = await self._bus.publish_many(stream, [(row.key, row.payload) for row in found])
                self._sent += [row.id for row in found[:count]]
                if count < len(found):
                    raise BusFullError("Too much waits to be handled; the rest stays in the outbox.")
        finally:
            await self._delete_sent()
        return len(rows) == TOGETHER

    async def _delete_sent(self) -> None:
        def run(connection: Connection) -> None:
            connection.execute(_DELETE, {"ids": sent})

        if sent := list(self._sent):
            await self._database.write(run)
            self._sent = self._sent[len(sent) :]
