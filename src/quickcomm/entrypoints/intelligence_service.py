"""`intelligence`: what is said is understood, in a process of its own, or in several that share the work.

It consumes transcripts and publishes insights and summaries. Several processes share the partitions of the streams, one
PostgreSQL database and, in Valkey, one stand about the language model. Needs this module, kernel and contracts.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
from aiohttp import web

from quickcomm.contracts.health import Alarm, ClassifierHealth
from quickcomm.contracts.link import InstanceStatus
from quickcomm.entrypoints.administration import Administration, Answer
from quickcomm.entrypoints.data_directory import PROBED_WITHIN_S, DataDirectory, InstancePost
from quickcomm.entrypoints.earlier import Earlier
from quickcomm.entrypoints.intelligence_settings import IntelligenceServiceSettings
from quickcomm.entrypoints.probes import probes
from quickcomm.entrypoints.process import Address, Duty, Process, purge_forever, rfc3339, stopped_by_signals
from quickcomm.entrypoints.prompt_administration import PromptAdministration
from quickcomm.entrypoints.starting import in_daemon, unless_stopped
from quickcomm.intelligence.module import (
    Classifier,
    Intelligence,
    IntelligenceSettings,
    LanguageModel,
    SideSettings,
    StatusLink,
    build_classifier,
    build_model,
    inherit,
    share_stand,
)
from quickcomm.kernel.bus.outbox import OUTBOX_ALARM, OutboxBus
from quickcomm.kernel.bus.sql import SqlBus
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.keys import Authenticator, key_store
from quickcomm.kernel.site_pack import SitePack, load_pack
from quickcomm.kernel.storage import Database
from quickcomm.kernel.storage.watch import DatabaseWatch
from quickcomm.kernel.telemetry.settings import budget_with_model
from quickcomm.kernel.telemetry.setup import start_tracing, stop_tracing
from quickcomm.kernel.trust import trust_of

NAME: Final = "intelligence"
DASHBOARD: Final = "dashboard"
OUTBOX: Final = ("outbox",)
ALL: Final = ("/intelligence", "/summaries", *OUTBOX)
OTHERS_S: Final = 0.5
CATCH_UP_S: Final = 3.0
LOOK_EVERY_S: Final = 0.05
MODEL_ALARM: Final = "language_model"
BUS_ALARM: Final = "bus.unavailable"
STORE_ALARM: Final = "intelligence.store"
NOT_STORED: Final = "What is said is on the page, and understood when it is back."

log = structlog.get_logger(__name__)


class Minds(msgspec.Struct, frozen=True, kw_only=True):
    """What takes long to load: `model` is None where no language model is set."""

    pack: SitePack
    classifier: Classifier
    model: LanguageModel | None = None


class IntelligenceService:
    def __init__(self, settings: IntelligenceServiceSettings, site: DataDirectory, minds: Minds) -> None:
        """`site`: the data directory of the whole site, with the database that a monolith has left there."""
        if settings.redis_url is None or settings.instance.socket is None:
            raise ConfigurationError("Intelligence of its own needs a store, and others beside it. Use: quickcomm up")
        self._settings = settings
        self._clock = clock = SystemClock()
        self._site = Database(site.database)
        url = settings.intelligence.database_url
        self._database = self._site if url is None else Database(url)
        self._bus = OutboxBus(settings.redis_url, self._database, clock)
        self._key_store = key_store(settings.redis_url, None, clock)
        self._keys = Authenticator(self._key_store, clock, settings.keys)
        self._budget = budget_with_model(settings.budgets, settings.llm.budget_s if minds.model else 0.0)
        self._traces = start_tracing(
            settings.telemetry, clock, lambda: self._budget, modules=frozenset({NAME}), process=NAME
        )
        side = SideSettings(answers=settings.answers, usage=settings.usage, summaries=settings.summaries)
        self._intelligence = Intelligence(
            database=self._database,
            bus=self._bus,
            clock=clock,
            pack=minds.pack,
            classifier=minds.classifier,
            model=minds.model,
            settings=IntelligenceSettings(llm=settings.llm, side=side),
            shared=share_stand(settings.redis_url),
        )
        self._trust = trust_of(settings.trust)
        self._link = StatusLink(self._admit_for_long, self.health)
        self._earlier = Earlier(self._site)
        address = Address(host=settings.host, port=settings.port, place=settings.instance)
        self._process = Process(NAME, address, InstancePost(settings.instance.socket))
        self._alarms: dict[str, Alarm] = {}
        self._watch = DatabaseWatch(self._database, clock)

    def routes(self) -> list[web.AbstractRouteDef]:
        """Those below `/internal` for the dashboard, and those of whoever watches the process."""
        return [
            *self._link.routes(),
            *self._intelligence.questions(self._admit),
            *self._earlier.routes(self._admit),
            *probes(self._may_measure),
        ]

    async def run(self, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises `QuickCommError` where it cannot begin."""
        await self._open()

        async def serving() -> None:
            ready(self._process.url)

        traces = {} if self._traces is None else {"traces": self._traces.run}
        days = self._settings.storage.retention_days
        duty = Duty(
            routes=self.routes(),
            administration=Administration(
                {"status": lambda _: self._status()},
                PromptAdministration(self._intelligence.prompting).commands(),
            ),
            work={
                NAME: self._intelligence.run,
                "bus": self._bus.maintain,
                "store": self._watch.run,
                "purge": lambda: purge_forever(self._purge, days, self._clock),
                **traces,
            },
            ready=serving,
            drain=self._drain,
            gate=self._trust,
        )
        try:
            await self._process.run(duty, stop)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """After all else. May be called again."""
        await self._intelligence.aclose()
        await self._key_store.aclose()
        await self._bus.aclose()
        await self._database.aclose()
        await self._site.aclose()
        await stop_tracing(self._traces)

    # -- what it tells ----------------------------------------------------------------------------------------------

    def health(self) -> InstanceStatus:
        """How it is, for the page."""
        model = self._intelligence.state
        now = rfc3339(datetime.now(UTC))
        stored = self._watch.trouble or self._intelligence.trouble
        waits = dict(self._bus.alarms).get(OUTBOX_ALARM)  # of the rest of the server, the dashboard tells
        troubles = {
            BUS_ALARM: self._bus.trouble,
            OUTBOX_ALARM: waits,
            STORE_ALARM: stored and f"{stored.rstrip('.')}. {NOT_STORED}",
        }
        self._alarms = {
            code: Alarm(code=code, message=message, since=self._alarms[code].since if code in self._alarms else now)
            for code, message in troubles.items()
            if message is not None
        }
        since = rfc3339(datetime.fromtimestamp(model.since_ns / 1e9, UTC))
        if model.state == "degraded":
            self._alarms[MODEL_ALARM] = Alarm(code=MODEL_ALARM, message=model.why, since=since)
        return InstanceStatus(
            alarms=tuple(self._alarms.values()),
            classifier=ClassifierHealth(
                model=self._intelligence.classifier,
                source="llm" if model.state == "up" else "local",
                degraded=model.state == "degraded",
                state=model.state,
                message=model.why,
                since=since,
            ),
            budget=msgspec.to_builtins(self._budget),
            trace_url=self._settings.telemetry.trace_url if self._traces else None,
        )

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        """The databases, and their tables as they must be; in one of its own, what the site's file has."""
        self._site.open()
        self._earlier.open()
        if self._database is not self._site:
            SqlBus(self._site, self._clock).migrate()
            Intelligence.migrate_tables(self._site)
            self._database.open()
            self._bus.migrate()
            Intelligence.migrate_tables(self._database)
            await inherit(self._database, self._site, self._clock)
        self._bus.migrate()
        self._key_store.migrate()
        self._intelligence.migrate()

    def _admit(self, request: web.Request) -> None:
        self._trust.require(request, DASHBOARD)

    def _admit_for_long(self, request: web.Request) -> Callable[[], Awaitable[None]]:
        return partial(self._trust.ended, self._trust.grant(request, DASHBOARD))

    async def _may_measure(self, request: web.Request) -> None:
        if not self._settings.dashboard.metrics_open:
            await self._keys.require(request, "read")

    async def _purge(self, before_ns: int) -> int:
        await self._intelligence.purge(before_ns)
        await self._earlier.purge(before_ns)
        return 0

    async def _drain(self) -> None:
        """What is in hand is finished. Where others stay, they have the rest; else it is finished, too."""
        self._intelligence.drain()
        await asyncio.sleep(OTHERS_S)  # who stops together with this one is gone by then
        others = self._others()
        log.info("server.draining", others=others)
        if others:
            self._intelligence.leave()
        with contextlib.suppress(TimeoutError, QuickCommError):
            async with asyncio.timeout(CATCH_UP_S + self._intelligence.catch_up_s):
                while self._intelligence.busy or await self._left(OUTBOX if others else ALL):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY_S)  # only the store knows
        self._link.close()

    def _others(self) -> list[str]:
        """Processes like this one that stay."""
        place = self._settings.instance
        found = [] if place.registry is None else DirectoryRegistry(Path(place.registry)).instances()
        return [each.name for each in found if each.module == NAME and each.name != place.name]

    async def _left(self, whose: tuple[str, ...]) -> bool:
        """Whether messages wait, of these groups or in the outbox."""
        return any(count for name, count in (await self._bus.backlog()).items() if name.endswith(whose))

    async def _status(self) -> Answer:
        health = self.health()
        details = {
            "classifier": health.classifier.model,
            "llm": self._intelligence.status() | {"since": health.classifier.since},
            "usage_today": msgspec.to_builtins(self._intelligence.used_today()),
            "bus_backlog": await self._backlog(),
            "alarms": msgspec.to_builtins(health.alarms),
        }
        return [self._process.row(healthy=not health.alarms) | details]

    async def _backlog(self) -> dict[str, int] | None:
        """Its own; None while nobody can say."""
        try:
            found = await self._bus.backlog()
        except QuickCommError:
            return None
        return {name: count for name, count in found.items() if name.endswith(ALL)}


async def serve_intelligence(
    settings: IntelligenceServiceSettings, data_dir: Path, ready: Callable[[str], None]
) -> bool:
    """Run until SIGINT or SIGTERM; False if that came before it had begun. Raises `ConfigurationError`."""
    site = DataDirectory(data_dir)
    site.create()
    # With a database of its own, several processes may work; in the site's file, one.
    shared = settings.intelligence.database_url is not None
    with contextlib.nullcontext() if shared else site.own(wait_s=PROBED_WITHIN_S):
        stop = stopped_by_signals()
        pack = load_pack(settings.pack)
        loading = asyncio.gather(
            in_daemon(partial(build_classifier, pack, settings.cache), "load_classifier"),
            in_daemon(partial(build_model, settings.llm), "load_model"),
        )
        found = await unless_stopped(stop, loading)
        if found is None:
            return False
        classifier, model = found
        if not stop.is_set():
            minds = Minds(pack=pack, classifier=classifier, model=model)
            await IntelligenceService(settings, site, minds).run(ready, stop)
    return True
