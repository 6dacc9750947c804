"""`dashboard`: the page, REST and live push in a process of its own, with a database of its own.

It reads the streams as it does within the monolith, as the same group. What must be seen at once comes by a direct
link from the instances that hear, and what only they know is asked of them. Needs this module, kernel and contracts.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from quickcomm.contracts.health import Alarm
from quickcomm.dashboard.backfill import BackfillError, backfill
from quickcomm.dashboard.module import Dashboard, Health, Instances
from quickcomm.entrypoints.administration import Administration, Answer, keys_of
from quickcomm.entrypoints.alarms import Since
from quickcomm.entrypoints.dashboard_settings import DashboardServiceSettings
from quickcomm.entrypoints.data_directory import DataDirectory
from quickcomm.entrypoints.disk import disk_alarms
from quickcomm.entrypoints.page_administration import page_commands
from quickcomm.entrypoints.process import Address, Duty, Process, purge_forever, rfc3339, stopped_by_signals
from quickcomm.entrypoints.store_alarms import StoreAlarms
from quickcomm.kernel.bus.redis import RedisBus
from quickcomm.kernel.bus.watch import ServerWatch
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.keys import Authenticator, key_store
from quickcomm.kernel.storage import Database
from quickcomm.kernel.telemetry.setup import start_tracing, stop_tracing
from quickcomm.kernel.trust import trust_of

NAME: Final = "dashboard"
HISTORY_ALARM: Final = "history.lacking"
LACKING: Final = "What the monolith had of earlier times has not come over; it is still in its database."
BEHIND: Final = "Cards are not renewed meanwhile; they come when it is back."

log = structlog.get_logger(__name__)


class DashboardService:
    def __init__(self, settings: DashboardServiceSettings, site: DataDirectory) -> None:
        """`site`: the data directory of the whole site, of which this service has a part."""
        place = settings.instance
        if settings.redis_url is None or place.registry is None:
            raise ConfigurationError("A dashboard of its own needs a store, and others beside it. Use: quickcomm up")
        self._settings = settings
        self._site = site
        self._clock = SystemClock()
        self._database = Database(settings.dashboard.database_url or site.dashboard.database)
        self._bus = RedisBus(settings.redis_url, self._clock)
        self._watch = ServerWatch(self._bus, self._clock, BEHIND)
        self._key_store = key_store(settings.redis_url, None, self._clock)
        registry = DirectoryRegistry(Path(place.registry))
        self._instances = Instances(registry, trust_of(settings.trust), self._clock, settings.budgets)
        self._traces = start_tracing(
            settings.telemetry,
            self._clock,
            lambda: self._instances.budget,
            modules=frozenset({NAME}),
            process=NAME,
            tell=self._instances.keep_trace,
        )
        self._dashboard = Dashboard(
            database=self._database,
            bus=self._bus,
            clock=self._clock,
            keys=Authenticator(self._key_store, self._clock, settings.keys),
            settings=settings.dashboard,
            health=self._health,
            on_receipt=self._instances.on_receipt,
            neighbours=self._instances.neighbours,
        )
        self._dashboard.follow(self._instances)
        address = Address(host=settings.host, port=settings.port, place=place)
        self._process = Process(NAME, address, site.dashboard)
        self._since = Since()
        self._store_alarms = StoreAlarms(settings.redis_url, self._clock)
        self._lacking: list[Alarm] = []

    async def run(self, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises `QuickCommError` where it cannot begin."""
        self._database.open()
        self._key_store.migrate()
        self._dashboard.migrate()

        async def serving() -> None:
            ready(self._process.url)

        traces = {} if self._traces is None else {"traces": self._traces.run}
        days = self._settings.storage.retention_days
        duty = Duty(
            routes=self._dashboard.routes(),
            administration=Administration(
                {"status": lambda _: self._status()},
                keys_of(self._key_store),
                page_commands(self._dashboard),
            ),
            work={
                "dashboard": self._dashboard.run,
                "bus": self._watch.run,
                "store-alarms": self._store_alarms.run,
                "history": self._take_over,
                "purge": lambda: purge_forever(self._dashboard.purge, days, self._clock),
                **traces,
            },
            ready=serving,
            drain=self._dashboard.drain,
        )
        try:
            await self._process.run(duty, stop)
        finally:
            await self._dashboard.aclose()
            await self._bus.aclose()
            await self._store_alarms.aclose()
            await self._key_store.aclose()
            await self._database.aclose()
            await stop_tracing(self._traces)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _take_over(self) -> None:
        """Once in a site's life, beside all else: what the monolith had before this was a service of its own."""
        try:
            await backfill(self._database, self._instances.earlier(), self._settings.dashboard.closing_confidence)
        except BackfillError as error:
            log.exception("history.failed", error=str(error))
            since = rfc3339(datetime.now(UTC))
            self._lacking = [Alarm(code=HISTORY_ALARM, message=f"{LACKING} {error}", since=since)]

    def _health(self) -> Health:
        trace_url = self._settings.telemetry.trace_url if self._traces else None
        return self._instances.health(self._dashboard.stages, self._alarms(), trace_url)

    def _alarms(self) -> list[Alarm]:
        found = [*self._watch.alarms, *self._store_alarms.found, *disk_alarms(self._site.path)]
        return [*self._since.dated(found), *self._lacking]

    async def _status(self) -> Answer:
        """What others suffer from, they say themselves."""
        own = self._alarms()
        details = {
            "bus_backlog": await self._backlog(),
            "stages": msgspec.to_builtins(self._dashboard.stages),
            "alarms": msgspec.to_builtins(own),
        }
        return [self._process.row(healthy=not own) | details]

    async def _backlog(self) -> dict[str, int] | None:
        """Its own; None while nobody can say."""
        try:
            found = await self._bus.backlog()
        except QuickCommError:
            return None
        return {name: count for name, count in found.items() if name.endswith(f"/{NAME}")}


async def serve_dashboard(settings: DashboardServiceSettings, data_dir: Path, ready: Callable[[str], None]) -> None:
    """Run the service on its part of a site's data directory until SIGINT or SIGTERM."""
    site = DataDirectory(data_dir)
    with site.dashboard.own():
        await DashboardService(settings, site).run(ready, stopped_by_signals())
