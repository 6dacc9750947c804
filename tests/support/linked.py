"""Processes of a site for tests: registered, at Unix sockets, with one word by which they know each other."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from quickcomm.kernel.discovery import DirectoryRegistry, Instance
from quickcomm.kernel.http import UnauthorizedError, create_app

Routes = list[web.RouteDef]
WITHIN_S = 20.0


class Word:
    """Implements `Trust` with one word that all know."""

    def __init__(self, word: str = "friend") -> None:
        self.word = word
        self.end = asyncio.Event()
        """Set: no word holds any more."""

    def headers(self, audience: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.word}:{audience}"}

    def require(self, request: web.Request, *callers: str) -> str:
        scheme, _, said = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or said.partition(":")[0] != "friend":
            raise UnauthorizedError("Who are you?")
        return callers[0] if callers and "dashboard" not in callers else "dashboard"

    async def withdrawn(self, request: web.Request) -> None:
        del request
        await self.end.wait()


@asynccontextmanager
async def served(
    routes: Routes,
    registry: DirectoryRegistry,
    folder: Path,
    name: str = "core-1",
    module: str = "core",
    modules: tuple[str, ...] = (),
) -> AsyncIterator[str]:
    """Registered, at a Unix socket; its path."""
    socket = str(folder / f"{name}.sock")
    runner = web.AppRunner(create_app(routes, Word()), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, socket).start()
    registry.put(Instance(module=module, name=name, pid=os.getpid(), version="1", socket=socket, modules=modules))
    try:
        yield socket
    finally:
        registry.withdraw(name)
        await runner.cleanup()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)
