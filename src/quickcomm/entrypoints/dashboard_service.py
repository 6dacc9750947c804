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
from quickcomm.contracts.link import KeepTrace
from quickcomm.dashboard.backfill import BackfillError, backfill, over_http
from quickcomm.dashboard.module import Dashboard
from quickcomm.entrypoints.dashboard_settings import DashboardServiceSettings
from quickcomm.entrypoints.parts import database_part, keys_part, redis_bus_part, site_part, traces_part
from quickcomm.kernel.bus.redis import RedisBus
from quickcomm.kernel.bus.watch import ServerWatch
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.keys import Authenticator, key_store
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.rpc.wire import connector_to
from quickcomm.kernel.runtime.alarms import rfc3339
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.process import Address, Process, stopped_by_signals
from quickcomm.kernel.storage import Database
from quickcomm.kernel.telemetry.setup import start_tracing
from quickcomm.kernel.trust import trust_of

NAME: Final = "dashboard"
EARLIER: Final = "intelligence"
"""Has the database of the former monolith."""
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
        clock = SystemClock()
        self._database = Database(settings.dashboard.database_url or site.dashboard.database)
        bus = RedisBus(settings.redis_url, clock)
        keys = key_store(settings.redis_url, None, clock)
        self._registry = DirectoryRegistry(Path(place.registry))
        self._trust = trust_of(settings.trust)
        messaging = Messaging.over(bus, clock)
        self._traces = start_tracing(
            settings.telemetry,
            clock,
            lambda: self._dashboard.budget,
            modules=frozenset({NAME}),
            process=NAME,
            tell=lambda word: messaging.live.publish(KeepTrace(**msgspec.structs.asdict(word))),
        )
        self._dashboard = Dashboard(
            database=self._database,
            messaging=messaging,
            clock=clock,
            keys=Authenticator(keys, clock, settings.keys),
            settings=settings.dashboard,
            budget=settings.budgets,
            trace_url=settings.telemetry.trace_url if self._traces else None,
        )
        self._lacking: list[Alarm] = []
        watch = ServerWatch(bus, clock, BEHIND)
        self._process = Process(
            NAME,
            Address(host=settings.host, port=settings.port, place=place),
            site.dashboard,
            [
                traces_part(self._traces),
                database_part(self._database),
                keys_part(keys),
                redis_bus_part(bus, watch, NAME, tells=True),
                site_part(site.path, settings.redis_url, clock),
                self._dashboard_part(),
            ],
            messaging,
            clock,
            retention_days=settings.storage.retention_days,
            trust=self._trust,
        )

    async def run(self, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises `QuickCommError` where it cannot begin."""
        await self._process.run(lambda: ready(self._process.url), stop)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _dashboard_part(self) -> Part:
        part = self._dashboard.part()
        work = {**part.work, "history": self._take_over}
        return msgspec.structs.replace(part, work=work, alarms=lambda: self._lacking)

    async def _take_over(self) -> None:
        """Once in a site's life, beside all else: what the monolith had before this was a service of its own."""
        try:
            source = over_http(lambda: connector_to(self._registry, EARLIER), lambda: self._trust.headers(EARLIER))
            await backfill(self._database, source, self._settings.dashboard.closing_confidence)
        except BackfillError as error:
            log.exception("history.failed", error=str(error))
            since = rfc3339(datetime.now(UTC))
            self._lacking = [Alarm(code=HISTORY_ALARM, message=f"{LACKING} {error}", since=since)]


async def serve_dashboard(settings: DashboardServiceSettings, data_dir: Path, ready: Callable[[str], None]) -> None:
    """Run the service on its part of a site's data directory until SIGINT or SIGTERM."""
    site = DataDirectory(data_dir)
    with site.dashboard.own():
        await DashboardService(settings, site).run(ready, stopped_by_signals())
