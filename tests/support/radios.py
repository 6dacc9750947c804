"""Radios that talk without a pause, and a page that looks on: what a fault does to both, and for how long."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from tests.support.server import Server
from tests.support.talk import RATE, Talk
from tests.support.wire import new_id

from quickcomm.client.audio_client import AudioClient, Event
from quickcomm.client.options import StreamOptions
from quickcomm.client.sources import Missing, PcmSource
from quickcomm.contracts.audio_socket import Ack, AudioFormat, Ended, Utterance

STEP_S: Final = 0.1
_STEP: Final = 2 * int(STEP_S * RATE)


class Radio:
    """A live source: it says the talk again and again, at the pace of speech, until it is switched off."""

    def __init__(self, url: str, key: str, talk: Talk) -> None:
        self.conversation_id = new_id()
        self.events: list[tuple[float, Event]] = []
        self._on = True
        self._wire = talk.wire
        options = StreamOptions(url=url, key=key, conversation_id=self.conversation_id)
        self.client = AudioClient(options, PcmSource(AudioFormat(), self._chunks(), live=True))

    async def run(self) -> None:
        """Until it is switched off and everything is heard. Raises what makes a radio give up."""
        async with self.client.stream() as events:
            async for event in events:
                self.events.append((time.monotonic(), event))

    def switch_off(self) -> None:
        self._on = False

    def acked_after(self, moment: float) -> bool:
        return any(at > moment and isinstance(event, Ack) for at, event in self.events)

    def spoke_after(self, moment: float) -> bool:
        return any(at > moment and isinstance(event, Utterance) for at, event in self.events)

    @property
    def utterances(self) -> list[Utterance]:
        return [event for _, event in self.events if isinstance(event, Utterance)]

    @property
    def ended(self) -> Ended:
        [found] = [event for _, event in self.events if isinstance(event, Ended)]
        return found

    async def _chunks(self) -> AsyncIterator[bytes | Missing]:
        began, step = time.monotonic(), 0
        while self._on:
            at = step * _STEP % (len(self._wire) // _STEP * _STEP)
            yield self._wire[at : at + _STEP]
            step += 1
            await asyncio.sleep(max(0.0, began + step * STEP_S - time.monotonic()))


class Onlooker:
    """The page's health, as it was told, with the time of each."""

    def __init__(self) -> None:
        self.told: list[tuple[float, frozenset[str], str]] = []

    async def run(self, server: Server, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while True:
                try:
                    async with session.ws_connect(f"{server.url}/v1/live", max_msg_size=0) as live:
                        async for message in live:
                            self._note(json.loads(message.data))
                except aiohttp.ClientError:
                    await asyncio.sleep(0.2)

    def alarmed(self, code: str, since: float) -> bool:
        return any(at > since and code in codes for at, codes, _ in self.told)

    def calm(self, codes: Iterable[str], since: float) -> bool:
        """The last that was told is newer, and has none of these."""
        return bool(self.told) and self.told[-1][0] > since and not self.told[-1][1] & set(codes)

    def words(self, code: str) -> str:
        return next(text for _, codes, text in reversed(self.told) if code in codes)

    def _note(self, event: dict[str, object]) -> None:
        health = event.get("health", event)
        if not isinstance(health, dict) or "alarms" not in health:
            return
        alarms = health["alarms"] or []
        text = " ".join(alarm["message"] for alarm in alarms)
        self.told.append((time.monotonic(), frozenset(alarm["code"] for alarm in alarms), text))


class Field:
    """Radios on the air and the page that watches."""

    def __init__(self, radios: list[Radio], page: Onlooker) -> None:
        self.radios = radios
        self.page = page

    async def until(self, holds: Callable[[], bool], within_s: float = 60.0) -> float:
        """Seconds until it does."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - others tell it, each in its own way
                await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def until_whole(self, codes: Iterable[str]) -> float:
        """Seconds from now until every radio is acknowledged again and the page has none of these alarms."""
        now = time.monotonic()
        return await self.until(
            lambda: all(radio.acked_after(now) for radio in self.radios) and self.page.calm(codes, now)
        )


@asynccontextmanager
async def on_the_air(server: Server, talk: Talk, count: int = 2) -> AsyncGenerator[Field]:
    """At the end all are switched off, and must hear the end of their conversations."""
    key, look = await asyncio.to_thread(server.key), await asyncio.to_thread(server.key, "read")
    field = Field([Radio(server.url, key, talk) for _ in range(count)], Onlooker())
    async with asyncio.TaskGroup() as tasks:
        page = tasks.create_task(field.page.run(server, look))
        running = [tasks.create_task(radio.run()) for radio in field.radios]
        await field.until(lambda: all(len(radio.utterances) > 0 for radio in field.radios))
        yield field
        for radio in field.radios:
            radio.switch_off()
        await asyncio.gather(*running)
        page.cancel()
