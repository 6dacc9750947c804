"""One behaviour suite for every bus: order, at least once, dead letters, new groups, trimming, overlap."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
from sqlalchemy import Connection
from tests.support.valkey import Valkey

from quickcomm.contracts.checking import Standing
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import BusyError, NotFoundError
from quickcomm.kernel.messaging.bus import Bus, Delivery, Handler, RejectedError, handling, redis_consumer
from quickcomm.kernel.messaging.bus import sql as sql_bus
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.messaging.bus.watch import ServerWatch
from quickcomm.kernel.storage import Database, StorageAwayError

STREAM = "things.v1"
OpenBus = Callable[[], AbstractAsyncContextManager[Bus]]


@asynccontextmanager
async def open_sql(path: Path) -> AsyncIterator[SqlBus]:
    database = Database(path)
    database.open()
    bus = SqlBus(database, SystemClock(pauses=0))
    bus.migrate()
    try:
        yield bus
    finally:
        await database.aclose()


@asynccontextmanager
async def open_redis(url: str, prefix: str) -> AsyncIterator[RedisBus]:
    bus = RedisBus(url, SystemClock(pauses=0), prefix=prefix)
    await bus.open()
    try:
        yield bus
    finally:
        await bus.aclose()


@pytest.fixture
def open_sql_bus(tmp_path: Path) -> OpenBus:
    return lambda: open_sql(tmp_path / "bus.sqlite")


@pytest.fixture(params=["sql", "redis"])
def open_bus(request: pytest.FixtureRequest, open_sql_bus: OpenBus, valkey: Valkey, tmp_path: Path) -> OpenBus:
    """Opens the same bus again each time, as a restarted process does."""
    if request.param == "sql":
        return open_sql_bus
    return lambda: open_redis(valkey.url, tmp_path.name)


async def trim(bus: Bus) -> None:
    """Now, and not in a minute."""
    if isinstance(bus, RedisBus):
        await bus.trim()
    else:
        assert isinstance(bus, SqlBus)
        await bus._database.write(sql_bus._trim)


async def backlog(bus: Bus) -> dict[str, int]:
    assert isinstance(bus, (SqlBus, RedisBus))
    return await bus.backlog()


async def alarmed(bus: Bus, *, yes: bool) -> None:
    """Wait until an operator is told of dead letters, or of none any more."""
    watch = bus if isinstance(bus, SqlBus) else ServerWatch(cast("RedisBus", bus), SystemClock(pauses=0.01), "")
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watch.maintain() if isinstance(watch, SqlBus) else watch.run())
        while ("bus.dead_letters" in dict(watch.alarms)) != yes:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        task.cancel()


class Group:
    """What a group was given; `wait` for what it must get."""

    def __init__(self, handle: Callable[[Delivery], Awaitable[None]] | None = None) -> None:
        self.got: list[Delivery] = []
        self._handle = handle
        self._more = asyncio.Event()

    async def __call__(self, batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            if self._handle is not None:
                await self._handle(delivery)
            self.got.append(delivery)
            self._more.set()

    @property
    def payloads(self) -> list[bytes]:
        return [delivery.payload for delivery in self.got]

    async def wait(self, holds: Callable[["Group"], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds(self):
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def subscribed(bus: Bus, group: str, handler: Handler, overlap: int = 1) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bus.subscribe(STREAM, group, handler, overlap=overlap))
        yield
        task.cancel()


async def acked(bus: Bus) -> None:
    """There are groups, and all have acknowledged everything."""
    async with asyncio.timeout(20):
        while not (waiting := await backlog(bus)) or any(waiting.values()):  # noqa: ASYNC110 - only the store knows
            await asyncio.sleep(0)


@pytest.mark.parametrize("why", [StorageAwayError("The database is away."), BusyError("Too many writes wait.")])
async def test_while_what_a_handler_needs_is_away_the_message_waits(open_bus: OpenBus, why: Exception) -> None:
    """However long that is: it is no fault of the message."""
    refusals = iter(range(3 * handling.MAX_ATTEMPTS))

    async def away(_delivery: Delivery) -> None:
        if next(refusals, None) is not None:
            raise why

    group = Group(away)
    async with open_bus() as bus, subscribed(bus, "one", group):
        await bus.publish(STREAM, "k", b"1")
        await bus.publish(STREAM, "k", b"2")
        await group.wait(lambda group: group.payloads == [b"1", b"2"])
        assert await bus.dead_letters() == []


async def test_each_group_gets_every_message_in_the_order_of_its_key(open_bus: OpenBus) -> None:
    first, second = Group(), Group()
    async with open_bus() as bus, subscribed(bus, "one", first), subscribed(bus, "two", second):
        await asyncio.gather(*(bus.publish(STREAM, f"k{i % 7}", str(i).encode()) for i in range(100)))
        for group in (first, second):
            await group.wait(lambda group: len(group.got) == 100)
            for key in range(7):
                mine = [int(delivery.payload) for delivery in group.got if delivery.key == f"k{key}"]
                assert mine == list(range(key, 100, 7))
        await acked(bus)


async def test_what_was_published_before_a_crash_comes_after_it(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        async with subscribed(bus, "g", Group()):
            pass
        for i in range(10):
            await bus.publish(STREAM, "k", str(i).encode())
    group = Group()
    async with open_bus() as bus, subscribed(bus, "g", group):
        await group.wait(lambda group: len(group.got) == 10)
    assert group.payloads == [str(i).encode() for i in range(10)]


async def test_a_crash_before_the_ack_brings_it_again_and_one_after_it_does_not(open_bus: OpenBus) -> None:
    started = asyncio.Event()

    async def die(delivery: Delivery) -> None:
        if delivery.payload == b"second":
            started.set()
            await asyncio.Event().wait()

    async with open_bus() as bus:
        dying = Group(die)
        async with subscribed(bus, "g", dying):
            await bus.publish(STREAM, "k", b"first")
            await dying.wait(lambda group: group.payloads == [b"first"])
            await acked(bus)
            await bus.publish(STREAM, "k", b"second")
            await asyncio.wait_for(started.wait(), 20)
    group = Group()
    async with open_bus() as bus, subscribed(bus, "g", group):
        await group.wait(lambda group: bool(group.got))
        await acked(bus)
    assert group.payloads == [b"second"]


async def test_a_poison_message_lets_the_others_pass(open_bus: OpenBus) -> None:
    async def handle(delivery: Delivery) -> None:
        if delivery.payload == b"poison":
            raise ValueError("it tastes bad")
        if delivery.payload == b"nonsense":
            raise RejectedError("not even a message")

    group, other = Group(handle), Group()
    async with open_bus() as bus, subscribed(bus, "g", group), subscribed(bus, "other", other):
        for payload in (b"a", b"poison", b"b", b"nonsense", b"c"):
            await bus.publish(STREAM, "k", payload)
        await group.wait(lambda group: b"c" in group.payloads)
        await other.wait(lambda group: len(group.got) == 5)
        await acked(bus)
        letters = await bus.dead_letters()
    once = list(dict.fromkeys(group.payloads))
    assert once == [b"a", b"b", b"c"]
    assert [(letter.payload, letter.group, letter.key) for letter in letters] == [
        (b"poison", "g", "k"),
        (b"nonsense", "g", "k"),
    ]
    assert letters[0].reason == "ValueError: it tastes bad"
    assert letters[0].attempts == handling.MAX_ATTEMPTS
    assert letters[1].reason == "not even a message"


async def test_so_many_dead_letters_are_kept(open_bus: OpenBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go: what can be handled must not wait for what cannot."""
    for module in (sql_bus, redis_consumer):
        monkeypatch.setattr(module, "LETTERS_AT_MOST", 3)

    async def handle(_: Delivery) -> None:
        raise RejectedError("not even a message")

    async with open_bus() as bus, subscribed(bus, "g", Group(handle)):
        for number in range(10):
            await bus.publish(STREAM, "k", b"%d" % number)
        await acked(bus)
        letters = await bus.dead_letters()
        assert [letter.payload for letter in letters] == [b"7", b"8", b"9"]
        await alarmed(bus, yes=True)
        for letter in letters:
            await bus.drop(letter.id)
        await alarmed(bus, yes=False)


