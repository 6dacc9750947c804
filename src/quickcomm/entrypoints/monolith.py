"""The monolith: all modules in one process, on one port, over one SQLite database."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from quickcomm.contracts.timing import Latency
from quickcomm.dashboard.module import Dashboard, Health, Neighbours
from quickcomm.entrypoints.administration import Administration, Answer
from quickcomm.entrypoints.core import Core, Engines
from quickcomm.entrypoints.data_directory import DataDirectory
from quickcomm.entrypoints.loading import run_on
from quickcomm.entrypoints.moving import check_shape
from quickcomm.entrypoints.page_administration import page_commands
from quickcomm.entrypoints.process import Address, Duty, Process, purge_forever
from quickcomm.entrypoints.settings import Settings

MODULE: Final = "monolith"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The server answers at `url`."""

    url: str
    is_first: bool
    """Nobody can sign in yet but with `admin_key`."""
    admin_key: str | None
    """Made at the first start, where it is shown to a person."""


class Monolith:
    def __init__(self, settings: Settings, directory: DataDirectory, engines: Engines, *, shows_key: bool) -> None:
        """`shows_key`: whoever is told that it is ready is a person, who may see a key."""
        self._settings = settings
        self._shows_key = shows_key
        self._core = core = Core(settings, directory, engines)
        self._dashboard = Dashboard(
            database=core.database,
            bus=core.bus,
            clock=core.clock,
            keys=core.keys,
            settings=settings.dashboard,
            health=self._health,
            on_receipt=self._receipt,
            neighbours=Neighbours(
                prompts=core.intelligence.prompts,
                usage=core.intelligence.usage,
                narrator=core.intelligence.narrate,
                budget=lambda: core.budget,
            ),
        )
        core.hear(self._dashboard.captions)
        address = Address(host=settings.host, port=settings.port, place=settings.instance)
        self._process = Process(MODULE, address, directory)

    async def run(self, ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises `ConfigurationError` where the port cannot be had."""
        core = self._core
        core.open()
        self._dashboard.migrate()

        async def serving() -> None:
            is_first = await self._is_first()
            key = (await core.key_store.create("admin", "first start")).key if is_first and self._shows_key else None
            ready(Ready(url=self._process.url, is_first=is_first, admin_key=key))

        duty = Duty(
            routes=[*core.audio.routes(), *self._dashboard.routes()],
            administration=Administration(
                {"status": lambda _: self._status()}, core.commands(), page_commands(self._dashboard)
            ),
            work={"dashboard": self._dashboard.run, **core.work(), "purge": self._purge_forever},
            ready=serving,
            drain=self._drain,
        )
        try:
            await self._process.run(duty, stop)
        finally:
            core.audio.close()
            await self._dashboard.aclose()
            await core.aclose()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        await self._core.drain()
        await self._dashboard.drain()

    async def _purge_forever(self) -> None:
        async def purge(before_ns: int) -> int:
            await self._dashboard.purge(before_ns)
            return await self._core.purge(before_ns)

        await purge_forever(purge, self._settings.storage.retention_days, self._core.clock)

    async def _is_first(self) -> bool:
        if self._settings.instance.registry:
            return False  # behind an edge, who started both looks after that
        return not any(key.role == "admin" for key in await self._core.key_store.list())

    def _receipt(self, site: str, conversation_id: str, utterance_id: str, latency: Latency) -> None:
        self._core.audio.receipt(site, conversation_id, utterance_id, latency)

    def _health(self) -> Health:
        core = self._core.health()
        return Health(
            status="degraded" if core.alarms else "ok",
            sessions=core.sessions,
            stt_backlog_s=core.stt_backlog_s,
            alarms=core.alarms,
            classifier=core.classifier,
            budget=self._core.budget,
            stages=self._dashboard.stages,
            trace_url=core.trace_url,
        )

    async def _status(self) -> Answer:
        core = self._core.health()
        return [
            self._process.row(healthy=not core.alarms)
            | await self._core.status(core)
            | {"stages": msgspec.to_builtins(self._dashboard.stages), "alarms": msgspec.to_builtins(core.alarms)}
        ]


async def serve(
    settings: Settings, directory: DataDirectory, ready: Callable[[Ready], None], *, shows_key: bool
) -> bool:
    """Run the monolith on a data directory, which the caller owns, until SIGINT or SIGTERM.

    Return False if that came before it had begun.
    """

    async def run(settings: Settings, directory: DataDirectory, engines: Engines, stop: asyncio.Event) -> None:
        check_shape(directory, MODULE)
        await Monolith(settings, directory, engines, shows_key=shows_key).run(ready, stop)

    return await run_on(settings, directory, run)
