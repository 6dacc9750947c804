"""The store's memory on a squelched site, in generated time: open conversations with short talks, for a day and longer.

`python -m benchmarks.soak [--channels 1000] [--talks 200] [--every 432]`. The real session store and bus on a Valkey of
their own, with the groups of a whole site, whose consumers are thought away; no sound and no engine. Each conversation
stays open; now and then a connection breaks and comes back. A row is the peak of its part of the run; it must not grow
after the first.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.hearing import TOKEN, request
from tests.support.valkey import Valkey

from quickcomm.audio.adapters.redis_sessions import RedisSessions
from quickcomm.audio.model.checkpoint import Checkpoint, FrontEndState
from quickcomm.audio.ports import Progress, Stored
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged, ConversationState, Ledger
from quickcomm.contracts.identity import utterance_id
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed, Word
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.messaging.bus.redis import RedisBus, parse_info
from quickcomm.kernel.messaging.bus.redis_link import Link, Script
from quickcomm.kernel.messaging.bus.redis_names import Names

RATE: Final = 16_000
AT_ONCE: Final = 16
ROWS: Final = 10
GROUPS: Final = (
    (TRANSCRIPTS, "intelligence"),
    (TRANSCRIPTS, "dashboard"),
    (INSIGHTS, "audio"),
    (INSIGHTS, "dashboard"),
    (CONVERSATIONS, "dashboard"),
    (CONVERSATIONS, "summaries"),
)
_SIZES: Final = Script("""
local sum = 0
for _, key in ipairs(redis.call('KEYS', '*')) do sum = sum + (redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0) or 0) end
return sum
""")
SAID: Final = "Housekeeping, could somebody bring two extra bath towels up to room four twelve please"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The peaks of a part of the run. `keys_mb`: of all keys together; `used_mb`: of the server as a whole."""

    hours: float
    talks: int
    keys_mb: float
    used_mb: float
    keys: int
    messages: int


class Channel:
    """One squelched radio: a conversation that stays open."""

    def __init__(self, stores: Sequence[RedisSessions], bus: RedisBus, clock: FakeClock, number: int) -> None:
        self.store = stores[number % len(stores)]
        self._bus = bus
        self._clock = clock
        self._offset = 0
        self._step = 0
        self.name = f"channel-{number}"

    async def open(self) -> None:
        self._stored = await self.store.open(request(self.name), TOKEN)
        self._step = 0

    async def talk(self, *, breaks: bool) -> None:
        """Say something; store what a server would, and let its insights come. `breaks`: the connection, afterwards."""
        start, self._offset = self._offset + RATE, self._offset + 10 * RATE
        message = _utterance(self._stored, start, self._clock.now_ns())
        await self.store.publish(self.progress(), message)
        found = _insights(message)
        await self._bus.publish(INSIGHTS, self.name, b"x" * 600)
        await self.store.add_insights(found)
        if breaks:
            await self.store.change_state(self.progress(), _change(self._stored, "interrupted"))
            await self.open()

    def progress(self) -> Progress:
        self._step += 1
        front_end = FrontEndState(noise_floor=0.1, hang=0, vad=bytes(1_024), context=bytes(128), history=bytes(256))
        return Progress(
            site=self._stored.site,
            conversation_id=self.name,
            epoch=self._stored.epoch,
            step=self._step,
            checkpoints=(Checkpoint(offset=self._offset, front_end=front_end),),
            ledgers=(Ledger(received=self._offset, silence=self._offset),),
        )


def _utterance(stored: Stored, start: int, now_ns: int) -> UtteranceTranscribed:
    words = SAID.split()
    step = 4 * RATE // len(words)
    return UtteranceTranscribed(
        site=stored.site,
        conversation_id=stored.conversation_id,
        utterance_id=utterance_id(stored.conversation_id, 0, start),
        channel=stored.channel,
        speaker=0,
        seq=0,
        start_offset=start,
        end_offset=start + 4 * RATE,
        sample_rate=RATE,
        text=SAID,
        words=tuple(
            Word(text=word, start_offset=start + i * step, end_offset=start + (i + 1) * step, confidence=0.9)
            for i, word in enumerate(words)
        ),
        confidence=0.9,
        stt_model="none",
        spoken_at_ns=now_ns,
        speech_ended_ns=now_ns,
        published_ns=now_ns,
        latency=Latency(),
    )


def _insights(message: UtteranceTranscribed) -> InsightsFound:
    insight = Insight(
        index=0,
        revision=1,
        intent="request_item",
        department="housekeeping",
        urgency="normal",
        rooms=("412",),
        summary="Bring towels to 412",
        confidence=0.9,
        model="none",
    )
    return InsightsFound(
        site=message.site,
        conversation_id=message.conversation_id,
        utterance_id=message.utterance_id,
        revision=1,
        insights=(insight,),
        speech_ended_ns=message.speech_ended_ns,
        published_ns=message.published_ns,
        latency=Latency(),
    )


