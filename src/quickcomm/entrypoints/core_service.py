"""`core`: audio and intelligence in one process, for a site whose dashboard is a service of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from quickcomm.audio.module import DashboardLink
from quickcomm.contracts.timing import Latency
from quickcomm.dashboard import backfill
from quickcomm.entrypoints.administration import Administration, Answer
from quickcomm.entrypoints.core import Core, Engines
from quickcomm.entrypoints.data_directory import DataDirectory
from quickcomm.entrypoints.loading import run_on
from quickcomm.entrypoints.probes import probes
from quickcomm.entrypoints.process import Address, Duty, Process, purge_forever
from quickcomm.entrypoints.settings import Settings
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.trust import trust_of

NAME: Final = "core"
DASHBOARD: Final = "dashboard"
GROUPS: Final = ("/audio", "/intelligence")
OUTBOX: Final = "outbox"


class CoreService:
    def __init__(self, settings: Settings, directory: DataDirectory, engines: Engines) -> None:
        self._core = core = Core(settings, directory, engines, to_the_page=False)
        self._trust = trust_of(settings.trust)
        self._link = DashboardLink(self._admit_for_long, core.health, self._receipt)
        core.hear(self._link)
        address = Address(host=settings.host, port=settings.port, place=settings.instance)
        self._process = Process(NAME, address, directory)

    def routes(self) -> list[web.AbstractRouteDef]:
        """Those for clients, and those below `/internal` for the dashboard."""
        return [
            *self._core.audio.routes(),
            *self._link.routes(),
            *self._core.intelligence.questions(self._admit),
            *backfill.routes(self._core.database, self._admit),
            *probes(self._may_measure),
        ]

    async def run(self, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain."""
        core = self._core
        core.open()
        backfill.prepare_source(core.database)

        async def serving() -> None:
            ready(self._process.url)

        duty = Duty(
            routes=self.routes(),
            administration=Administration({"status": lambda _: self._status()}, core.commands()),
            work={**core.work(), "link": self._link.run, "purge": self._purge_forever},
            ready=serving,
            drain=self._drain,
            gate=self._trust,
        )
        try:
            await self._process.run(duty, stop)
        finally:
            await core.aclose()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _admit(self, request: web.Request) -> None:
        self._trust.require(request, DASHBOARD)

    def _admit_for_long(self, request: web.Request) -> Callable[[], Awaitable[None]]:
        return partial(self._trust.ended, self._trust.grant(request, DASHBOARD))

    async def _may_measure(self, request: web.Request) -> None:
        if not self._core.settings.dashboard.metrics_open:
            await self._core.keys.require(request, "read")

    async def _purge_forever(self) -> None:
        async def purge(before_ns: int) -> int:
            await backfill.purge_source(self._core.database, before_ns)
            return await self._core.purge(before_ns)

        await purge_forever(purge, self._core.settings.storage.retention_days, self._core.clock)

    def _receipt(self, site: str, conversation_id: str, utterance_id: str, latency: Latency) -> None:
        self._core.audio.receipt(site, conversation_id, utterance_id, latency)

    async def _drain(self) -> None:
        """What waits for the dashboard waits in the store."""
        await self._core.drain(lambda name: name == OUTBOX or name.endswith(GROUPS))
        self._link.close()

    async def _status(self) -> Answer:
        health = self._core.health()
        row = self._process.row(healthy=not health.alarms) | await self._core.status(health)
        return [row | {"alarms": msgspec.to_builtins(health.alarms)}]


async def serve_core(settings: Settings, data_dir: Path, ready: Callable[[str], None]) -> bool:
    """Run until SIGINT or SIGTERM; False if that came before it had begun. Raises `ConfigurationError`."""
    if settings.redis_url is None:
        raise ConfigurationError("core needs a store between it and the dashboard. Start both with: quickcomm up")

    async def run(settings: Settings, directory: DataDirectory, engines: Engines, stop: asyncio.Event) -> None:
        await CoreService(settings, directory, engines).run(ready, stop)

    return await run_on(settings, data_dir, run)
