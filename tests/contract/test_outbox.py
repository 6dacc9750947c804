"""The outbox: what is published in a transaction comes to the bus in its order, whatever dies or is away meanwhile."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection
from tests.support.valkey import Valkey

from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.bus import BusFullError, BusUnavailableError, Delivery, outbox
from quickcomm.kernel.messaging.bus.outbox import OUTBOX, OUTBOX_ALARM, OutboxBus
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_assignments import AssignmentNames, Fence
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import Names, partition
from quickcomm.kernel.messaging.bus.sql_tables import append
from quickcomm.kernel.storage import Database, StorageError

STREAM = "things.v1"
FENCED = "answers.v1"


def fence(payload: bytes) -> Fence | None:
    """The payload is the epoch."""
    return Fence(name="main:k", epoch=int(payload), utterance_id="u") if int(payload) else None


class Site:
    """A database, its outbox, and what came to the bus."""

    def __init__(self, url: str, prefix: str, database: Database, high_water: int) -> None:
        self.database = database
        self.redis = RedisBus(url, SystemClock(), prefix=prefix, high_water=high_water)
        self.bus = OutboxBus(url, database, SystemClock(pauses=0.01), self.redis, {FENCED: fence})
        self.link = Link(url)
        self.names = Names(prefix)

    async def store(self, *numbers: int, key: str = "k", stream: str = STREAM) -> None:
        """Each in a transaction of its own."""
        for number in numbers:
            payload = str(number).encode()
            await self.database.write(lambda connection, payload=payload: append(connection, stream, key, payload))  # type: ignore[misc]

    async def arrived(self, key: str = "k", stream: str = STREAM) -> list[int]:
        found = await self.link.call("XRANGE", self.names.of_key(stream, key), "-", "+")
        return [int(fields[b"p"]) for _, fields in found if fields[b"k"] == key.encode()]

    async def unsent(self) -> int:
        return (await self.bus.backlog())[OUTBOX]

    async def troubled(self, *, yes: bool) -> None:
        async with asyncio.timeout(30):
            while (self.bus.trouble is not None) != yes:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)

    async def empty(self) -> None:
        async with asyncio.timeout(30):
            while await self._is_filled():  # noqa: ASYNC110 - only the table knows
                await asyncio.sleep(0)

    async def _is_filled(self) -> bool:
        try:
            return bool(await self.unsent())
        except BusUnavailableError:  # a connection from before the server was killed
            return True


@asynccontextmanager
async def opened(path: Path | str, url: str, prefix: str, high_water: int = 10_000) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        database = Database(path)
        database.open()
        stack.push_async_callback(database.aclose)
        site = Site(url, prefix, database, high_water)
        stack.push_async_callback(site.link.aclose)
        stack.push_async_callback(site.bus.aclose)
        site.bus.migrate()
        yield site


@asynccontextmanager
async def maintained(site: Site) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(site.bus.maintain())
        yield
        task.cancel()


@pytest.fixture
async def site(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Site]:
    async with opened(tmp_path / "site.sqlite", valkey.url, tmp_path.name) as made:
        yield made


async def test_what_another_side_answers_by_now_is_left_out_and_deleted(site: Site) -> None:
    key = AssignmentNames(site.names.prefix).assignment("main:k")
    await site.link.call("HSET", key, "side", "service", "epoch", 2)
    await site.store(1, 0, 2, 1, 3, stream=FENCED)
    async with maintained(site):
        await site.empty()
    assert await site.arrived(stream=FENCED) == [0, 2, 3]


async def test_what_is_stored_arrives_in_its_order_and_is_deleted(site: Site) -> None:
    async with maintained(site):
        await asyncio.gather(site.store(*range(300), key="a"), site.store(*range(300), key="b"))
        await site.empty()
    assert await site.arrived("a") == list(range(300))
    assert await site.arrived("b") == list(range(300))


async def test_what_is_taken_back_is_not_published(site: Site) -> None:
    def fail(connection: Connection) -> None:
        append(connection, STREAM, "k", b"1")
        raise StorageError("Refused.")

    with pytest.raises(StorageError):
        await site.database.write(fail)
    assert await site.bus.forward() is False
    assert await site.arrived() == []


async def test_more_than_one_batch_goes_out(site: Site) -> None:
    await site.store(*range(600))
    assert await site.bus.forward() is True
    assert await site.bus.forward() is True
    assert await site.bus.forward() is False
    assert await site.arrived() == list(range(600))


async def test_a_full_bus_keeps_the_rest_in_the_outbox(valkey: Valkey, tmp_path: Path) -> None:
    async with opened(tmp_path / "site.sqlite", valkey.url, tmp_path.name, high_water=5) as site:
        await site.redis.register(STREAM, "g")
        await site.store(*range(5))
        await site.bus.forward()
        await site.store(5, 6)
        with pytest.raises(BusFullError):
            await site.bus.forward()
        assert await site.unsent() == 2
        await site.redis.retire(STREAM, "g")
        await site.link.call("DEL", site.names.of_key(STREAM, "k"))
        await site.bus.forward()
        assert await site.arrived() == [5, 6]


async def test_a_full_partition_holds_up_no_other_and_floods_none(valkey: Valkey, tmp_path: Path) -> None:
    """Also where more than a page of the outbox is for the full one, and on another stream."""
    async with opened(tmp_path / "site.sqlite", valkey.url, tmp_path.name, high_water=5) as site:
        await site.redis.register(STREAM, "g")
        full, free = "k", next(key for key in "abcdefgh" if partition(key) != partition("k"))
        await site.store(*range(5), key=full)
        await site.bus.forward()
        await site.store(5, 6, key=full)
        await site.store(1, key=free)
        await site.store(*range(7, 300), key=full)
        await site.store(2, key=free)
        await site.store(3, key=full, stream="others.v1")
        for _ in range(3):
            with pytest.raises(BusFullError):
                await site.bus.forward()
        assert await site.arrived(free) == [1, 2], "each once"
        assert await site.link.call("XLEN", site.names.of_key("others.v1", full)) == 1
        assert await site.unsent() == 295
        assert await site.arrived(full) == list(range(5))
        await site.redis.retire(STREAM, "g")
        await site.link.call("DEL", site.names.of_key(STREAM, full))
        with pytest.raises(BusFullError):
            await site.bus.forward()
        assert await site.arrived(full) == list(range(5, 10)), "as far as there is room, in order"


async def test_an_outbox_that_is_full_takes_no_more_work_and_says_so(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "AT_MOST", 3)
    done: asyncio.Queue[bytes] = asyncio.Queue()

    async def work(batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            done.put_nowait(delivery.payload)

    async with opened(tmp_path / "site.sqlite", valkey.url, tmp_path.name, high_water=1) as site, maintained(site):
        await site.redis.register(STREAM, "away")
        await site.store(*range(5))
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            # One of the five has room.
            while "4 messages wait to be sent" not in dict(site.bus.alarms).get(OUTBOX_ALARM, ""):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            consuming = tasks.create_task(site.bus.subscribe("work.v1", "g", work))
            await site.redis.publish("work.v1", "k", b"more")
            while not (await site.bus.backlog()).get("work.v1/g"):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            assert done.empty()
            await site.redis.retire(STREAM, "away")
            for part in site.names.parts(STREAM):
                await site.link.call("XTRIM", part, "MAXLEN", 0)
            monkeypatch.setattr(site.redis._publisher, "_high_water", 100)
            assert await done.get() == b"more"
            await site.empty()
            assert site.bus.alarms == ()
            consuming.cancel()


async def test_what_was_sent_and_not_deleted_is_not_sent_again(site: Site) -> None:
    """The disk is full between the two."""

    def refuse(connection: Connection) -> None:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE DELETE ON bus_messages BEGIN SELECT RAISE(ABORT, 'full'); END"
        )

    await site.store(1, 2)
    await site.database.write(refuse)
    for _ in range(3):
        with pytest.raises(StorageError):
            await site.bus.forward()
    await site.database.write(lambda connection: connection.exec_driver_sql("DROP TRIGGER full"))
    await site.store(3)
    await site.bus.forward()
    assert await site.arrived() == [1, 2, 3]
    assert await site.unsent() == 0


async def test_a_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey", "always")
    server.start()
    try:
        async with opened(tmp_path / "site.sqlite", server.url, "away") as site, maintained(site):
            await site.store(*range(50))
            await site.empty()
            server.kill()
            await site.store(*range(50, 100))
            await site.troubled(yes=True)
            with pytest.raises(BusUnavailableError):
                await site.bus.backlog()
            server.start()
            await site.troubled(yes=False)
            await site.empty()
            arrived = await site.arrived()
            assert list(dict.fromkeys(arrived)) == list(range(100))
    finally:
        server.stop()


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.contract.test_outbox import STREAM, maintained, opened

async def main(path, url, prefix, first):
    async with opened(Path(path), url, prefix) as site, maintained(site):
        number = int(first)
        while True:
            await site.store(number)
            print(number, flush=True)
            number += 1

asyncio.run(main(*sys.argv[1:]))
"""


