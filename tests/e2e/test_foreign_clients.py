"""Clients of other libraries, as they are by default: what they send is taken, and their pings are answered."""

import asyncio
import base64
import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from playwright.async_api import async_playwright
from tests.e2e.conftest import NewServer
from tests.support.deployment import DEPLOYMENT
from tests.support.page import chromium, launched
from tests.support.server import Server
from tests.support.talk import RATE, Talk, at_rate, g711
from tests.support.wire import converse, new_id, texts
from websockets.asyncio.client import ClientConnection, connect

WITHIN_S: Final = 30
BROWSER: Final = """
async ([url, sound]) => {
    const socket = new WebSocket(url);
    const bytes = Uint8Array.from(atob(sound), each => each.charCodeAt(0));
    const events = [];
    return await new Promise(done => {
        socket.onmessage = message => {
            const event = JSON.parse(message.data);
            events.push(event);
            if (event.type !== "ready") return;
            for (let at = 0; at < bytes.length; at += 32000) socket.send(bytes.slice(at, at + 32000));
            socket.send(JSON.stringify({type: "end"}));
        };
        socket.onclose = close => done([close.code, events]);
    });
}
"""


def address(server: Server, **query: object) -> str:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    return f"{server.url.replace('http', 'ws', 1)}/v1/conversations/{new_id()}/audio?key={server.key()}&{asked}"


async def heard(socket: ClientConnection) -> list[dict[str, object]]:
    return [json.loads(message) async for message in socket]


async def test_websockets_of_python(server: Server, talk: Talk) -> None:
    plain = await converse(server.url, server.key(), talk.wire)
    async with connect(address(server)) as socket, asyncio.timeout(WITHIN_S):
        hearing = asyncio.ensure_future(heard(socket))
        await socket.send([talk.wire[:1_001], talk.wire[1_001:32_000]])  # one message in fragments
        for at in range(32_000, len(talk.wire), 3_200):
            await socket.send(talk.wire[at : at + 3_200])
        await socket.send('{"type":"end"}')
        events = await hearing
    assert texts(events) == texts(plain.heard)
    assert socket.close_code == 1000


async def test_a_browser(server: Server, talk: Talk) -> None:
    executable = chromium()
    if executable is None:
        pytest.skip("needs a browser: no Chromium or Chrome is on the PATH")
    plain = await converse(server.url, server.key(), talk.wire)
    async with async_playwright() as playwright:
        browser = await launched(playwright, executable)
        page = await browser.new_page()
        code, events = await page.evaluate(BROWSER, [address(server), base64.b64encode(talk.wire).decode()])
        await browser.close()
    assert code == 1000
    assert texts(events) == texts(plain.heard)


async def test_a_pipe_that_sends_what_it_reads(server: Server, talk: Talk) -> None:
    """As `ffmpeg -f mulaw - | websocat -b` does, which know nothing of seconds: 64 KiB of µ-law are 8 s."""
    sound = g711(at_rate(talk.pcm, 8_000), "mulaw")
    async with connect(address(server, encoding="mulaw", sample_rate=8_000)) as socket, asyncio.timeout(WITHIN_S):
        hearing = asyncio.ensure_future(heard(socket))
        for at in range(0, len(sound), 65_536):
            await socket.send(sound[at : at + 65_536])
        await socket.send('{"type":"end"}')
        events = await hearing
    assert events[-1]["type"] == "ended"
    assert any(event["type"] == "utterance" and event["text"] for event in events)


@pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("websocat")), reason="needs the programs ffmpeg and websocat"
)
def test_ffmpeg_and_websocat(server: Server, talk: Talk, tmp_path: Path) -> None:
    raw = tmp_path / "talk.raw"
    raw.write_bytes(talk.wire)
    url = address(server, encoding="mulaw", sample_rate=8_000)
    sound = f"ffmpeg -v error -f s16le -ar {RATE} -ac 1 -i {raw} -ar 8000 -ac 1 -f mulaw -"
    line = f"({sound}; sleep 5) | websocat -b --no-close '{url}'"
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=WITHIN_S, check=False)
    events = [json.loads(each) for each in done.stdout.splitlines()]
    assert any(event["type"] == "utterance" and event["text"] for event in events), done.stderr
    assert not [event for event in events if event["type"] == "error"]


@pytest.mark.skipif(DEPLOYMENT != "serve", reason="holds the database of a monolith")
async def test_pings_are_answered_while_the_server_holds_back_and_it_pings_itself(new_server: NewServer) -> None:
    """The database is held, so that nothing can be acked; a recording twice as long as the window is sent."""
    server = new_server(QUICKCOMM_AUDIO_MAX_UNACKED_MS="60000", QUICKCOMM_AUDIO_PING_EVERY_S="0.2")
    database = sqlite3.connect(server.data_dir / "quickcomm.sqlite", isolation_level=None)
    async with connect(address(server), ping_interval=None) as socket, asyncio.timeout(WITHIN_S):
        assert json.loads(await socket.recv())["type"] == "ready"
        with closing(database):
            database.execute("BEGIN IMMEDIATE")
            for _ in range(120):
                await socket.send(bytes(2 * RATE))
            await (await socket.ping())
            database.execute("ROLLBACK")
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address(server), autoping=False) as plain,
        asyncio.timeout(WITHIN_S),
    ):
        while (await plain.receive()).type is not aiohttp.WSMsgType.PING:
            pass
