"""The monolith: all modules in one process, on one port, over one SQLite database."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from quickcomm.audio.module import Audio, Places, SpeechToText
from quickcomm.dashboard.module import Dashboard
from quickcomm.entrypoints.engines import load_classifier, load_engine, load_model
from quickcomm.entrypoints.moving import check_here, check_shape, settle
from quickcomm.entrypoints.parts import backlog, database_part, keys_part, site_part, traces_part
from quickcomm.entrypoints.settings import Settings
from quickcomm.entrypoints.store_commands import letter_answers
from quickcomm.intelligence.module import Classifier, Intelligence, IntelligenceSettings, LanguageModel, SideSettings
from quickcomm.kernel.bus import WholeBus
from quickcomm.kernel.bus.sql import SqlBus
from quickcomm.kernel.clock import Clock, SystemClock
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.keys import Authenticator, key_store
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.runtime.data_directory import DataDirectory, recordings_of
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.process import Address, Process, stopped_by_signals
from quickcomm.kernel.runtime.starting import in_daemon, unless_stopped
from quickcomm.kernel.site_pack import SitePack, load_pack
from quickcomm.kernel.storage import Database
from quickcomm.kernel.telemetry.settings import budget_with_model
from quickcomm.kernel.telemetry.setup import start_tracing

MODULE: Final = "monolith"
CATCH_UP_S: Final = 3.0
LOOK_EVERY_S: Final = 0.05

log = structlog.get_logger(__name__)


class Engines(msgspec.Struct, frozen=True, kw_only=True):
    """The site pack, and the models, which take long to load; `model` is None where no language model is set."""

    pack: SitePack
    speech: SpeechToText
    classifier: Classifier
    model: LanguageModel | None = None


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The server answers at `url`."""

    url: str
    is_first: bool
    """No key but `admin_key` can sign in yet."""
    admin_key: str | None
    """Made at the first start, where it is shown to a person."""


class Monolith:
    """All modules, what they share, and the process around them."""

    def __init__(self, settings: Settings, directory: DataDirectory, engines: Engines, *, shows_key: bool) -> None:
        """`shows_key`: the caller is a person at a terminal, who may see a key."""
        self._settings = settings
        self._shows_key = shows_key
        clock = SystemClock()
        self._database = Database(directory.database)
        self._bus = _bus(settings.redis_url, self._database, clock)
        self._key_store = key_store(settings.redis_url, self._database, clock)
        keys = Authenticator(self._key_store, clock, settings.keys)
        self._budget = budget_with_model(settings.budgets, settings.llm.budget_s if engines.model else 0.0)
        self._traces = start_tracing(settings.telemetry, clock, lambda: self._budget)
        side = SideSettings(answers=settings.answers, usage=settings.usage, summaries=settings.summaries)
        self._intelligence = Intelligence(
            database=self._database,
            bus=self._bus,
            clock=clock,
            pack=engines.pack,
            classifier=engines.classifier,
            model=engines.model,
            settings=IntelligenceSettings(llm=settings.llm, side=side, budget=self._budget),
        )
        messaging = Messaging.over(self._bus, clock)
        self._dashboard = Dashboard(
            database=self._database,
            messaging=messaging,
            clock=clock,
            keys=keys,
            settings=settings.dashboard,
            budget=self._budget,
            trace_url=settings.telemetry.trace_url if self._traces else None,
        )
        self._audio = Audio(
            settings=settings.audio,
            database=self._database,
            messaging=messaging,
            clock=clock,
            engine=engines.speech,
            keys=keys,
            emergencies=EmergencyRules(engines.pack.emergency),
            places=Places(
                recordings=recordings_of(settings.storage, directory),
                recordings_endpoint=settings.storage.recordings_endpoint,
                redis_url=settings.redis_url,
            ),
        )
        self._process = Process(
            MODULE,
            Address(host=settings.host, port=settings.port, place=settings.instance),
            directory,
            [
                traces_part(self._traces),
                database_part(self._database),
                self._bus_part(),
                keys_part(self._key_store),
                site_part(directory.path, settings.redis_url, clock),
                msgspec.structs.replace(self._audio.part(), drain=self._drain_audio),
                msgspec.structs.replace(self._intelligence.part(), drain=self._caught_up),
                self._dashboard.part(),
            ],
            messaging,
            clock,
            retention_days=settings.storage.retention_days,
        )

    async def run(self, ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises `ConfigurationError` where the port cannot be had."""

        async def serving() -> None:
            is_first = await self._is_first()
            key = (await self._key_store.create("admin", "first start")).key if is_first and self._shows_key else None
            ready(Ready(url=self._process.url, is_first=is_first, admin_key=key))

        await self._process.run(serving, stop)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _bus_part(self) -> Part:
        async def status() -> Mapping[str, Any]:
            return {"bus_backlog": await backlog(self._bus)}

        return Part(
            name="bus",
            answers=letter_answers(self._bus),
            open=self._bus.migrate,
            work={"bus": self._bus.maintain},
            alarms=lambda: self._bus.alarms,
            status=status,
            close=self._bus.aclose,
        )

    async def _drain_audio(self) -> None:
        log.info("server.draining")
        self._intelligence.drain()
        await self._audio.drain()

    async def _caught_up(self) -> None:
        """Wait until all that was heard is understood and on the page."""
        with contextlib.suppress(TimeoutError, QuickCommError):  # a store that is down keeps what waits
            async with asyncio.timeout(CATCH_UP_S + self._intelligence.catch_up_s):
                while any((await self._bus.backlog()).values()):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY_S)  # only the table knows

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _is_first(self) -> bool:
        if self._settings.instance.registry:
            return False  # behind an edge, `up` looks after that
        return not any(key.role == "admin" for key in await self._key_store.list())


async def serve(
    settings: Settings, directory: DataDirectory, ready: Callable[[Ready], None], *, shows_key: bool
) -> bool:
    """Run the monolith on a data directory, which the caller owns, until SIGINT or SIGTERM.

    Return False if that came before it had begun.
    """
    stop = stopped_by_signals()
    pack = load_pack(settings.pack)
    loading = asyncio.gather(
        in_daemon(partial(load_engine, settings, pack), "load_engine"),
        in_daemon(partial(load_classifier, settings, pack), "load_classifier"),
        in_daemon(partial(load_model, settings, pack), "load_model"),
        _settle(directory, settings.redis_url),
    )
    loaded = await unless_stopped(stop, loading)
    if loaded is None:
        return False
    speech, classifier, model, _ = loaded
    if not stop.is_set():
        check_shape(directory, MODULE)
        engines = Engines(pack=pack, speech=speech, classifier=classifier, model=model)
        await Monolith(settings, directory, engines, shows_key=shows_key).run(ready, stop)
    return True


async def _settle(directory: DataDirectory, redis_url: str | None) -> None:
    """Have conversations and messages where they are to be. Raises `ElsewhereError`."""
    if redis_url is None:
        check_here(directory)
    else:
        await settle(directory, redis_url)


def _bus(redis_url: str | None, database: Database, clock: Clock) -> WholeBus:
    if redis_url is None:
        return SqlBus(database, clock)
    from quickcomm.kernel.bus.outbox import OutboxBus  # noqa: PLC0415 - where there is no Valkey

    return OutboxBus(redis_url, database, clock)
