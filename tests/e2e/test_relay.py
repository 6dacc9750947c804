"""Clients behind the session relay talk while audio moves, restarts and dies, and none of them notices."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import numpy as np
import pytest
from tests.e2e.conftest import NewSite
from tests.e2e.test_audio_moves import BLOCK, Line, assert_whole, until_has
from tests.support.resuming import stream
from tests.support.routing import routing
from tests.support.server import EVENTUALLY_S, Json, quickcomm
from tests.support.site import Site
from tests.support.talk import RATE, Pcm, Talk, at_rate
from tests.support.twilio import CONNECTED, TOKEN, Call, say
from tests.support.twilio import connected as calling
from tests.support.wire import Wire, connected, new_id, spans, texts

from quickcomm.contracts.routes import MONOLITH, SERVICE

ROUNDS: Final = 5
LINES: Final = 2
"""A native client and a call."""
PHONE_RATE: Final = 8_000


async def in_time(count: int, each_s: float, *, paced: bool) -> AsyncIterator[int]:
    """Count, and wait after each number where it shall be as in life."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(count):
        yield number
        if paced:
            await asyncio.sleep(max(0.0, began + (number + 1) * each_s - loop.time()))


async def pushed(url: str, key: str, pcm: bytes, *, paced: bool = False) -> Wire:
    """Push sound as a program does that cannot resume; return all that it heard over its only connection."""
    size = 2 * BLOCK
    async with connected(url, key, new_id(), resume="no") as wire:
        await wire.until("ready")

        async def push() -> None:
            async for number in in_time(-(-len(pcm) // size), BLOCK / RATE, paced=paced):
                await wire.socket.send_bytes(pcm[number * size : (number + 1) * size])
            await wire.say(type="end")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(push())
            await wire.until("ended")
            assert await wire.until_closed() == 1000
        return wire


async def called(site: Site, call: Call, pcm: Pcm, *, paced: bool = False) -> list[tuple[int, int, str]]:
    """Make a call; return its utterances, with start and end."""
    start, messages = call.start(), list(call.sound(pcm))
    async with calling(site.url) as socket:
        await say(socket, CONNECTED, start)
        async for number in in_time(len(messages), 0.02, paced=paced):
            await say(socket, messages[number])
        await say(socket, call.stop())
        assert (await socket.receive(EVENTUALLY_S)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        assert socket.close_code == 1000
    conversation = f"{call.call}.{call.stream}"

    def balanced(body: Json) -> bool:
        [ledger] = body["ledgers"] or [{}]
        return body["state"] == "ended" and (ledger["received"], ledger["gap"]) == (len(pcm), 0)

    await site.until(f"/v1/conversations/{conversation}", balanced)
    body = await site.until(f"/v1/utterances?conversation={conversation}&limit=200", lambda body: bool(body["items"]))
    return sorted((each["start_offset"], each["end_offset"], each["text"]) for each in body["items"])


async def command(site: Site, *arguments: str) -> None:
    await asyncio.to_thread(quickcomm, *arguments, "--data-dir", str(site.data_dir), timeout=240)


async def started(new_site: NewSite, **settings: str) -> tuple[Site, str]:
    """Start a site with both sides of audio, and no relay yet; return it with a key."""
    site = new_site("--deployment", "monolith", **settings)
    await asyncio.to_thread(site.start)
    await command(site, "scale", "audio=1")
    return site, await asyncio.to_thread(site.key)


async def relayed(site: Site) -> int:
    """How many sockets the relay holds."""
    rows = await asyncio.to_thread(site.status)
    return sum(row.get("sockets", 0) for row in rows if row["module"] == "relay")


async def kill(site: Site, module: str) -> None:
    os.kill((await asyncio.to_thread(site.process, module)).pid, signal.SIGKILL)


@pytest.mark.long
async def test_audio_moves_restarts_and_dies_and_no_socket_is_closed(new_site: NewSite, talk: Talk) -> None:
    site, key = await started(new_site, QUICKCOMM_AUDIO_TWILIO_AUTH_TOKEN=TOKEN)
    pcm, phone = talk.wire * ROUNDS, np.tile(at_rate(talk.pcm, PHONE_RATE), ROUNDS)
    undisturbed = await pushed(site.url, key, pcm)
    call = await called(site, Call(stream="MZ-undisturbed"), phone)
    await command(site, "scale", "relay=1")
    async with routing(site) as routes:
        lines = (
            asyncio.create_task(pushed(site.url, key, pcm, paced=True)),
            asyncio.create_task(called(site, Call(stream="MZ-moved"), phone, paced=True)),
        )
        await until_has(site, MONOLITH, LINES)
        assert await relayed(site) == LINES
        await routes.put("audio", 10_000)
        await until_has(site, SERVICE, LINES)
        await kill(site, "audio")
        await until_has(site, SERVICE, 0)
        await until_has(site, SERVICE, LINES)
        await command(site, "restart", "audio")
        await until_has(site, SERVICE, LINES)
        await routes.put("audio", 0)
        await until_has(site, MONOLITH, LINES)
        assert not any(line.done() for line in lines)
        heard, moved = await lines[0], await lines[1]
    assert [event["seq"] for event in heard.durable] == list(range(1, heard.last_seq + 1))
    assert heard.of("reconnect") == []
    assert spans(heard.heard) == spans(undisturbed.heard)
    assert texts(heard.heard) == texts(undisturbed.heard)
    assert moved == call


@pytest.mark.long  # with an owner of its own: tests/contract/test_relay.py
async def test_when_the_relay_dies_or_restarts_who_can_resume_loses_nothing(new_site: NewSite, talk: Talk) -> None:
    site, key = await started(new_site, QUICKCOMM_RELAY_PROCESSES="1")
    undisturbed = await stream(site.url, key, talk.wire * 3)
    line = Line(site, key, talk)
    await line.until(1)
    await command(site, "restart", "relay")
    await line.until(2)
    async with connected(site.url, key, new_id(), resume="no") as wire:
        await wire.until("ready")
        assert await relayed(site) == LINES
        await wire.send(talk.wire, 2 * BLOCK)
        acked = await wire.until_acked(RATE)
        await kill(site, "relay")
        assert await wire.until_closed() == 1006
    await line.until(3)
    await assert_whole(site, [await line.heard], undisturbed)
    path = f"/v1/conversations/{wire.conversation_id}"
    await site.until(path, lambda body: body["ledgers"][0]["received"] >= acked)