def killed_after(arguments: list[str], lines: int) -> list[int]:
    """Let a writer store so many or some more, then kill -9. The numbers that it is known to have stored."""
    child = subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(lines)]
    child.kill()
    told += [int(line) for line in child.stdout.read().split("\n")[:-1]]
    child.stdout.close()
    child.wait(20)
    return told


async def test_kills_lose_nothing_and_break_no_order(valkey: Valkey, tmp_path: Path) -> None:
    """Kill -9 wherever it hits: between transaction, sending and deleting. Some may come twice, none too early."""
    path = tmp_path / "site.sqlite"
    told: list[int] = []
    for lines in (1, 7, 40, 150, 23):
        first = told[-1] + 2 if told else 0  # one may be stored that was not told
        told += await asyncio.to_thread(killed_after, [str(path), valkey.url, tmp_path.name, str(first)], lines)
    async with opened(path, valkey.url, tmp_path.name) as site:
        while await site.bus.forward():
            pass
        assert await site.unsent() == 0
        arrived = await site.arrived()
    firsts = list(dict.fromkeys(arrived))
    assert set(told) <= set(firsts)
    assert firsts == sorted(firsts)


async def test_two_processes_with_one_database_send_each_message_once_and_in_order(
    valkey: Valkey, shared_store: str
) -> None:
    prefix = "two-with-one"
    async with opened(shared_store, valkey.url, prefix) as one, opened(shared_store, valkey.url, prefix) as two:
        async with maintained(one), maintained(two):
            async with asyncio.TaskGroup() as group:
                for site, key in ((one, "a"), (two, "b"), (one, "c"), (two, "d")):
                    group.create_task(site.store(*range(100), key=key))
            await one.empty()  # stopped before, one of them might send again what it has just sent
        for key in "abcd":
            assert await one.arrived(key) == list(range(100))


async def test_what_a_process_that_died_had_not_sent_another_one_sends(valkey: Valkey, shared_store: str) -> None:
    prefix = "left-behind"
    async with opened(shared_store, valkey.url, prefix) as dead, opened(shared_store, valkey.url, prefix) as living:
        async with maintained(living):
            await dead.store(1, 2, 3)  # and does not live to send them
            await living.empty()
        assert await living.arrived() == [1, 2, 3]
