"""The bus between processes: utterances a second, idle latency, take-over; beside it the bus inside a process.

`python -m benchmarks.bus [--messages N] [--sync always|everysec|no]`. A real Valkey with an append-only file, one
consumer process with a handler that does nothing, utterance-sized messages in batches of 128 from this process.

*through*: publishing and consuming at the same time, until everything is acknowledged; *drain*: consuming and
acknowledging what is there already. CPU is that of the consumer process alone. Latency: from the call of `publish` here
to the handler there, one message at a time; beside each a PING to the server and back, which shows how busy the machine
is. Take-over: from `kill -9` of a consumer until another one has handled a message of each partition.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, get_args

import msgspec
import numpy as np
from tests.support.valkey import Sync, Valkey

from benchmarks.process import usage
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed, Word
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.bus import Delivery
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS, partition
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.storage import Database

BATCH: Final = 128
GROUP: Final = "bench"
AIM_PER_S: Final = 20_000
AIM_P99_MS: Final = 5.0
PROBE: Final = b"probe "
TALK: Final = "the guest in four twelve would like two more towels and somebody to look at the shower please"
HEAD: Final = f"{'bus':12}{'measured':12}{'messages':>10}{'a second':>11}{'consumer CPU, us each':>24}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    bus: str
    measured: str
    messages: int
    per_s: float
    cpu_us: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Milliseconds."""

    p50: float
    p99: float
    worst: float
    count: int

    @classmethod
    def of(cls, taken: Sequence[float]) -> "Times":
        p50, p99 = (float(found) for found in np.percentile(taken, [50, 99]))
        return cls(p50=round(p50, 2), p99=round(p99, 2), worst=round(max(taken), 2), count=len(taken))


def utterances(count: int) -> list[tuple[str, bytes]]:
    """Keys and payloads: 200 conversations, as large as real ones with word times are."""
    words = tuple(
        Word(text=word, start_offset=4_000 * i, end_offset=4_000 * i + 3_200, confidence=0.97)
        for i, word in enumerate(TALK.split())
    )
    made = []
    for i in range(count):
        key = f"conversation-{i % 200}"
        message = UtteranceTranscribed(
            site="main",
            conversation_id=key,
            utterance_id=f"{key}:0:{i}",
            channel="housekeeping",
            speaker=0,
            seq=i,
            start_offset=i,
            end_offset=i + 60_000,
            sample_rate=16_000,
            text=TALK,
            words=words,
            confidence=0.93,
            stt_model="whisper-tiny.en",
            spoken_at_ns=time.time_ns(),
            speech_ended_ns=time.time_ns(),
            published_ns=time.time_ns(),
            latency=Latency(endpoint=512.0, stt=180.0),
        )
        made.append((key, msgspec.json.encode(message)))
    return made


# -- the consumer's process ---------


