"""What only the bus between processes can do: leases, take-over, a server that dies, a high-water mark, shared work."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.valkey import Valkey

from quickcomm.contracts.routes import Mode, ModuleRoute, Routes
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.messaging.bus import (
    BusFullError,
    BusUnavailableError,
    Delivery,
    Handler,
    RejectedError,
    handling,
    redis_consumer,
)
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_link import Argument, Link, Script
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS, Names, partition
from quickcomm.kernel.messaging.bus.redis_scripts import FETCH
from quickcomm.kernel.messaging.bus.watch import MEMORY_ALARM, ServerWatch
from quickcomm.kernel.routing import RedisRoutes

STREAM = "things.v1"
PATIENCE_S = 60


class Heard:
    """What a group was given; `wait` for what it must get."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self._more = asyncio.Event()

    async def __call__(self, batch: Sequence[Delivery]) -> None:
        self.payloads += [delivery.payload for delivery in batch]
        self._more.set()

    async def wait(self, holds: Callable[[list[bytes]], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds(self.payloads):
                self._more.clear()
                await self._more.wait()


@contextlib.asynccontextmanager
async def opened(url: str, prefix: str, high_water: int = 10_000) -> AsyncIterator[RedisBus]:
    bus = RedisBus(url, SystemClock(pauses=0), prefix=prefix, high_water=high_water)
    await bus.open()
    try:
        yield bus
    finally:
        await bus.aclose()


@pytest.fixture
async def bus(valkey: Valkey, tmp_path: Path) -> AsyncIterator[RedisBus]:
    async with opened(valkey.url, tmp_path.name) as made:
        yield made


@contextlib.asynccontextmanager
async def subscribed(bus: RedisBus, handler: Handler, group: str = "g") -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bus.subscribe(STREAM, group, handler))
        yield
        task.cancel()


async def until(holds: Callable[[], object]) -> None:
    """For what only the server knows: ask it again and again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = holds()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)


async def acked(bus: RedisBus) -> None:
    async def nothing_left() -> bool:
        try:
            waiting = await bus.backlog()
        except BusUnavailableError:  # a connection from before the server's death
            return False
        return bool(waiting) and not any(waiting.values())

    await until(nothing_left)


async def holders(bus: RedisBus, group: str = "g") -> list[bytes]:
    """Whose each leased partition is."""
    leases = await bus._link.call("HGETALL", bus._names.leases(STREAM, group))
    parts = [b"%d" % part for part in range(PARTITIONS)]
    return [leases[part].partition(b"/")[0] for part in parts if leases.get(part + b":until", b"0") != b"0"]


@contextlib.asynccontextmanager
async def process(url: str, prefix: str) -> AsyncIterator[asyncio.subprocess.Process]:
    arguments = ("-m", "tests.support.bus_consumer", url, prefix, STREAM, "g")
    path = os.pathsep.join(["src", "."])
    made = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            made.kill()
        await made.wait()


async def line(consumer: asyncio.subprocess.Process) -> bytes:
    assert consumer.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await consumer.stdout.readline()).strip()


async def test_another_takes_over_what_a_killed_process_had_in_hand(bus: RedisBus, valkey: Valkey) -> None:
    async with process(valkey.url, bus._names.prefix) as consumer:
        await bus.publish(STREAM, "k", b"first")
        assert await line(consumer) == b"first"
        await bus.publish(STREAM, "k", b"hold on")
        assert await line(consumer) == b"hold on"
        await bus.publish(STREAM, "k", b"later")
        heard = Heard()
        async with subscribed(bus, heard):
            await until(lambda: _shared(bus, 2))
            consumer.kill()
            await heard.wait(lambda got: b"later" in got)
            await acked(bus)
    assert heard.payloads == [b"hold on", b"later"]


async def _shared(bus: RedisBus, members: int) -> bool:
    return bool(await bus._link.call("ZCARD", bus._names.members(STREAM, "g")) == members)


async def test_who_was_replaced_while_it_slept_can_take_and_acknowledge_nothing(bus: RedisBus, valkey: Valkey) -> None:
    async with process(valkey.url, bus._names.prefix) as consumer:
        await bus.publish(STREAM, "k", b"first")
        assert await line(consumer) == b"first"
        await acked(bus)
        await until(lambda: _holds_all(bus))
        part, names = partition("k"), bus._names
        leases = await bus._link.call("HGETALL", names.leases(STREAM, "g"))
        token, sleeper = leases[b"%d" % part], leases[b"%d" % part].partition(b"/")[0]
        consumer.send_signal(signal.SIGSTOP)
        heard = Heard()
        async with subscribed(bus, heard):
            await bus.publish(STREAM, "k", b"second")
            await heard.wait(lambda got: got == [b"second"])
            keys = (names.part(STREAM, part), names.leases(STREAM, "g"))
            answer = await bus._link.run(Script(FETCH), keys, "g", sleeper, part, token, 10, ">", 2)
            assert answer == [b"fenced"]
            consumer.send_signal(signal.SIGCONT)
            await until(lambda: _shared(bus, 2))
            await bus.publish(STREAM, "k", b"third")
            await acked(bus)
        # The partition may be either's by now: each message went to exactly one of them.
        heard_there = [await line(consumer)] if b"third" not in heard.payloads else []
    assert [*heard.payloads, *heard_there] == [b"second", b"third"]


async def _holds_all(bus: RedisBus) -> bool:
    return len(await holders(bus)) == PARTITIONS


async def test_the_work_is_shared_and_handed_over(valkey: Valkey, tmp_path: Path) -> None:
    one, two = Heard(), Heard()
    async with opened(valkey.url, tmp_path.name) as first, opened(valkey.url, tmp_path.name) as second:

        async def balanced() -> bool:
            held = await holders(first)
            return sorted(held.count(name) for name in set(held)) == [PARTITIONS // 2] * 2

        async with subscribed(first, one):
            async with subscribed(second, two):
                await until(balanced)
                for i in range(64):
                    await first.publish(STREAM, f"k{i}", b"%d" % i)
                await acked(first)
                assert one.payloads
                assert two.payloads
                assert sorted(map(int, one.payloads + two.payloads)) == list(range(64))
            before = len(one.payloads)
            for i in range(64):
                await first.publish(STREAM, f"k{i}", b"again")
            await one.wait(lambda got: len(got) == before + 64)


async def test_a_server_that_is_killed_loses_nothing_and_reorders_nothing(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey", sync="always")
    server.start()
    heard = Heard()
    try:
        async with opened(server.url, "q") as bus, subscribed(bus, heard):
            for key in "abc":
                await bus.publish(STREAM, key, f"{key} 0".encode())
            await heard.wait(lambda got: len(got) == 3)
            async with asyncio.TaskGroup() as tasks:
                for key in "abc":
                    tasks.create_task(_publish_all(bus, key))
                for kill in range(1, 4):
                    await heard.wait(lambda got, kill=kill: len(set(got)) > kill * 60)  # type: ignore[misc]
                    server.kill()
                    with pytest.raises(BusUnavailableError):
                        await bus.publish(STREAM, "d", b"d nobody hears me")
                    await asyncio.to_thread(server.start)
            await heard.wait(lambda got: len({payload for payload in got if b"nobody" not in payload}) == 300)
            await acked(bus)
    finally:
        server.stop()
    # A publication or an acknowledgement whose answer was lost happens again; each comes first in its order.
    first = list(dict.fromkeys(heard.payloads))
    for key in "abc":
        assert [payload for payload in first if payload.startswith(key.encode())] == [
            f"{key} {i}".encode() for i in range(100)
        ]


async def _publish_all(bus: RedisBus, key: str) -> None:
    for i in range(1, 100):
        while True:
            try:
                await bus.publish(STREAM, key, f"{key} {i}".encode())
            except BusUnavailableError:
                await asyncio.sleep(0.01)
            else:
                break


@pytest.mark.parametrize("script", [redis_consumer._FETCH, redis_consumer._ACK], ids=["taking", "acknowledging"])
async def test_an_answer_that_is_lost_loses_no_message_and_doubles_no_dead_letter(
    bus: RedisBus, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    run, heard = Link.run, Heard()
    lost: list[object] = []

    async def lossy(link: Link, called: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        answer = await run(link, called, keys, *arguments)
        if called is script and not lost and (answer == 1 or answer[0] == b"new"):
            lost.append(answer)
            raise BusUnavailableError("The connection broke.")
        return answer

    async def handle(batch: Sequence[Delivery]) -> None:
        await heard(batch)
        if any(delivery.payload == b"bad" for delivery in batch):
            raise RejectedError("bad")

    monkeypatch.setattr(Link, "run", lossy)
    async with subscribed(bus, handle):
        await bus.publish(STREAM, "k", b"bad")
        await heard.wait(lambda got: b"bad" in got)
        await bus.publish(STREAM, "k", b"good")
        await heard.wait(lambda got: b"good" in got)
        await acked(bus)
    assert lost
    assert list(dict.fromkeys(heard.payloads)) == [b"bad", b"good"]
    assert [letter.payload for letter in await bus.dead_letters()] == [b"bad"]


async def test_a_subscription_begins_when_the_server_comes(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey")
    bus = RedisBus(server.url, SystemClock())
    with pytest.raises(BusUnavailableError) as refused:
        await bus.open()
    assert refused.value.retryable
    heard = Heard()
    try:
        async with subscribed(bus, heard):
            await asyncio.to_thread(server.start)
            await bus.publish(STREAM, "k", b"hello")
            await heard.wait(lambda got: got == [b"hello"])
    finally:
        await bus.aclose()
        server.stop()


async def test_lost_data_is_no_end(valkey: Valkey, tmp_path: Path) -> None:
    """Somebody deletes the streams: the group is registered again, and goes on with what comes then."""
    heard = Heard()
    async with opened(valkey.url, tmp_path.name) as bus, subscribed(bus, heard):
        await bus.publish(STREAM, "k", b"before")
        await heard.wait(lambda got: got == [b"before"])
        await acked(bus)
        await bus._link.call("DEL", *bus._names.parts(STREAM), bus._names.leases(STREAM, "g"))
        await bus.publish(STREAM, "k", b"after")
        await heard.wait(lambda got: got == [b"before", b"after"])


async def test_above_the_high_water_mark_nothing_is_taken_until_there_is_room(valkey: Valkey, tmp_path: Path) -> None:
    async with opened(valkey.url, tmp_path.name, high_water=10) as bus:
        await bus.register(STREAM, "g")
        for i in range(10):
            await bus.publish(STREAM, "k", b"%d" % i)
        assert await bus.full(STREAM)
        with pytest.raises(BusFullError) as refused:
            await bus.publish(STREAM, "k", b"too many")
        assert refused.value.retryable
        several = [("other", b"x"), ("k", b"too many"), ("other", b"y"), ("k", b"behind it")]
        assert await bus.publish_many(STREAM, several) == [True, False, True, False]
        assert (await bus.backlog())[f"{STREAM}/g"] == 12
        heard = Heard()
        async with subscribed(bus, heard):
            await acked(bus)
        assert not await bus.full(STREAM)
        await bus.publish(STREAM, "k", b"room")
        assert [payload for payload in heard.payloads if payload.isdigit()] == [b"%d" % i for i in range(10)]


async def test_what_is_sent_together_stays_below_the_high_water_mark(valkey: Valkey, tmp_path: Path) -> None:
    async with opened(valkey.url, tmp_path.name, high_water=10) as bus:
        await bus.register(STREAM, "g")
        assert await bus.publish_many(STREAM, [("k", b"%d" % i) for i in range(30)]) == [True] * 10 + [False] * 20
        assert (await bus.backlog())[f"{STREAM}/g"] == 10


async def test_a_bus_that_is_full_is_no_fault_of_the_message(bus: RedisBus) -> None:
    refusals = [BusFullError("full")] * (handling.MAX_ATTEMPTS + 3)
    heard = Heard()

    async def handle(batch: Sequence[Delivery]) -> None:
        if refusals:
            raise refusals.pop()
        await heard(batch)

    async with subscribed(bus, handle):
        await bus.publish(STREAM, "k", b"a")
        await heard.wait(lambda got: got == [b"a"])
        await acked(bus)
    assert await bus.dead_letters() == []


async def test_what_kills_its_consumers_becomes_a_dead_letter(bus: RedisBus) -> None:
    await bus.register(STREAM, "g")
    for payload in (b"a", b"deadly", b"b"):
        await bus.publish(STREAM, "k", payload)
    heard, attempts = Heard(), []

    for _ in range(handling.MAX_ATTEMPTS):
        in_hand = asyncio.Event()

        async def die(batch: Sequence[Delivery], in_hand: asyncio.Event = in_hand) -> None:
            for delivery in batch:
                if delivery.payload == b"deadly":
                    attempts.append(delivery.attempt)
                    in_hand.set()
                    await asyncio.Event().wait()
            await heard(batch)

        async with subscribed(bus, die):
            await asyncio.wait_for(in_hand.wait(), PATIENCE_S)
    async with subscribed(bus, heard):
        await heard.wait(lambda got: b"b" in got)
        await acked(bus)
    assert attempts == list(range(1, handling.MAX_ATTEMPTS + 1))
    assert heard.payloads == [b"a", b"b"], "what came before it was not held up, what came behind it is not blamed"
    [letter] = await bus.dead_letters()
    assert (letter.payload, letter.group) == (b"deadly", "g")
    assert letter.reason == "5 consumers in a row stopped or died with it in hand."


async def test_a_retired_group_holds_nothing_back(bus: RedisBus) -> None:
    for group in ("stays", "goes"):
        await bus.register(STREAM, group)
    for i in range(20):
        await bus.publish(STREAM, f"k{i}", b"x")
    heard = Heard()
    async with subscribed(bus, heard, "stays"):
        await heard.wait(lambda got: len(got) == 20)
        await until(lambda: _waiting(bus, "stays", 0))
    assert await bus.trim() == 0
    await bus.retire(STREAM, "goes")
    assert await bus.backlog() == {f"{STREAM}/stays": 0}
    assert await bus.trim() == 20


async def routed(bus: RedisBus, mode: Mode, version: int) -> None:
    """Publish the routes of a module whose service has the group `summaries@service`."""
    routes = Routes(version=version, modules={"intelligence": ModuleRoute(mode=mode)})
    await RedisRoutes(bus._link, prefix=bus._names.prefix).publish(routes, 1)


async def acknowledged(bus: RedisBus, count: int) -> None:
    """Have one group handle so many messages, which the service's group never looks at."""
    heard = Heard()
    async with subscribed(bus, heard, "stays"):
        await heard.wait(lambda got: len(got) == count)
        await until(lambda: _waiting(bus, "stays", 0))


@pytest.mark.parametrize("mode", ["shadow", "off"])
async def test_a_service_that_does_not_serve_yet_keeps_nothing_for_long(bus: RedisBus, mode: Mode) -> None:
    """Messages with an id of long ago, and one of now."""
    for group in ("stays", "summaries@service"):
        await bus.register(STREAM, group)
    for part in bus._names.parts(STREAM):
        await bus._link.call("XADD", part, "1-1", "k", "k", "p", "old")
    await bus.publish(STREAM, "k", b"new")
    await acknowledged(bus, PARTITIONS + 1)
    assert await bus.trim() == 0, "without routes, it is waited for"
    await routed(bus, mode, 1)
    assert await bus.trim() == PARTITIONS, "it may be some seconds behind, and no more"
    await routed(bus, "canary", 2)
    assert await bus.trim() == 0
    heard = Heard()
    async with subscribed(bus, heard, "summaries@service"):
        await heard.wait(lambda got: got == [b"new"])


async def test_a_service_that_does_not_serve_yet_never_fills_a_stream(valkey: Valkey, tmp_path: Path) -> None:
    async with opened(valkey.url, tmp_path.name, high_water=10) as bus:
        for group in ("stays", "summaries@service"):
            await bus.register(STREAM, group)
        for number in range(10):
            await bus.publish(STREAM, "k", b"%d" % number)
        await acknowledged(bus, 10)
        with pytest.raises(BusFullError):
            await bus.publish(STREAM, "k", b"full")
        await routed(bus, "shadow", 1)
        await bus.publish(STREAM, "k", b"10")
        assert not await bus.full(STREAM)
        assert await bus.backlog() == {f"{STREAM}/stays": 1, f"{STREAM}/summaries@service": 1}


async def test_a_group_that_was_not_waited_for_takes_what_is_left_of_its_work(bus: RedisBus) -> None:
    """Its messages were deleted while it had them in hand."""
    hangs, heard = asyncio.Event(), Heard()

    async def hang(_batch: Sequence[Delivery]) -> None:
        hangs.set()
        await asyncio.Event().wait()

    for group in ("stays", "summaries@service"):
        await bus.register(STREAM, group)
    for part in bus._names.parts(STREAM):
        await bus._link.call("XADD", part, "1-1", "k", "k", "p", "old")
    async with subscribed(bus, hang, "summaries@service"):
        await hangs.wait()
        await acknowledged(bus, PARTITIONS)
        await routed(bus, "shadow", 1)
        assert await bus.trim() == PARTITIONS
    await bus.publish(STREAM, "k", b"new")
    async with subscribed(bus, heard, "summaries@service"):
        await heard.wait(lambda got: got == [b"new"])


async def _waiting(bus: RedisBus, group: str, count: int) -> bool:
    return (await bus.backlog())[f"{STREAM}/{group}"] == count


async def test_a_publisher_that_gives_up_leaves_the_others_going(bus: RedisBus) -> None:
    heard = Heard()
    async with subscribed(bus, heard):
        async with asyncio.TaskGroup() as tasks:
            several = [tasks.create_task(bus.publish(STREAM, f"k{i}", b"%d" % i)) for i in range(100)]
            await asyncio.sleep(0)
            for task in several[::7]:
                task.cancel()
        kept = {b"%d" % i for i, task in enumerate(several) if not task.cancelled()}
        await heard.wait(lambda got: kept <= set(got))
        await bus.publish(STREAM, "k", b"last")
        await heard.wait(lambda got: b"last" in got)


async def test_more_readers_wait_than_a_pool_has_connections_by_itself(bus: RedisBus) -> None:
    heard = [Heard() for _ in range(14)]
    async with contextlib.AsyncExitStack() as stack:
        for number, each in enumerate(heard):
            await stack.enter_async_context(subscribed(bus, each, f"g{number}"))
        for part in range(PARTITIONS):
            key = next(key for key in map(str, range(100)) if partition(key) == part)
            await bus.publish(STREAM, key, b"%d" % part)
        for each in heard:
            await each.wait(lambda got: len(got) == PARTITIONS)


async def test_without_memory_nothing_new_is_taken_and_what_waits_is_handled(bus: RedisBus) -> None:
    """A message is refused, to be tried again; consumers begin and go on, and free what they have handled."""
    watch, heard = ServerWatch(bus, SystemClock(), "It waits."), Heard()
    await bus.register(STREAM, "g")
    for number in range(10):
        await bus.publish(STREAM, "k", b"%d" % number)
    await bus._link.call("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BusFullError, match="maxmemory") as refused:
            await bus.publish(STREAM, "k", b"more")
        assert refused.value.retryable
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch.run())
            await until(lambda: _alarmed(watch))
            async with subscribed(bus, heard):
                await heard.wait(lambda got: len(got) == 10)
                await acked(bus)
            watching.cancel()
        assert await bus.trim() == 10
    finally:
        await bus._link.call("CONFIG", "SET", "maxmemory", 0)
    await bus.publish(STREAM, "k", b"room")


async def _alarmed(watch: ServerWatch) -> bool:
    return [code for code, _ in watch.alarms] == [MEMORY_ALARM]


def test_an_address_that_is_none_says_so() -> None:
    with pytest.raises(ConfigurationError, match="address"):
        RedisBus("localhost", SystemClock())


def test_keys_are_named_by_stream_and_part() -> None:
    assert Names().part("transcripts.v1", 3) == "quickcomm:transcripts.v1:3"
