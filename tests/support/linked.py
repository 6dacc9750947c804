"""An instance that hears, and a dashboard's links to it, over a real socket: what goes over the direct link."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from quickcomm.audio.module import DashboardLink
from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.link import Committed, InstanceStatus
from quickcomm.contracts.timing import Latency
from quickcomm.dashboard.adapters.links import Links
from quickcomm.kernel.discovery import DirectoryRegistry, Instance
from quickcomm.kernel.http import UnauthorizedError, create_app

Routes = list[web.RouteDef]
WITHIN_S = 20.0


class Word:
    """Implements `Trust` with one word that all know."""

    def __init__(self, word: str = "friend") -> None:
        self.word = word

    def headers(self, audience: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.word}:{audience}"}

    def require(self, request: web.Request, *callers: str) -> str:
        if request.headers.get("Authorization") not in {"Bearer friend:core", "Bearer friend:intelligence"}:
            raise UnauthorizedError("Who are you?")
        return callers[0] if callers else "dashboard"


class Everything:
    """Implements `Told`: what has come, to be waited for."""

    def __init__(self) -> None:
        self.captions: asyncio.Queue[Caption] = asyncio.Queue()
        self.late: asyncio.Queue[Behind] = asyncio.Queue()
        self.finals: asyncio.Queue[Committed] = asyncio.Queue()
        self.statuses: asyncio.Queue[tuple[str, InstanceStatus]] = asyncio.Queue()
        self.losses: asyncio.Queue[str] = asyncio.Queue()

    def caption(self, caption: Caption) -> None:
        self.captions.put_nowait(caption)

    def behind(self, behind: Behind) -> None:
        self.late.put_nowait(behind)

    def committed(self, committed: Committed) -> None:
        self.finals.put_nowait(committed)

    def status(self, instance: Instance, status: InstanceStatus) -> None:
        self.statuses.put_nowait((instance.name, status))

    def lost(self, instance: Instance) -> None:
        self.losses.put_nowait(instance.name)


class Hearing:
    """The instance's side: its link, and the receipts that came."""

    def __init__(self) -> None:
        self.trust = Word()
        self.receipts: asyncio.Queue[tuple[str, str, str, Latency]] = asyncio.Queue()
        self.sessions = 1
        self.withdrawn = asyncio.Event()
        self.link = DashboardLink(
            self._admit,
            lambda: InstanceStatus(sessions=self.sessions),
            lambda *receipt: self.receipts.put_nowait(receipt),
        )

    def _admit(self, request: web.Request) -> Callable[[], Awaitable[None]]:
        self.trust.require(request, "dashboard")

        async def ended() -> None:
            await self.withdrawn.wait()

        return ended


@asynccontextmanager
async def served(routes: Routes, registry: DirectoryRegistry, folder: Path, name: str = "core-1") -> AsyncIterator[str]:
    """Registered, at a Unix socket; its path."""
    socket = str(folder / f"{name}.sock")
    runner = web.AppRunner(create_app(routes, Word()), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, socket).start()
    registry.put(Instance(module="core", name=name, pid=os.getpid(), version="1", socket=socket))
    try:
        yield socket
    finally:
        registry.withdraw(name)
        await runner.cleanup()


@asynccontextmanager
async def linked(registry: DirectoryRegistry, told: Everything, word: str = "friend") -> AsyncIterator[Links]:
    links = Links(registry, Word(word), frozenset({"core"}))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(links.run(told))
        try:
            yield links
        finally:
            task.cancel()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)
