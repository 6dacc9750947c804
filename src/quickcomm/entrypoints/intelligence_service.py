"""`intelligence`: what is said is understood, in a process of its own, or in several that share the work.

It consumes transcripts and publishes insights and summaries. Several processes share the partitions of the streams, one
PostgreSQL database and, in Valkey, one stand about the language model. Needs this module, kernel and contracts.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from quickcomm.entrypoints.earlier import Earlier
from quickcomm.entrypoints.intelligence_settings import IntelligenceServiceSettings
from quickcomm.entrypoints.parts import backlog, keys_part, measuring, peers, traces_part
from quickcomm.intelligence.module import (
    Classifier,
    Intelligence,
    IntelligenceSettings,
    LanguageModel,
    SideSettings,
    build_classifier,
    build_model,
    inherit,
    share_stand,
)
from quickcomm.kernel.bus.outbox import OUTBOX_ALARM, OutboxBus
from quickcomm.kernel.bus.sql import SqlBus
from quickcomm.kernel.bus.watch import UNAVAILABLE_ALARM
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.keys import Authenticator, key_store
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.runtime.alarms import Found
from quickcomm.kernel.runtime.data_directory import PROBED_WITHIN_S, DataDirectory, InstancePost
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.probes import probes
from quickcomm.kernel.runtime.process import Address, Process, stopped_by_signals
from quickcomm.kernel.runtime.starting import in_daemon, unless_stopped
from quickcomm.kernel.site_pack import SitePack, load_pack
from quickcomm.kernel.storage import Database
from quickcomm.kernel.storage.watch import DatabaseWatch
from quickcomm.kernel.telemetry.settings import budget_with_model
from quickcomm.kernel.telemetry.setup import start_tracing
from quickcomm.kernel.trust import trust_of

NAME: Final = "intelligence"
DASHBOARD: Final = "dashboard"
OUTBOX: Final = ("outbox",)
ALL: Final = ("/intelligence", "/summaries", *OUTBOX)
OTHERS_S: Final = 0.5
CATCH_UP_S: Final = 3.0
LOOK_EVERY_S: Final = 0.05
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
        place = settings.instance
        if settings.redis_url is None or place.socket is None or place.registry is None:
            raise ConfigurationError("Intelligence of its own needs a store, and others beside it. Use: quickcomm up")
        self._settings = settings
        self._clock = clock = SystemClock()
        self._site = Database(site.database)
        url = settings.intelligence.database_url
        self._database = self._site if url is None else Database(url)
        self._bus = OutboxBus(settings.redis_url, self._database, clock)
        self._key_store = key_store(settings.redis_url, None, clock)
        keys = Authenticator(self._key_store, clock, settings.keys)
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
            settings=IntelligenceSettings(llm=settings.llm, side=side, budget=self._budget),
            shared=share_stand(settings.redis_url),
        )
        self._trust = trust_of(settings.trust)
        messaging = Messaging.over(self._bus, clock)
        self._watch = DatabaseWatch(self._database, clock)
        self._process = Process(
            NAME,
            Address(host=settings.host, port=settings.port, place=place),
            InstancePost(place.socket),
            [
                traces_part(self._traces),
                self._data_part(Earlier(self._site)),
                Part(name="bus", work={"bus": self._bus.maintain}, status=self._backlog, close=self._bus.aclose),
                keys_part(self._key_store, administered=False),
                msgspec.structs.replace(self._intelligence.part(), alarms=self._alarms, drain=self._drain),
                Part(name="probes", routes=probes(measuring(keys, open_to_all=settings.dashboard.metrics_open))),
            ],
            messaging,
            clock,
            retention_days=settings.storage.retention_days,
            trust=self._trust,
        )

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return those below `/internal` for the dashboard, and those for probes."""
        return self._process.routes()

    async def run(self, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises `QuickCommError` where it cannot begin."""
        await self._process.run(lambda: ready(self._process.url), stop)

    async def aclose(self) -> None:
        """Close what `run` has not. May be called again."""
        await self._process.aclose()

    # -- parts ------------------------------------------------------------------------------------------------------

    def _data_part(self, earlier: Earlier) -> Part:
        """Keep the databases: the site's file, and the one of its own where there is one."""

        async def opened() -> None:
            self._site.open()
            earlier.open()
            if self._database is not self._site:
                SqlBus(self._site, self._clock).migrate()
                Intelligence.migrate_tables(self._site)
                self._database.open()
                self._bus.migrate()
                Intelligence.migrate_tables(self._database)
                await inherit(self._database, self._site, self._clock)
            self._bus.migrate()

        async def close() -> None:
            await self._database.aclose()
            await self._site.aclose()

        return Part(
            name="database",
            open=opened,
            routes=earlier.routes(self._admit),
            work={"store": self._watch.run},
            purge=earlier.purge,
            close=close,
        )

    # -- inside -----------------------------------------------------------------------------------------------------

    def _alarms(self) -> list[Found]:
        """Return its own: what else is wrong with the store's server, the dashboard tells."""
        stored = self._watch.trouble or self._intelligence.trouble
        troubles = {
            UNAVAILABLE_ALARM: self._bus.trouble,
            OUTBOX_ALARM: dict(self._bus.alarms).get(OUTBOX_ALARM),
            STORE_ALARM: stored and f"{stored.rstrip('.')}. {NOT_STORED}",
        }
        found: list[Found] = [(code, message) for code, message in troubles.items() if message is not None]
        return [*found, *self._intelligence.alarms()]

    def _admit(self, request: web.Request) -> None:
        self._trust.require(request, DASHBOARD)

    async def _drain(self) -> None:
        """What is in hand is finished. Where others stay, they have the rest; else it is finished, too."""
        self._intelligence.drain()
        await asyncio.sleep(OTHERS_S)  # who stops together with this one is gone by then
        others = peers(self._settings.instance, NAME)
        log.info("server.draining", others=others)
        if others:
            self._intelligence.leave()
        with contextlib.suppress(TimeoutError, QuickCommError):
            async with asyncio.timeout(CATCH_UP_S + self._intelligence.catch_up_s):
                while self._intelligence.busy or await self._left(OUTBOX if others else ALL):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY_S)  # only the store knows

    async def _left(self, whose: tuple[str, ...]) -> bool:
        """Whether messages wait, of these groups or in the outbox."""
        return any(count for name, count in (await self._bus.backlog()).items() if name.endswith(whose))

    async def _backlog(self) -> Mapping[str, Any]:
        return {"bus_backlog": await backlog(self._bus, ALL)}


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