async def test_a_passing_trouble_is_no_reason_for_the_dead_letters(open_bus: OpenBus) -> None:
    troubles = [OSError("once"), OSError("twice")]

    async def handle(_: Delivery) -> None:
        if troubles:
            raise troubles.pop()

    group = Group(handle)
    async with open_bus() as bus, subscribed(bus, "g", group):
        await bus.publish(STREAM, "k", b"a")
        await group.wait(lambda group: bool(group.got))
        await acked(bus)
        assert await bus.dead_letters() == []


async def test_a_dead_letter_is_replayed_or_dropped(open_bus: OpenBus) -> None:
    healed = asyncio.Event()

    async def handle(_: Delivery) -> None:
        if not healed.is_set():
            raise RejectedError("not now")

    group = Group(handle)
    async with open_bus() as bus, subscribed(bus, "g", group):
        for payload in (b"a", b"b"):
            await bus.publish(STREAM, "k", payload)
        await acked(bus)
        first, second = await bus.dead_letters()
        healed.set()
        await bus.replay(first.id)
        await bus.drop(second.id)
        await group.wait(lambda group: group.payloads == [b"a"])
        await acked(bus)
        assert await bus.dead_letters() == []
        for gone in (bus.replay, bus.drop):
            with pytest.raises(NotFoundError):
                await gone(first.id)


