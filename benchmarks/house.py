"""Intelligence and dashboard over one real database, fed with transcripts; and a fake model in a process of its own."""

import asyncio
import itertools
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from platformdirs import user_cache_path

from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.link import Receipt
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.dashboard.module import Dashboard
from quickcomm.intelligence.module import (
    Intelligence,
    IntelligenceSettings,
    LlmSettings,
    build_classifier,
    build_model,
)
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.keys import Authenticator, KeySettings
from quickcomm.kernel.keys.sql import SqlKeys
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.bus import Delivery
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.messaging.live import Peer
from quickcomm.kernel.site_pack import load_pack, load_phrases
from quickcomm.kernel.storage import Database

CONVERSATIONS: Final = 40
RATE: Final = 16_000
_NUMBER: Final = re.compile(r"\d{2,4}")


class FakeLlm:
    """`quickcomm dev fake-llm`, and the knobs of it."""

    def __init__(self, url: str, control: str, client: aiohttp.ClientSession) -> None:
        self.url = url
        self._control = control
        self._client = client

    async def be(self, **behaviour: object) -> dict[str, Any]:
        """Behave so from the next request on; how it behaves and what it did so far."""
        async with self._client.post(self._control, data=json.dumps(behaviour)) as answer:
            answer.raise_for_status()
            told: dict[str, Any] = await answer.json()
            return told


@asynccontextmanager
async def fake_llm(**options: object) -> AsyncIterator[FakeLlm]:
    command = [sys.executable, "-m", "quickcomm.cli.main", "dev", "fake-llm", "--port", "0", "--json"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        told = json.loads(await process.stdout.readline())
        async with aiohttp.ClientSession() as client:
            yield FakeLlm(told["url"], told["control"], client)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An utterance's insights as they came out of the pipeline."""

    revision: int
    degraded: bool
    source: str
    seconds: float
    """From the publication of its transcript."""
    at: float
    insights: InsightsFound


@dataclass(slots=True)
class House:
    """`found`: every revision of every utterance; `carded`: seconds from the end of speech to the pushed card."""

    database: Database
    bus: SqlBus
    intelligence: Intelligence
    said: dict[str, float] = field(default_factory=dict)
    found: dict[str, list[Found]] = field(default_factory=dict)
    carded: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When, and how many seconds."""
    _texts: Iterator[str] = field(default_factory=lambda: texts(1))
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    async def say(self, text: str | None = None, *, alone: bool = False) -> str:
        """Publish a transcript; its utterance id. `alone`: on a channel of its own, so that nothing goes before it."""
        number = next(self._numbers)
        conversation = f"bench-{number % CONVERSATIONS}"
        now = time.time_ns()
        message = UtteranceTranscribed(
            site="main",
            conversation_id=conversation,
            utterance_id=f"{conversation}:0:{number * RATE}",
            channel=f"alone-{number}" if alone else f"channel-{number % CONVERSATIONS}",
            speaker=0,
            seq=number + 1,
            start_offset=number * RATE,
            end_offset=(number + 1) * RATE,
            sample_rate=RATE,
            text=text or next(self._texts),
            words=(),
            confidence=0.9,
            stt_model="none",
            spoken_at_ns=now - 1_000_000_000,
            speech_ended_ns=now,
            published_ns=now,
            latency=Latency(endpoint=0.0, stt=0.0, publish=0.0),
        )
        self.said[message.utterance_id] = time.monotonic()
        await self.bus.publish(TRANSCRIPTS, conversation, msgspec.json.encode(message))
        return message.utterance_id

    async def talk(self, per_second: float, seconds: float) -> list[str]:
        """So many different utterances, evenly spaced."""
        begin, said = time.monotonic(), []
        for index in range(round(per_second * seconds)):
            await asyncio.sleep(max(0.0, begin + index / per_second - time.monotonic()))
            said.append(await self.say())
        return said

    async def answered(self, utterances: list[str], within_s: float = 60.0) -> None:
        async with asyncio.timeout(within_s):
            while not all(each in self.found for each in utterances):  # noqa: ASYNC110 - polling keeps the load plain
                await asyncio.sleep(0.05)

    async def backlog(self) -> int:
        return (await self.bus.backlog()).get(f"{TRANSCRIPTS}/intelligence", 0)

    async def hear(self, batch: list[Delivery]) -> None:
        now = time.monotonic()
        for delivery in batch:
            message = msgspec.json.decode(delivery.payload, type=InsightsFound)
            first = message.insights[0]
            self.found.setdefault(message.utterance_id, []).append(
                Found(
                    revision=message.revision,
                    degraded=any(insight.degraded for insight in message.insights),
                    source=first.source,
                    seconds=now - self.said[message.utterance_id],
                    at=now,
                    insights=message,
                )
            )

    def card(self, receipt: Receipt, _peer: Peer) -> None:
        self.carded[receipt.utterance_id] = (time.monotonic(), (receipt.latency.total or 0.0) / 1000)


@asynccontextmanager
async def house(url: str | None, *, page: bool = True, **settings: object) -> AsyncIterator[House]:
    """`url`: a language model's address, or None for the local classifier alone. `page`: with a dashboard."""
    pack, clock = load_pack(), SystemClock()
    classifier = await asyncio.to_thread(build_classifier, pack, user_cache_path("quickcomm"))
    llm = msgspec.convert({"url": url or "", "model": "fake-llm", **settings}, LlmSettings)
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "site.sqlite")
        database.open()
        bus, keys = SqlBus(database, clock), SqlKeys(database, clock)
        model = await asyncio.to_thread(build_model, llm)
        intelligence = Intelligence(
            database=database,
            bus=bus,
            clock=clock,
            pack=pack,
            classifier=classifier,
            model=model,
            settings=IntelligenceSettings(llm=llm),
        )
        here = House(database, bus, intelligence)
        auth = Authenticator(keys, clock, KeySettings())
        messaging = Messaging.over(bus, clock)
        messaging.live.subscribe([(Receipt, here.card)])
        dashboard = Dashboard(database=database, messaging=messaging, clock=clock, keys=auth)
        for module in (bus, keys, intelligence, dashboard):
            module.migrate()
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [
                    tasks.create_task(intelligence.run()),
                    *([tasks.create_task(dashboard.run())] if page else []),
                    tasks.create_task(bus.subscribe(INSIGHTS, "bench", here.hear)),  # type: ignore[arg-type]
                ]
                yield here
                intelligence.drain()
                for each in work:
                    each.cancel()
        finally:
            await dashboard.aclose()
            await intelligence.aclose()
            await database.aclose()


def texts(seed: int) -> Iterator[str]:
    """What people say, with other numbers each time: no two alike."""
    chance = random.Random(seed)  # noqa: S311 - made to be repeated
    phrases = [phrase.text for phrase in load_phrases(load_pack()) if _NUMBER.search(phrase.text)]
    seen = set()
    while True:
        text = _NUMBER.sub(lambda match: str(chance.randrange(101, 10 ** len(match[0]) + 101)), chance.choice(phrases))
        if text not in seen:
            seen.add(text)
            yield text
