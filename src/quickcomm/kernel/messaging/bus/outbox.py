"""The bus between processes, for one that has a database of its own: what it publishes goes out by an outbox.

`sql.append` puts a message into the caller's transaction, as without Valkey; here it is sent on in its order, and
deleted once the server has it. See docs/adr/0015-outbox.md.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
import structlog
from sqlalchemy import Connection

from quickcomm.contracts.checking import Standing, Waiting
from quickcomm.contracts.erasing import Erased, Scope, Wanted
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.port import Alarms, BusFullError, DeadLetter, Delivery, Handler
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_assignments import Fence
from quickcomm.kernel.messaging.bus.redis_names import partition
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.messaging.bus.sql_tables import TOPIC, messages
from quickcomm.kernel.messaging.bus.watch import ServerWatch
from quickcomm.kernel.storage.database import Database
from quickcomm.kernel.telemetry import tracing

TOGETHER: Final = 256
RETRY_S: Final = 1.0
LOOK_EVERY_S: Final = 1.0
"""Where several processes have one database."""
OUTBOX: Final = "outbox"
OUTBOX_ALARM: Final = "bus.outbox"
AT_MOST: Final = 10_000
"""Messages in the outbox from which on no more work is taken from the bus."""
_FETCH: Final = (
    sa.select(messages.c.id, messages.c.stream, messages.c.key, messages.c.payload)
    .where(messages.c.id > sa.bindparam("after"))
    .order_by(messages.c.id)
    .limit(TOGETHER)
)
_DELETE: Final = messages.delete().where(messages.c.id.in_(sa.bindparam("ids", expanding=True)))
_COUNT: Final = sa.select(sa.func.count()).select_from(messages)

log = structlog.get_logger(__name__)


def _count(connection: Connection) -> int:
    return int(connection.execute(_COUNT).scalar_one())


def _is_filled(connection: Connection) -> bool:
    return connection.execute(sa.select(messages.c.id).limit(1)).first() is not None


class OutboxBus:
    """A `Bus`. `maintain()` beside all that uses it, `aclose()` after the last use.

    A crash between sending and deleting sends a message again: consumers drop doubles by id and revision. Where several
    processes have one database, one of them sends at a time, whoever wrote it: the order holds, and nothing stays
    behind when its writer dies.
    """

    def __init__(
        self,
        url: str,
        database: Database,
        clock: Clock,
        bus: RedisBus | None = None,
        fences: Mapping[str, Callable[[bytes], Fence | None]] = {},
    ) -> None:
        """`fences`: by stream, what returns the fence of a payload, where another process may answer the same."""
        self._fences = fences
        self._database = database
        self._clock = clock
        self._tables = SqlBus(database, clock)
        self._bus = bus or RedisBus(url, clock)
        self._sent: list[int] = []
        self._unsent = 0
        """As it was when sending last failed; 0 where it succeeded."""
        self._waits: str | None = None
        self._filled = asyncio.Event()
        self._watch = ServerWatch(self._bus, clock, "What is said is kept, and handled when it is back.")
        database.on_commit(self._wake)

    def migrate(self) -> None:
        self._tables.migrate()

    @property
    def trouble(self) -> str | None:
        """Why nothing is handled now, in words for an operator."""
        return self._watch.trouble

    @property
    def alarms(self) -> Alarms:
        """`trouble`, a full outbox, dead letters, no memory left."""
        waits = () if self._waits is None or self._watch.trouble else ((OUTBOX_ALARM, self._waits),)
        return (*self._watch.alarms, *waits)

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
        return {**await self._bus.backlog(), OUTBOX: await self._database.read(_count)}

    async def waiting(self) -> list[Waiting]:
        return await self._bus.waiting()

    async def standing(self, key: str, utterance_id: str) -> list[Standing]:
        return await self._bus.standing(key, utterance_id)

    async def answer_ms(self) -> float | None:
        return await self._bus.answer_ms()

    # -- the port ---------------------------------------------------------------------------------------------------

    async def publish(self, stream: str, key: str, payload: bytes) -> None:
        await self._bus.publish(stream, key, payload)

    async def subscribe(self, stream: str, group: str, handler: Handler, *, overlap: int = 1) -> None:
        async def held_back(batch: Sequence[Delivery]) -> None:
            if self._unsent >= AT_MOST:
                raise BusFullError("Too much waits in the outbox; what would add to it waits as well.")
            await handler(batch)

        await self._bus.subscribe(stream, group, held_back, overlap=overlap)

    async def register(self, stream: str, group: str) -> None:
        """As `RedisBus.register`."""
        await self._bus.register(stream, group)

    async def dead_letters(self) -> list[DeadLetter]:
        return await self._bus.dead_letters()

    async def replay(self, dead_letter_id: int) -> None:
        await self._bus.replay(dead_letter_id)

    async def drop(self, dead_letter_id: int) -> None:
        await self._bus.drop(dead_letter_id)

    async def find(self, wanted: Wanted) -> set[str]:
        return await self._tables.find(wanted) | await self._bus.find(wanted)

    async def erase(self, scope: Scope, *, traces: bool = True) -> list[Erased]:
        return [*await self._tables.erase(scope, traces=traces), *await self._bus.erase(scope, traces=traces)]

    # -- inside -----------------------------------------------------------------------------------------------------

    def _wake(self, topics: set[str]) -> None:
        if any(topic.startswith(TOPIC) for topic in topics):
            self._filled.set()

    async def _forward_forever(self) -> None:
        while True:
            self._filled.clear()
            try:
                more = await self.forward()
            except QuickCommError as error:
                if self._waits is None:
                    log.warning("outbox.waits", error=str(error))
                await self._look(error)
                await self._clock.sleep(RETRY_S)
                continue
            self._waits, self._unsent = None, 0
            if not more:
                await self._until_filled()

    async def _look(self, error: QuickCommError) -> None:
        """Remember why messages wait, and how many: from `AT_MOST` on, no more work is taken."""
        self._waits = str(error)
        with contextlib.suppress(QuickCommError):
            self._unsent = await self._database.read(_count)
            self._waits = f"{self._unsent} messages wait to be sent. {error}"

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
        """What was sent and could not be deleted (a full disk) is deleted before anything else is sent.

        Behind a full partition, all others go on; nothing of that partition is sent until there is room.
        """
        await self._delete_sent()
        full: set[str] = set()
        after = 0
        while True:
            rows = await self._page(after)
            await self._send([row for row in rows if self._partition(row) not in full], full)
            if len(rows) < TOGETHER or not full:
                break
            after = rows[-1].id
        if full:
            raise BusFullError(f"Too much waits to be handled in {', '.join(sorted(full))}; that stays in the outbox.")
        return len(rows) == TOGETHER

    async def _page(self, after: int) -> Sequence[Any]:
        return await self._database.read(lambda connection: connection.execute(_FETCH, {"after": after}).all())

    async def _send(self, rows: Sequence[Any], full: set[str]) -> None:
        """Send rows in their order, and delete what was taken; partitions that take no more are added to `full`."""
        streams: dict[str, list[Any]] = {}
        for row in rows:
            streams.setdefault(row.stream, []).append(row)
        try:
            for stream, found in streams.items():
                with tracing().call(f"send {stream}", "producer") as call:
                    call.note(messaging__destination__name=stream, messaging__batch__message_count=len(found))
                    taken = await self._publish(stream, found)
                self._sent += [row.id for row, is_taken in zip(found, taken, strict=True) if is_taken]
                full |= {self._partition(row) for row, is_taken in zip(found, taken, strict=True) if not is_taken}
        finally:
            await self._delete_sent()

    async def _publish(self, stream: str, rows: Sequence[Any]) -> list[bool]:
        fence = self._fences.get(stream)
        if fence is None:
            return await self._bus.publish_many(stream, [(row.key, row.payload) for row in rows])
        return await self._bus.publish_fenced(stream, [(row.key, row.payload, fence(row.payload)) for row in rows])

    @staticmethod
    def _partition(row: Any) -> str:
        return f"{row.stream}/{partition(row.key)}"

    async def _delete_sent(self) -> None:
        def run(connection: Connection) -> None:
            connection.execute(_DELETE, {"ids": sent})

        if sent := list(self._sent):
            await self._database.write(run)
            self._sent = self._sent[len(sent) :]