def _change(stored: Stored, state: ConversationState) -> ConversationChanged:
    return ConversationChanged(
        site=stored.site,
        conversation_id=stored.conversation_id,
        channel=stored.channel,
        state=state,
        sample_rate=RATE,
        speakers=1,
        ledgers=(Ledger(),),
        at_ns=1,
    )


class Site:
    """Two processes of audio on one store, and everybody who reads the bus."""

    def __init__(self, url: str, channels: int) -> None:
        self.clock = FakeClock(pauses=1.0)
        self.stores = [RedisSessions(url, self.clock, owner=f"audio-{number}") for number in (1, 2)]
        self.bus = RedisBus(url, self.clock)
        self.link = Link(url)
        self.channels = [Channel(self.stores, self.bus, self.clock, number) for number in range(channels)]
        self._keep = frozenset(("main", channel.name) for channel in self.channels)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            for store in self.stores:
                await store.connect()
            for stream, group in GROUPS:
                await self.bus.register(stream, group)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(store.listen(lambda *_: None)) for store in self.stores]
                yield
                for task in running:
                    task.cancel()
        finally:
            for store in self.stores:
                await store.aclose()
            await self.bus.aclose()
            await self.link.aclose()

    async def open(self) -> None:
        await self._all(channel.open() for channel in self.channels)

    async def round(self, number: int, every_s: float, dice: random.Random) -> Row:
        """Let each channel talk once, and look at the store when all is handled."""
        self.clock.advance(every_s)
        await self._all(channel.talk(breaks=dice.random() < 0.05) for channel in self.channels)
        now = self.clock.now_ns()
        for store in self.stores:
            assert not await store.save([each.progress() for each in self.channels if each.store is store])
            await store.expire(now - 300 * 10**9, now, self._keep)
            await store.purge(now - 90 * 86_400 * 10**9)
        await self._handle()
        used = int(parse_info(await self.link.call("INFO", "memory"))["used_memory"])
        names = Names()
        parts = [part for stream in (TRANSCRIPTS, INSIGHTS, CONVERSATIONS) for part in names.parts(stream)]
        return Row(
            hours=round(number * every_s / 3_600, 1),
            talks=number * len(self.channels),
            keys_mb=round(await self.link.run(_SIZES, ()) / 1e6, 3),
            used_mb=round(used / 1e6, 1),
            keys=await self.link.call("DBSIZE"),
            messages=sum([await self.link.call("XLEN", part) for part in parts]),
        )

    async def _handle(self) -> None:
        """Count all as handled: consumers take as long as the rest of the soak, and keep nothing."""
        for stream, group in GROUPS:
            for part in Names().parts(stream):
                await self.link.call("XGROUP", "SETID", part, group, "$")
        await self.bus.trim()

    async def _all(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        free = asyncio.Semaphore(AT_ONCE)

        async def one(each: Coroutine[Any, Any, None]) -> None:
            async with free:
                await each

        await asyncio.gather(*(one(each) for each in work))


async def measure(url: str, channels: int, talks: int, every_s: float = 432.0, rows: int = ROWS) -> list[Row]:
    """Let every channel talk so often; the peaks of each part of the run."""
    site, dice = Site(url, channels), random.Random(1)  # noqa: S311 - no secret
    async with site.running():
        await site.open()
        seen = [await site.round(number, every_s, dice) for number in range(1, talks + 1)]
    size = -(-talks // rows)
    return [_peak(seen[start : start + size]) for start in range(0, talks, size)]


def _peak(rows: Sequence[Row]) -> Row:
    return Row(
        hours=rows[-1].hours,
        talks=rows[-1].talks,
        keys_mb=max(row.keys_mb for row in rows),
        used_mb=max(row.used_mb for row in rows),
        keys=max(row.keys for row in rows),
        messages=max(row.messages for row in rows),
    )


def growth(rows: Sequence[Row]) -> float:
    """Return how much more the store uses at last than in the second part, as a share: logs fill in the first one."""
    return max(row.keys_mb for row in rows[2:]) / rows[1].keys_mb - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=1_000)
    parser.add_argument("--talks", type=int, default=200)
    parser.add_argument("--every", type=float, default=432.0, help="seconds of generated time between two talks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Valkey(Path(folder), "no")
        server.start()
        try:
            rows = asyncio.run(measure(server.url, options.channels, options.talks, options.every))
        finally:
            server.stop()
    print(f"{'hours':>8}{'talks':>10}{'keys MB':>10}{'used MB':>10}{'keys':>8}{'messages':>10}")
    for row in rows:
        print(f"{row.hours:8.1f}{row.talks:10,}{row.keys_mb:10.1f}{row.used_mb:10.1f}{row.keys:8,}{row.messages:10,}")
    print(json.dumps({"growth": round(growth(rows), 3), "rows": [asdict(row) for row in rows]}))
    return 0 if growth(rows) < 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