async def test_a_new_group_sees_what_is_still_there(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        await bus.publish(STREAM, "k", b"before anybody listened")
        late = Group()
        async with subscribed(bus, "late", late):
            await late.wait(lambda group: bool(group.got))


async def test_trimming_stays_behind_every_group(open_bus: OpenBus) -> None:
    stuck = asyncio.Event()

    async def hold(_: Delivery) -> None:
        await stuck.wait()

    fast, slow = Group(), Group(hold)
    async with open_bus() as bus:
        async with subscribed(bus, "fast", fast), subscribed(bus, "slow", slow):
            for i in range(20):
                await bus.publish(STREAM, f"k{i}", b"x")
            await fast.wait(lambda group: len(group.got) == 20)
            await trim(bus)
            stuck.set()
            await slow.wait(lambda group: len(group.got) == 20)
            await acked(bus)
        await trim(bus)
        late, again = Group(), Group()
        async with subscribed(bus, "late", late), subscribed(bus, "slow", again):
            await bus.publish(STREAM, "k0", b"new")
            await late.wait(lambda group: bool(group.got))
            await again.wait(lambda group: bool(group.got))
    assert late.payloads == again.payloads == [b"new"]


async def test_a_busy_database_does_not_end_a_subscription(
    open_sql_bus: OpenBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group()
    async with open_sql_bus() as bus, subscribed(bus, "g", group):
        assert isinstance(bus, SqlBus)
        await bus.publish(STREAM, "k", b"a")
        await group.wait(lambda group: bool(group.got))
        await acked(bus)
        write = bus._database.write
        refusals = [BusyError("too many")] * 2

        async def busy(function: Callable[[Connection], object]) -> object:
            if refusals and group.payloads[-1] == b"b":
                raise refusals.pop()
            return await write(function)

        monkeypatch.setattr(bus._database, "write", busy)
        await bus.publish(STREAM, "k", b"b")
        await group.wait(lambda group: group.payloads[-1] == b"b")
        await acked(bus)
        assert not refusals
        await bus.publish(STREAM, "k", b"c")
        await group.wait(lambda group: group.payloads[-1] == b"c")


class Slow:
    """Handles a message when told to; knows what is in hand."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.ended: list[bytes] = []
        self.fails: set[bytes] = set()
        self._gates: dict[bytes, asyncio.Event] = {}
        self._news = asyncio.Event()

    async def __call__(self, batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            self.begun.append(delivery.payload)
            self._news.set()
            await self._gate(delivery.payload).wait()
            if delivery.payload in self.fails:
                raise RejectedError("told to")
            self.ended.append(delivery.payload)
            self._news.set()

    def _gate(self, payload: bytes) -> asyncio.Event:
        return self._gates.setdefault(payload, asyncio.Event())

    def finish(self, *payloads: bytes) -> None:
        for payload in payloads:
            self._gate(payload).set()

    async def wait(self, holds: Callable[["Slow"], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds(self):
                self._news.clear()
                await self._news.wait()


async def publish_one_by_one(bus: Bus, slow: Slow, *payloads: bytes) -> None:
    """Each is in hand before the next one comes, so that each is a batch of its own."""
    for payload in payloads:
        await bus.publish(STREAM, "k", payload)
        await slow.wait(lambda slow, payload=payload: payload in slow.begun)  # type: ignore[misc]


async def left(bus: Bus) -> int:
    return (await backlog(bus))[f"{STREAM}/g"]


async def test_batches_overlap_and_are_acknowledged_in_order(open_bus: OpenBus) -> None:
    slow = Slow()
    async with open_bus() as bus, subscribed(bus, "g", slow, overlap=3):
        await publish_one_by_one(bus, slow, b"a", b"b", b"c")
        slow.finish(b"c", b"b")
        await slow.wait(lambda slow: len(slow.ended) == 2)
        assert await left(bus) == 3, "nothing is acknowledged before what came first"
        slow.finish(b"a")
        await acked(bus)
    assert slow.begun == [b"a", b"b", b"c"]
    assert slow.ended[-1] == b"a"


async def test_no_more_are_in_hand_than_allowed(open_bus: OpenBus) -> None:
    slow = Slow()
    async with open_bus() as bus, subscribed(bus, "g", slow, overlap=2):
        await publish_one_by_one(bus, slow, b"a", b"b")
        for payload in (b"c", b"d"):
            await bus.publish(STREAM, "k", payload)
        slow.finish(b"b")
        await slow.wait(lambda slow: slow.ended == [b"b"])
        await left(bus)
        assert slow.begun == [b"a", b"b"], "what is handled but waits for its turn to be acknowledged counts, too"
        slow.finish(b"a")
        await slow.wait(lambda slow: b"c" in slow.begun)
        slow.finish(b"c", b"d")
        await acked(bus)


async def test_one_that_fails_is_a_dead_letter_and_the_others_pass(open_bus: OpenBus) -> None:
    slow = Slow()
    slow.fails = {b"b"}
    async with open_bus() as bus, subscribed(bus, "g", slow, overlap=3):
        await publish_one_by_one(bus, slow, b"a", b"b", b"c")
        slow.finish(b"b", b"c")
        await slow.wait(lambda slow: slow.ended == [b"c"])
        assert await bus.dead_letters() == [], "it is put away when its turn comes"
        slow.finish(b"a")
        await acked(bus)
        assert [letter.payload for letter in await bus.dead_letters()] == [b"b"]


async def test_a_crash_brings_all_again_from_the_first_unfinished(open_bus: OpenBus) -> None:
    slow = Slow()
    async with open_bus() as bus, subscribed(bus, "g", slow, overlap=3):
        await publish_one_by_one(bus, slow, b"a", b"b", b"c")
        slow.finish(b"a", b"c")
        await slow.wait(lambda slow: len(slow.ended) == 2)
        async with asyncio.timeout(20):
            while await left(bus) != 2:  # noqa: ASYNC110 - only the table knows
                await asyncio.sleep(0)
    group = Group()
    async with open_bus() as bus, subscribed(bus, "g", group, overlap=3):
        await group.wait(lambda group: len(group.got) == 2)
        await acked(bus)
    assert group.payloads == [b"b", b"c"]


async def test_cancelling_ends_what_is_in_hand(open_bus: OpenBus) -> None:
    ended: list[bytes] = []

    async def handle(delivery: Delivery) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(delivery.payload)

    slow = Slow()

    async def both(batch: Sequence[Delivery]) -> None:
        slow.finish(*(delivery.payload for delivery in batch))
        await slow(batch)
        await handle(batch[0])

    async with open_bus() as bus:
        async with subscribed(bus, "g", both, overlap=2):
            await publish_one_by_one(bus, slow, b"a", b"b")
        assert sorted(ended) == [b"a", b"b"]
        assert await left(bus) == 2


async def test_it_tells_since_when_messages_wait(open_bus: OpenBus) -> None:
    """Those in the hands of a group and those that it has not taken; a group that has done all waits for nothing."""
    before_ns = time.time_ns()
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def stuck(_delivery: Delivery) -> None:
        begun.set()
        await go_on.wait()

    def message() -> bytes:
        return msgspec.json.encode({"published_ns": time.time_ns()})

    async with open_bus() as bus:
        assert isinstance(bus, (SqlBus, RedisBus))
        async with subscribed(bus, "slow", stuck_group := Group(stuck)), subscribed(bus, "quick", quick := Group()):
            await bus.publish(STREAM, "a", message())
            await begun.wait()
            between_ns = time.time_ns()
            await bus.publish(STREAM, "a", message())
            await quick.wait(lambda group: len(group.got) == 2)
            async with asyncio.timeout(20):
                while [each.group for each in await bus.waiting()] != ["slow"]:  # noqa: ASYNC110 - only the store knows
                    await asyncio.sleep(0)
            [waiting] = await bus.waiting()
            assert (waiting.stream, waiting.count) == (STREAM, 2)
            assert before_ns - 10**9 <= waiting.oldest_ns <= between_ns + 10**9
            go_on.set()
            await stuck_group.wait(lambda group: len(group.got) == 2)
            await acked(bus)
            assert await bus.waiting() == []


async def test_it_tells_which_group_has_not_handled_an_utterance(open_bus: OpenBus) -> None:
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def stuck(_delivery: Delivery) -> None:
        begun.set()
        await go_on.wait()

    def said(number: int) -> bytes:
        stamp = {"owner": "service", "owner_epoch": 2}
        return msgspec.json.encode({"published_ns": time.time_ns(), "utterance_id": f"a:0:{number}", **stamp})

    async with open_bus() as bus:
        assert isinstance(bus, (SqlBus, RedisBus))
        async with subscribed(bus, "slow", slow := Group(stuck)), subscribed(bus, "quick", quick := Group()):
            await bus.publish(STREAM, "a", said(1))
            await begun.wait()
            await bus.publish(STREAM, "a", b"nothing that can be read")
            await bus.publish(STREAM, "a", said(2))
            await quick.wait(lambda group: len(group.got) == 3)

            async def standing(utterance_id: str) -> dict[str, Standing]:
                async with asyncio.timeout(20):
                    while True:  # until the quick group has acknowledged all
                        told = {each.group: each for each in await bus.standing("a", utterance_id)}
                        if not told["quick"].count:
                            return told

            found = await standing("a:0:2")
            assert (found["slow"].count, found["quick"].count) == (3, 0)
            assert found["slow"].stream == STREAM
            assert abs(found["slow"].waits_since_ns - time.time_ns()) < 60 * 10**9
            assert found["slow"].waits_since_ns >= found["slow"].oldest_ns > 0
            assert (found["quick"].waits_since_ns, found["quick"].oldest_ns) == (0, 0)
            assert (await standing(""))["slow"].waits_since_ns == found["slow"].oldest_ns
            assert (await standing("a:0:9"))["slow"].waits_since_ns == 0
            other = {each.group: each for each in await bus.standing("another", "another:0:1")}
            assert other["slow"].waits_since_ns == 0
            if isinstance(bus, RedisBus):
                assert (found["slow"].at_most, found["slow"].side) == (10_000, "service")
                assert f"-{os.getpid()}-" in (found["slow"].reader or "")
            else:
                assert (found["slow"].at_most, found["slow"].reader) == (0, None)
            go_on.set()
            await slow.wait(lambda group: len(group.got) == 3)
        if isinstance(bus, RedisBus):
            assert {each.reader for each in await bus.standing("a", "")} == {""}, "both have left"
