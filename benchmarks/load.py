"""Load on a real server over real sockets: paced talkers, what they hear back, and when.

Latency of an utterance: from when the message that holds its last sample of speech was sent to when its event came.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec
import numpy as np

from benchmarks.talkers import RATE, Int16

CHUNK_MS: Final = 100
CHUNK: Final = RATE * CHUNK_MS // 1000


@dataclass(slots=True)
class Heard:
    """An utterance as it came back."""

    utterance_id: str
    start: int
    end: int
    text: str
    ended_at: float
    """When its last speech sample was sent."""
    latency_s: float


@dataclass(slots=True)
class Line:
    """One talker's connection and what came of it."""

    name: str
    sound: Int16
    endless: bool = False
    """Say it again and again until stopped."""
    heard: list[Heard] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    acked: int = 0
    ledger: dict[str, int] | None = None
    late_by: float = 0.0
    """How far the generator itself, or back-pressure, fell behind real time at worst."""

    @property
    def sent(self) -> int:
        return len(self.sent_at) * CHUNK

    def note(self, message: dict[str, Any], now: float) -> None:
        match message["type"]:
            case "utterance":
                at = self.sent_at[min(len(self.sent_at) - 1, (message["end_offset"] - 1) // CHUNK)]
                spoken = (message["utterance_id"], message["start_offset"], message["end_offset"], message["text"])
                self.heard.append(Heard(*spoken, at, now - at))
            case "ack":
                self.acked = message["offset"]
            case "ended":
                self.ledger = message["ledger"]
            case "error":
                raise RuntimeError(f"{self.name}: {message}")


async def talk(
    client: aiohttp.ClientSession, url: str, key: str, line: Line, begin: float, stop: asyncio.Event
) -> None:
    """Stream `line` in real time from `begin` on until its sound is over or `stop` is set, then hear the rest."""
    address = f"{url}/v1/conversations/{line.name}/audio?channel={line.name}"
    headers = {"Authorization": f"Bearer {key}"}
    async with client.ws_connect(address, headers=headers, max_msg_size=0, compress=0) as socket:
        await socket.receive_str()

        async def send() -> None:
            data, whole = line.sound.tobytes(), len(line.sound) // CHUNK
            for index in itertools.count() if line.endless else range(whole):
                due = begin + index * CHUNK_MS / 1000
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if stop.is_set():
                    break
                line.sent_at.append(time.monotonic())
                at = index % whole * 2 * CHUNK
                await socket.send_bytes(data[at : at + 2 * CHUNK])
                line.late_by = max(line.late_by, time.monotonic() - due)
            await socket.send_str('{"type":"end"}')

        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(send())
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                line.note(msgspec.json.decode(message.data), time.monotonic())
                if line.ledger is not None:
                    break
            sender.cancel()


async def watch(client: aiohttp.ClientSession, url: str, key: str, cards: dict[str, float]) -> None:
    """A page: when each utterance's card first came."""
    async with client.ws_connect(f"{url}/v1/live", headers={"Authorization": f"Bearer {key}"}, max_msg_size=0) as page:
        await page.send_str('{"type":"watch","channels":[]}')
        async for message in page:
            if message.type is aiohttp.WSMsgType.TEXT and '"type":"card"' in message.data[:20]:
                card = msgspec.json.decode(message.data)["card"]
                cards.setdefault(card["utterance_id"], time.monotonic())


def percentile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else float("nan")
