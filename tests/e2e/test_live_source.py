"""A radio that cannot reach the server for longer than its conversation lives: `ingest -`, as a gateway runs it.

Cut · a leak is said into the radio · another radio says that it is fixed · the conversation expires · the cut is over.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import pytest
from tests.e2e.conftest import NewServer
from tests.support.page import clip
from tests.support.proxy import proxied
from tests.support.server import Json, Server, command
from tests.support.wire import converse

RATE: Final = 16_000
PIECE_S: Final = 0.1
PIECE: Final = bytes(round(2 * RATE * PIECE_S))


class Gateway:
    """A radio that is always on: silence, unless somebody speaks."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.told: list[str] = []
        self._words = b""
        self._said = asyncio.Event()
        self._over = False
        self._heard: asyncio.Queue[Json] = asyncio.Queue()
        self._connected: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def connected(self) -> str:
        """The conversation that it began with, as it tells."""
        return await self._connected

    async def say(self, words: str) -> datetime:
        """Speak now; return when the words were begun."""
        began = datetime.now(UTC)
        self._said.clear()
        self._words = clip(words).tobytes()
        await self._said.wait()
        return began

    async def hears(self, words: str) -> Json:
        """What is printed of the utterance in which these words are."""
        while words not in (report := await self._heard.get())["text"]:
            pass
        return report

    async def finish(self) -> int:
        self._over = True
        return await self.process.wait()

    async def speak(self) -> None:
        assert self.process.stdin is not None
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._over:
            piece, self._words = self._words[: len(PIECE)], self._words[len(PIECE) :]
            if not self._words:
                self._said.set()
            self.process.stdin.write(piece + PIECE[len(piece) :])
            await self.process.stdin.drain()
            due += PIECE_S
            await asyncio.sleep(due - loop.time())
        self.process.stdin.close()

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self._heard.put_nowait(json.loads(line))

    async def note(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.told.append(line.decode())
            _, connected, name = line.decode().partition("connected as ")
            if connected and not self._connected.done():
                self._connected.set_result(name.partition(",")[0])


@asynccontextmanager
async def gateway(url: str, server: Server) -> AsyncGenerator[Gateway]:
    process = await asyncio.create_subprocess_exec(
        *(command(), "ingest", "-", "--url", url, "--channel", "engineering", "--json"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "QUICKCOMM_KEY": server.key()},
    )
    radio = Gateway(process)
    try:
        async with asyncio.timeout(150), asyncio.TaskGroup() as tasks:
            for work in (radio.speak(), radio.listen(), radio.note()):
                tasks.create_task(work)
            yield radio
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def seconds(later: str, earlier: datetime) -> float:
    return (datetime.fromisoformat(later) - earlier).total_seconds()


@pytest.mark.long
async def test_a_radio_that_was_away_goes_on_and_what_it_heard_keeps_its_time(new_server: NewServer) -> None:
    server = new_server(QUICKCOMM_AUDIO_IDLE_LIMIT_S="3")
    async with proxied(server.port) as proxy, gateway(proxy.url, server) as radio:
        before = await radio.connected()
        proxy.cut()
        cut = datetime.now(UTC)
        leak = await radio.say("Water is coming")
        await converse(server.url, server.key(), clip("The leak in 614 is fixed").tobytes(), channel="ladder")
        old = await server.until(f"/v1/conversations/{before}", lambda body: body["state"] == "expired")
        assert 0 <= seconds(old["unreachable_since"], cut) < 2
        back = datetime.now(UTC)
        proxy.mend()
        report = await radio.hears("ceiling")
        assert report["conversation_id"] != before
        assert report["latency_ms"]["total"] > 1_000 * (back - leak).total_seconds() - 6_000
        new = await server.until(f"/v1/conversations/{report['conversation_id']}", lambda body: body["state"] == "live")
        assert (new["continues"], new["unreachable_since"]) == (before, None)
        card = await server.until(f"/v1/utterances/{report['utterance_id']}", lambda body: bool(body["tasks"]))
        assert -0.5 < seconds(card["spoken_at"], leak) < 2
        assert [task["status"] for task in card["tasks"]] == ["done"]
        assert await radio.finish() == 0, radio.told
    told = "".join(radio.told)
    assert "No connection since" in told
    assert f"the server ended {before}" in told
