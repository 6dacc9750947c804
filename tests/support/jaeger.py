"""A real Jaeger in its own process, in memory, on ports of its own; skipped plainly where there is none."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from tests.support.ports import free_port

Json = dict[str, Any]
PATIENCE_S: Final = 60.0
_PORTS: Final = (
    "collector.grpc-server",
    "collector.http-server",
    "collector.otlp.grpc",
    "collector.otlp.http",
    "query.grpc-server",
    "query.http-server",
    "admin.http",
)


def jaeger_binary() -> str:
    """From `make jaeger`, from the path, or as JAEGER_BINARY says."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = sorted(cache.glob("quickcomm/jaeger-*/jaeger"))
    found = os.environ.get("JAEGER_BINARY") or shutil.which("jaeger-all-in-one") or (str(built[-1]) if built else None)
    if found is None:
        pytest.skip("There is no Jaeger: build it with `make jaeger` (needs Go), or name it in JAEGER_BINARY.")
    return found


class Jaeger:
    def __init__(self, otlp_url: str, query_url: str, http: aiohttp.ClientSession) -> None:
        self.otlp_url = otlp_url
        self.query_url = query_url
        self._http = http

    async def ask(self, path: str, **query: str) -> Json | None:
        """What its query API says; None while it does not know."""
        try:
            async with self._http.get(self.query_url + path, params=query) as response:
                answer: Json = await response.json()
                return answer if response.status == 200 else None
        except aiohttp.ClientError:
            return None

    async def until(self, path: str, holds: Callable[[Json], bool], **query: str) -> Json:
        answer = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (answer := await self.ask(path, **query)) is None or not holds(answer):  # noqa: ASYNC110 - only Jaeger knows
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"Jaeger does not say what it should of {path}: {str(answer)[:2000]}") from None
        return answer


@asynccontextmanager
async def jaeger(binary: str, log: Path) -> AsyncGenerator[Jaeger]:
    at = {name: f"127.0.0.1:{free_port()}" for name in _PORTS}
    flags = [f"--{name}.host-port={address}" for name, address in at.items()]
    with log.open("wb") as out:
        process = subprocess.Popen([binary, *flags], stdin=subprocess.DEVNULL, stdout=out, stderr=out)  # noqa: ASYNC220
    try:
        async with aiohttp.ClientSession() as http:
            found = Jaeger(f"http://{at['collector.otlp.http']}", f"http://{at['query.http-server']}", http)
            await found.until("/api/services", lambda _: True)
            yield found
    finally:
        process.terminate()
        process.wait(30)