async def consume(url: str) -> None:
    """Handle until killed; a line for each probe: how long it was on its way, in ms."""

    async def handle(batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            if delivery.payload.startswith(PROBE):
                taken = (time.monotonic_ns() - int(delivery.payload[len(PROBE) :])) / 1e6
                print(json.dumps(taken), flush=True)

    await RedisBus(url, SystemClock()).subscribe(TRANSCRIPTS, GROUP, handle)


@contextlib.asynccontextmanager
async def consumer(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.bus", "--consume", url), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def answer(process: asyncio.subprocess.Process) -> float:
    assert process.stdout is not None
    return float(json.loads(await process.stdout.readline()))


async def at_work(bus: RedisBus, process: asyncio.subprocess.Process) -> None:
    """It has every partition."""
    for part in range(PARTITIONS):
        await bus.publish(TRANSCRIPTS, key_of(part), PROBE + b"%d" % time.monotonic_ns())
        await answer(process)


def key_of(part: int) -> str:
    return next(key for key in (f"key-{i}" for i in range(10_000)) if partition(key) == part)


# -- figures ---------


async def publish(bus: RedisBus, messages: Sequence[tuple[str, bytes]]) -> None:
    for start in range(0, len(messages), BATCH):
        batch = list(messages[start : start + BATCH])
        assert all(await bus.publish_many(TRANSCRIPTS, batch))


async def acked(bus: RedisBus | SqlBus) -> None:
    while any((await bus.backlog()).values()):  # noqa: ASYNC110 - only the store knows
        await asyncio.sleep(0.005)


async def through(bus: RedisBus, messages: Sequence[tuple[str, bytes]], pid: int) -> Rate:
    before, began = usage(pid), time.perf_counter()
    await publish(bus, messages)
    await acked(bus)
    return rate("redis", "through", len(messages), time.perf_counter() - began, usage(pid).since(before).cpu_s)


async def drain(bus: RedisBus, messages: Sequence[tuple[str, bytes]], process: asyncio.subprocess.Process) -> Rate:
    process.send_signal(signal.SIGSTOP)
    await publish(bus, messages)
    before, began = usage(process.pid), time.perf_counter()
    process.send_signal(signal.SIGCONT)
    await acked(bus)
    cpu = usage(process.pid).since(before).cpu_s
    return rate("redis", "drain", len(messages), time.perf_counter() - began, cpu)


async def inside(folder: Path, messages: Sequence[tuple[str, bytes]]) -> Rate:
    """The bus inside a process: publisher, table and consumer are one."""
    database = Database(folder / "bus.sqlite")
    database.open()
    bus = SqlBus(database, SystemClock())
    bus.migrate()

    async def handle(batch: Sequence[Delivery]) -> None:
        """Nothing."""

    try:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(bus.subscribe(TRANSCRIPTS, GROUP, handle))
            began = time.perf_counter()
            for start in range(0, len(messages), BATCH):
                batch = messages[start : start + BATCH]
                await asyncio.gather(*(bus.publish(TRANSCRIPTS, *message) for message in batch))
            await acked(bus)
            seconds = time.perf_counter() - began
            task.cancel()
    finally:
        await database.aclose()
    return rate("in-process", "through", len(messages), seconds, None)


def rate(bus: str, measured: str, messages: int, seconds: float, cpu_s: float | None) -> Rate:
    cpu_us = None if cpu_s is None else round(cpu_s / messages * 1e6, 1)
    row = Rate(bus=bus, measured=measured, messages=messages, per_s=round(messages / seconds), cpu_us=cpu_us)
    print(f"{bus:12}{measured:12}{messages:>10}{row.per_s:>11.0f}{'' if cpu_us is None else cpu_us:>24}", flush=True)
    return row


async def latency(bus: RedisBus, process: asyncio.subprocess.Process, count: int) -> tuple[Times, Times]:
    """Of messages, and of PINGs."""
    taken, pings = [], []
    for i in range(count):
        began = time.monotonic_ns()
        await bus.open()
        pings.append((time.monotonic_ns() - began) / 1e6)
        await bus.publish(TRANSCRIPTS, f"conversation-{i}", PROBE + b"%d" % time.monotonic_ns())
        taken.append(await answer(process))
        await asyncio.sleep(0.02)
    return Times.of(taken), Times.of(pings)


async def take_over(bus: RedisBus, url: str, count: int) -> Times:
    """Each time: two consumers share the work, one is killed, and the other has all of it."""
    taken = []
    for _ in range(count):
        async with consumer(url) as stays, consumer(url) as dies:
            while not await shared(bus):  # noqa: ASYNC110 - only the server knows
                await asyncio.sleep(0.05)
            dies.send_signal(signal.SIGKILL)
            began = time.monotonic_ns()
            for part in range(PARTITIONS):
                await bus.publish(TRANSCRIPTS, key_of(part), PROBE + b"%d" % began)
            taken.append(max([await answer(stays) for _ in range(PARTITIONS)]))
    return Times.of(taken)


async def shared(bus: RedisBus) -> bool:
    """Two living consumers have half of the partitions each."""
    link, names = bus._link, bus._names  # noqa: SLF001 - nobody else needs to know
    living = await link.call("ZRANGE", names.members(TRANSCRIPTS, GROUP), 0, -1)
    leases = await link.call("HGETALL", names.leases(TRANSCRIPTS, GROUP))
    held = [leases[b"%d" % part].partition(b"/")[0] for part in range(PARTITIONS)]
    return len(living) == 2 and sorted(map(held.count, living)) == [PARTITIONS // 2] * 2


async def run(arguments: argparse.Namespace, server: Valkey, folder: Path) -> int:
    messages = utterances(arguments.messages)
    size = round(sum(len(payload) for _, payload in messages) / len(messages))
    print(f"{size} bytes a message, batches of {BATCH}, appendfsync {arguments.sync}\n{HEAD}", flush=True)
    bus = RedisBus(server.url, SystemClock(), high_water=2 * arguments.messages)
    rates = []
    async with consumer(server.url) as process:
        await at_work(bus, process)
        for _ in range(arguments.rounds):
            rates.append(await through(bus, messages, process.pid))
            rates.append(await drain(bus, messages, process))
            rates.append(await inside(Path(tempfile.mkdtemp(dir=folder)), messages[: arguments.messages // 10]))
            await bus.trim()
        idle, ping = await latency(bus, process, arguments.probes)
    taken_over = await take_over(bus, server.url, arguments.kills)
    await bus.aclose()
    best = {kind: max(row.per_s for row in rates if (row.bus, row.measured) == kind) for kind in kinds(rates)}
    ratio = round(best["redis", "through"] / best["in-process", "through"], 1)
    print(f"publish -> handler, idle: p50 {idle.p50} ms, p99 {idle.p99} ms, worst {idle.worst} ms ({idle.count})")
    print(f"PING beside it: p50 {ping.p50} ms, p99 {ping.p99} ms, worst {ping.worst} ms")
    print(f"take-over after kill -9: p50 {taken_over.p50:.0f} ms, worst {taken_over.worst:.0f} ms ({taken_over.count})")
    print(f"through, best of {arguments.rounds}: {ratio} times the bus inside a process")
    times = {"idle_ms": asdict(idle), "ping_ms": asdict(ping), "take_over_ms": asdict(taken_over)}
    rows = [asdict(row) for row in rates]
    print(json.dumps({"sync": arguments.sync, "message_bytes": size, "ratio": ratio, **times, "rates": rows}))
    return 0 if best["redis", "through"] >= AIM_PER_S and idle.p99 <= AIM_P99_MS else 1


def kinds(rates: Sequence[Rate]) -> set[tuple[str, str]]:
    return {(row.bus, row.measured) for row in rates}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3, help="the buses by turns")
    parser.add_argument("--probes", type=int, default=500, help="messages for the idle latency")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--sync", choices=get_args(Sync), default="everysec", help="appendfsync of the server")
    parser.add_argument("--consume", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.consume:
        asyncio.run(consume(arguments.consume))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        server = Valkey(Path(folder) / "valkey", arguments.sync)
        server.start()
        try:
            return asyncio.run(run(arguments, server, Path(folder)))
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
