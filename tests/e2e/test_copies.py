"""One transmission through two receivers, or on both tracks: one task, and nothing open when it is done."""

import asyncio
import time

import numpy as np
import pytest
from tests.e2e.conftest import NewServer
from tests.support.server import Server
from tests.support.talk import RATE, SHIFT, Pcm, decoded
from tests.support.wire import connected, new_id

TOWELS_S, DONE_S = (1.5, 6.2), (66.3, 71.0)
"""Where somebody asks for towels in 412, and says that they are delivered."""
DELAY = int(0.3 * RATE)


def transmissions() -> Pcm:
    shift = decoded(SHIFT / "housekeeping.flac")
    parts = [shift[round(start * RATE) : round(end * RATE)] for start, end in (TOWELS_S, DONE_S)]
    pause = np.zeros(2 * RATE, np.int16)
    return np.concatenate([pause, parts[0], pause, parts[1], pause])


def quieter(sound: Pcm, decibels: float) -> Pcm:
    return (sound * 10 ** (-decibels / 20)).astype(np.int16)


def hissing(sound: Pcm, decibels: float) -> Pcm:
    """Return the sound with so much noise below its speech."""
    speech = np.sqrt(np.mean(np.square(sound[np.abs(sound) > 300].astype(float))))
    noise = np.random.default_rng(1).normal(0, speech * 10 ** (-decibels / 20), len(sound))
    return np.clip(sound + noise, -32_768, 32_767).astype(np.int16)


async def hear(server: Server, sound: Pcm, *, channel: str, at_ms: int, speakers: int = 1) -> str:
    conversation = new_id("copy")
    async with connected(server.url, server.key(), conversation, channel=channel, channels=speakers) as wire:
        await wire.until("ready")
        await wire.say(type="captured", offset=0, at_ms=at_ms)
        await wire.send(sound.tobytes(), RATE // 5 * speakers)
        await wire.end()
    return conversation


def relations(server: Server, conversation: str) -> list[bool]:
    """Whether each of its utterances is a copy, in the order said."""
    items = server.get(f"/v1/utterances?conversation={conversation}", "read").json()["items"]
    return [card["relates_to"] is not None for card in sorted(items, key=lambda card: card["start_offset"])]


@pytest.mark.parametrize("channel", ["housekeeping", "security"])
async def test_two_receivers_make_one_task(new_server: NewServer, channel: str) -> None:
    server, sound = new_server(), transmissions()
    at_ms = int(time.time() * 1000) - 60_000
    later = np.concatenate([np.zeros(DELAY, np.int16), hissing(quieter(sound, 6), 20)])
    first, second = await asyncio.gather(
        hear(server, sound, channel="housekeeping", at_ms=at_ms), hear(server, later, channel=channel, at_ms=at_ms)
    )
    tasks = (await server.until("/v1/tasks", lambda body: body["items"] and body["items"][0]["status"] == "done"))[
        "items"
    ]
    assert [(task["rooms"], task["status"]) for task in tasks] == [(["412"], "done")]
    assert relations(server, first) == [False, False]
    assert relations(server, second) == [True, True]


async def test_a_voice_on_both_tracks_makes_one_task(new_server: NewServer) -> None:
    server, sound = new_server(), transmissions()
    bleeding = np.concatenate([np.zeros(int(0.04 * RATE), np.int16), quieter(sound, 12)])[: len(sound)]
    both = np.stack([sound, bleeding], axis=1).reshape(-1)
    conversation = await hear(server, both, channel="desk", at_ms=int(time.time() * 1000) - 60_000, speakers=2)
    tasks = (await server.until("/v1/tasks", lambda body: body["items"] and body["items"][0]["status"] == "done"))[
        "items"
    ]
    assert [(task["rooms"], task["status"]) for task in tasks] == [(["412"], "done")]
    assert sorted(relations(server, conversation)) == [False, False, True, True]
