"""The dashboard's one public face: built by an entrypoint, migrated, run, drained and closed."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from quickcomm.contracts.commands import GetReport, GetTrace
from quickcomm.contracts.evidence import Measured, MeasureDashboard
from quickcomm.contracts.health import Alarm, ClassifierHealth
from quickcomm.contracts.link import Captioned, Committed, FellBehind, InstanceStatus, Receipt, Watching
from quickcomm.contracts.routes import MONOLITH, SERVICE
from quickcomm.contracts.timing import Latency
from quickcomm.dashboard.adapters.correcting import correcting_answers
from quickcomm.dashboard.adapters.decision_log import RedisDecisions
from quickcomm.dashboard.adapters.digests import digest_answers
from quickcomm.dashboard.adapters.erasing import erasing_answers
from quickcomm.dashboard.adapters.exported import EXPORTED
from quickcomm.dashboard.adapters.history import MARKS, begin_anew
from quickcomm.dashboard.adapters.hub import Hub
from quickcomm.dashboard.adapters.live import LiveFeed
from quickcomm.dashboard.adapters.observed import observed
from quickcomm.dashboard.adapters.page import STATIC, PageFiles
from quickcomm.dashboard.adapters.queries import SqlQueries
from quickcomm.dashboard.adapters.reports import SqlReports
from quickcomm.dashboard.adapters.rest import OPERATIONS, Rest
from quickcomm.dashboard.adapters.rest_types import ReadinessQuery
from quickcomm.dashboard.adapters.shadow_reads import ShadowReads
from quickcomm.dashboard.adapters.state import SqlStore
from quickcomm.dashboard.adapters.steps import step_answers
from quickcomm.dashboard.adapters.waterfalls import Waterfalls, WaterfallView
from quickcomm.dashboard.model.records import Closing
from quickcomm.dashboard.model.report import ShiftReport
from quickcomm.dashboard.ports import (
    DashboardSettings,
    Health,
)
from quickcomm.dashboard.service.direct import Direct
from quickcomm.dashboard.service.editing import Editing
from quickcomm.dashboard.service.following import Follower
from quickcomm.dashboard.service.lateness import Lateness
from quickcomm.dashboard.service.overview import HEARS, Overview
from quickcomm.dashboard.service.reporting import ShiftReports
from quickcomm.dashboard.service.service import DashboardService
from quickcomm.dashboard.service.standing import Standing
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.copier.sql import lacks_copy, note_stale
from quickcomm.kernel.copier.transfer import ModuleTables
from quickcomm.kernel.errors import BusyError, QuickCommError
from quickcomm.kernel.keys import Authenticator
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.live import HERE, LostError, Peer
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.runtime.movable import asleep
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.storage import Database, migrate
from quickcomm.kernel.telemetry import Budget
from quickcomm.kernel.telemetry.live import LiveStages
from quickcomm.kernel.telemetry.measured import Measurements
from quickcomm.kernel.telemetry.stages import StageHealth

__all__ = [
    "Alarm",
    "Budget",
    "ClassifierHealth",
    "Dashboard",
    "DashboardSettings",
    "Health",
    "WaterfallView",
    "page_is_built",
]
Row = dict[str, Any]
MIGRATIONS: Final = Path(__file__).parent / "adapters" / "migrations"


def _flat(view: WaterfallView) -> Row:
    flat: Row = msgspec.to_builtins(view)
    flat |= flat.pop("waterfall")
    return flat


def page_is_built() -> bool:
    """Whether the installation brought the page."""
    return (STATIC / "index.html").is_file()


class SilentSiteError(BusyError):
    """The page works, but what is said is not heard."""

    code = "audio.away"


class Dashboard:
    def __init__(
        self,
        *,
        database: Database,
        messaging: Messaging,
        clock: Clock,
        keys: Authenticator,
        settings: DashboardSettings | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        trace_url: str | None = None,
        standing: Standing = Standing(),  # noqa: B008 - without state of its own
    ) -> None:
        """`standing`: among the dashboards of the site.

        `budget`: of the stages, until intelligence has told another. `trace_url`: where a trace is looked at.
        """
        settings = settings or DashboardSettings()
        self._database = database
        self._bus = messaging.bus
        self._shared = messaging.live
        self._rpc = messaging.rpc
        self._trace_url = trace_url
        self._overview = Overview(clock, budget)
        self._direct = Direct()
        self._watching = Watching()
        self._hub = Hub(settings.live_clients, settings.live_queue, clock)
        queries = SqlQueries(database)
        self._reports = ShiftReports(SqlReports(database), clock, messaging.rpc)
        stages = LiveStages(clock, lambda: self.budget)
        log_url = standing.log_url
        self._decisions = None if log_url is None else RedisDecisions(log_url, standing.side, clock)
        self._follower = Follower(queries, self._hub, clock) if database.shared else None
        self._service = DashboardService(
            SqlStore(database),
            self._follower or self._hub,
            clock,
            self._on_receipt,
            stages,
            settings.closing_confidence,
            self._decisions,
            standing,
        )
        self._measurements = Measurements(clock, standing.side)
        self._service.measured = self._measurements.stage
        self._service.read = self._measurements.read
        self._shadow = ShadowReads(
            lambda: standing.instance(standing.side),
            lambda: standing.instance(MONOLITH if standing.side == SERVICE else SERVICE),
            self._measurements,
            clock,
        )
        self._clock = clock
        self._editing = Editing(self._service, messaging.rpc, standing, clock, self._measurements.refused)
        self._waterfalls = Waterfalls(database, lambda: self.budget)
        lateness = Lateness(clock, stages)
        self._live = LiveFeed(
            self._hub, queries, self._editing, keys, lambda: lateness.told(self.health()), settings, standing
        )
        self._rest = Rest(
            queries,
            self._editing,
            keys,
            self._readiness,
            messaging.rpc,
            self._reports,
            settings,
            clock,
        )
        self._page = PageFiles()
        self._shared.on_error(self._failed)
        self._hub.on_watching(self._tell_watching)
        self._shared.publish(self._watching)

    def part(self) -> Part:
        """Return this module as a part of a process."""
        return Part(
            name="dashboard",
            routes=self.routes(),
            answers=self._answers(),
            subscriptions=[
                (Captioned, lambda said, _: self._hub.caption(said.caption)),
                (FellBehind, lambda said, _: self._hub.behind(said.behind)),
                (Committed, self._committed),
                (InstanceStatus, self._told),
            ],
            work={"dashboard": self.run},
            open=self.open,
            retire=self.retire,
            purge=self.purge,
            live_status=InstanceStatus,
            status=self._status,
            drain=self.drain_and_leave,
            close=self.aclose,
        )

    async def _status(self) -> dict[str, object]:
        return {"stages": msgspec.to_builtins(self.stages)}

    def _answers(self) -> Sequence[Answer]:
        async def report(request: GetReport) -> ShiftReport:
            return await self._reports.shift(request.site, request.since_ns, None, ask=True)

        async def trace(request: GetTrace) -> Row:
            await self._service.store_receipts()
            return _flat(await self._waterfalls.of(request.utterance_id, request.site))

        async def measure(request: MeasureDashboard) -> Measured:
            return self._measurements.since(request.since_ns)

        asked: list[Answer] = [(GetReport, report), (GetTrace, trace), (MeasureDashboard, measure)]
        steps = step_answers(self._service, self._database, self._clock)
        correcting = correcting_answers(self._service, self._database, self._rpc)
        erasing = erasing_answers(self._database, self._hub.reset)
        return [*asked, *self._editing.answers(), *steps, *correcting, *digest_answers(self._database), *erasing]

    @property
    def budget(self) -> Budget:
        """What the stages may take, as intelligence tells it."""
        return self._overview.budget

    def health(self) -> Health:
        """Return the health of the whole site."""
        return self._overview.health(self.stages, self._trace_url)

    def _readiness(self, asked: ReadinessQuery) -> str:
        if not self._service.ready:
            raise BusyError("Not ready: the streams are not being consumed yet, or any more.")
        if asked.of == "site" and HEARS in self._overview.away:
            raise SilentSiteError("Not ready: no process of audio answers, so that no sound is taken.")
        return self.health().status.replace("ok", "ready")

    @property
    def ready(self) -> bool:
        return self._service.ready

    @property
    def stages(self) -> tuple[StageHealth, ...]:
        """The last minutes against the budgets."""
        return self._service.stages.health()

    @staticmethod
    def stored_answers(database: Database, budget: Budget) -> Sequence[Answer]:
        """Return what can be answered on a database that no server has open."""
        migrate(database.engine, "dashboard", MIGRATIONS)

        async def trace(request: GetTrace) -> Row:
            return _flat(await Waterfalls(database, lambda: budget).of(request.utterance_id, request.site))

        return [(GetTrace, trace), *digest_answers(database), *erasing_answers(database)]

    @staticmethod
    def erasing(database: Database) -> Sequence[Answer]:
        """Return what is answered about erasure on a database that no dashboard has open now."""
        migrate(database.engine, "dashboard", MIGRATIONS)
        return erasing_answers(database)

    @staticmethod
    def exported() -> ModuleTables:
        """Return the tables that go with an export."""
        return EXPORTED

    async def match_again(self, closings: Sequence[Closing]) -> None:
        """Match closings with tasks from before them that have come since."""
        await self._service.match_again(closings)

    def migrate(self) -> None:
        """At start-up, before anything is written."""
        migrate(self._database.engine, "dashboard", MIGRATIONS)

    async def open(self) -> None:
        """Migrate the tables; empty them where the other side has gone on without them."""
        self.migrate()
        await self._database.write(begin_anew)

    async def retire(self) -> None:
        """Note that what is here becomes stale: the other side goes on."""
        await self._database.write(lambda connection: note_stale(connection, MARKS))

    async def lacks_history(self) -> bool:
        """Return True where what the other side has is not copied yet, or not to its end."""
        return await self._database.read(lambda connection: lacks_copy(connection, MARKS))

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """For `kernel.http.create_app`. `/openapi.json` must come before the page's files."""
        rest = observed(self._rest.routes(), self._measurements, self._shadow.offer)
        return [*rest, web.get("/v1/live", self._live.handle), *self._page.routes()]

    @staticmethod
    def doors() -> Sequence[web.AbstractRouteDef]:
        """Return `routes` of a dashboard that is not built."""
        rest = [web.route(each.method, each.path, asleep) for each in OPERATIONS]
        page = [web.get(each.path, asleep) for each in PageFiles().routes()]
        return [*rest, web.get("/v1/live", asleep), *page]

    async def run(self) -> None:
        """Consume the streams and tell pages how the system is, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._service.run(self._bus), name="dashboard:consume")
            group.create_task(self._live.broadcast_health(), name="dashboard:health")
            group.create_task(self._live.check_welcome(), name="dashboard:welcome")
            group.create_task(self._live.send_away(), name="dashboard:sides")
            group.create_task(self._direct.run(self._service.committed), name="dashboard:direct")
            if self._follower is not None:
                group.create_task(self._follower.run(), name="dashboard:follow")

    async def drain(self) -> None:
        """Finish what is in hand. Stop audio and intelligence first, then this, then cancel `run`."""
        await self._service.drain()

    async def drain_and_leave(self) -> None:
        """Drain, and send the pages away before the server breaks off their connections, which looks like a fault."""
        await self.drain()
        await self._live.close()

    async def purge(self, before_ns: int) -> int:
        """Delete conversations that ended before `before_ns`, and all that belongs to them; how many rows it was."""
        return await self._service.purge(before_ns)

    async def aclose(self) -> None:
        """Send the pages away and store what is left. May be called again."""
        await self._shadow.aclose()
        await self._live.close()
        await self._service.drain()
        if self._decisions is not None:
            await self._decisions.aclose()

    # -- what is told live ------------------------------------------------------------------------------------------

    def _tell_watching(self) -> None:
        watching = self._hub.watching()
        if watching != self._watching:
            self._watching = watching
            self._shared.publish(watching)

    def _on_receipt(self, site: str, conversation_id: str, utterance_id: str, latency: Latency) -> None:
        self._shared.publish(
            Receipt(site=site, conversation_id=conversation_id, utterance_id=utterance_id, latency=latency)
        )

    def _committed(self, committed: Committed, peer: Peer) -> None:
        if peer is not HERE:  # within a process the bus brings it as soon
            self._direct.put(committed)

    def _told(self, status: InstanceStatus, peer: Peer) -> None:
        self._overview.told(status.module or peer.module, peer.name, status)

    def _failed(self, peer: Peer, error: QuickCommError) -> None:
        if isinstance(error, LostError):
            self._overview.lost(peer.name)
