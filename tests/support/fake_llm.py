"""A real `quickcomm dev fake-llm` in its own process, ended by its own handle."""

import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import msgspec
from tests.support.server import command

STOP_S = 20.0
EVENTUALLY_S = 30.0


class FakeLlm(msgspec.Struct, frozen=True, kw_only=True):
    """Where it listens: `url` ends in /v1, as an OpenAI client wants it."""

    url: str
    control: str
    model: str
    process: Any

    async def change(self, **behaviour: object) -> dict[str, Any]:
        """Change how it behaves; the answer says how it does and what it did so far."""
        async with aiohttp.ClientSession() as http, http.post(self.control, json=behaviour) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
            return answer

    async def until(self, what: str, holds: Callable[[int], bool]) -> None:
        """Ask for a count again and again until it is as it should become."""
        async with asyncio.timeout(EVENTUALLY_S):
            while not holds((await self.counts()).get(what, 0)):
                pass

    async def counts(self) -> dict[str, int]:
        async with aiohttp.ClientSession() as http, http.get(self.control) as response:
            counts: dict[str, int] = (await response.json())["counts"]
            return counts


@contextmanager
def fake_llm(*options: str) -> Iterator[FakeLlm]:
    """Start one on a free port; interrupt it at the end, as Ctrl-C does."""
    process = subprocess.Popen(
        [command(), "dev", "fake-llm", "--port", "0", "--json", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"fake-llm ended with {process.wait(STOP_S)}"
        said = msgspec.json.decode(line, type=dict[str, str])
        yield FakeLlm(url=said["url"], control=said["control"], model=said["model"], process=process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
