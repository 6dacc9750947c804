"""Audio and intelligence over one database: all of the monolith but its dashboard."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
import structlog
from aiohttp import web

from quickcomm.audio.module import Audio, Caller, Captions, Places, SpeechToText
from quickcomm.contracts.health import Alarm, ClassifierHealth
from quickcomm.contracts.link import InstanceStatus
from quickcomm.entrypoints.administration import Command, dead_letters, keys_of, ledgers_of
from quickcomm.entrypoints.alarms import Since
from quickcomm.entrypoints.data_directory import DataDirectory, recordings_of
from quickcomm.entrypoints.disk import disk_alarms
from quickcomm.entrypoints.process import purge_forever, rfc3339
from quickcomm.entrypoints.prompt_administration import PromptAdministration
from quickcomm.entrypoints.settings import Settings
from quickcomm.entrypoints.store_alarms import StoreAlarms
from quickcomm.intelligence.module import Classifier, Intelligence, IntelligenceSettings, LanguageModel, SideSettings
from quickcomm.kernel.bus import WholeBus
from quickcomm.kernel.bus.sql import SqlBus
from quickcomm.kernel.clock import Clock, SystemClock
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.keys import Authenticator, key_store
from quickcomm.kernel.site_pack import load_pack
from quickcomm.kernel.storage import Database
from quickcomm.kernel.telemetry.settings import budget_with_model
from quickcomm.kernel.telemetry.setup import start_tracing, stop_tracing

CATCH_UP_S: Final = 3.0
LOOK_EVERY_S: Final = 0.05
MODEL_ALARM: Final = "language_model"

T = TypeVar("T")
Work = Mapping[str, Callable[[], Awaitable[None]]]

log = structlog.get_logger(__name__)


class Engines(msgspec.Struct, frozen=True, kw_only=True):
    """What takes long to load: `model` is None where no language model is set."""

    speech: SpeechToText
    classifier: Classifier
    model: LanguageModel | None = None


class Core:
    """`hear` before anything else: who is shown what is said may need what is here."""

    audio: Audio

    def __init__(self, settings: Settings, directory: DataDirectory, engines: Engines) -> None:
        self.settings = settings
        self._pack = load_pack(settings.pack)
        self.clock = SystemClock()
        self.database = Database(directory.database)
        self.bus = _bus(settings.redis_url, self.database, self.clock)
        self.key_store = key_store(settings.redis_url, self.database, self.clock)
        self.keys = Authenticator(self.key_store, self.clock, settings.keys)
        self.budget = budget_with_model(settings.budgets, settings.llm.budget_s if engines.model else 0.0)
        self.traces = start_tracing(settings.telemetry, self.clock, lambda: self.budget)
        self.intelligence = self._understanding(engines)
        self._directory = directory
        self._engines = engines
        self._since = Since()
        self._store_alarms = StoreAlarms(settings.redis_url, self.clock) if settings.redis_url else None

    def hear(self, captions: Captions) -> None:
        """`captions`: where it is shown at once what is said."""
        self.audio = Audio(
            settings=self.settings.audio,
            database=self.database,
            bus=self.bus,
            clock=self.clock,
            engine=self._engines.speech,
            captions=captions,
            authenticate=self._authenticate,
            emergencies=EmergencyRules(self._pack.emergency),
            places=Places(
                recordings=recordings_of(self.settings.storage, self._directory),
                recordings_endpoint=self.settings.storage.recordings_endpoint,
                redis_url=self.settings.redis_url,
            ),
        )

    def open(self) -> None:
        """The database, and its tables as they must be."""
        self.database.open()
        for module in (self.bus, self.key_store, self.audio, self.intelligence):
            module.migrate()

    def work(self) -> Work:
        """What runs until the end."""
        days = self.settings.storage.retention_days
        traces = {} if self.traces is None else {"traces": self.traces.run}
        store = {} if self._store_alarms is None else {"store-alarms": self._store_alarms.run}
        return {
            "intelligence": self.intelligence.run,
            "audio": self.audio.run,
            "bus": self.bus.maintain,
            "purge": lambda: purge_forever(self.purge, days, self.clock),
            **traces,
            **store,
        }

    async def drain(self) -> None:
        """Intake first, then what it caused: nothing that was heard is left behind."""
        log.info("server.draining")
        self.intelligence.drain()
        await self.audio.drain()
        with contextlib.suppress(TimeoutError, QuickCommError):  # a store that is away keeps what waits
            async with asyncio.timeout(CATCH_UP_S + self.intelligence.catch_up_s):
                while any((await self.bus.backlog()).values()):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY_S)  # only the table knows

    async def purge(self, before_ns: int) -> int:
        await self.intelligence.purge(before_ns)
        return await self.audio.purge(before_ns)

    async def aclose(self) -> None:
        """After all else. May be called again."""
        await self.audio.aclose()
        await self.intelligence.aclose()
        await self.key_store.aclose()
        await self.bus.aclose()
        if self._store_alarms is not None:
            await self._store_alarms.aclose()
        await self.database.aclose()
        await stop_tracing(self.traces)

    # -- what it tells ----------------------------------------------------------------------------------------------

    def health(self) -> InstanceStatus:
        audio = self.audio.health()
        model = self.intelligence.state
        alarms = self._since.dated((*audio.alarms, *self._site_alarms()))
        model_since = rfc3339(datetime.fromtimestamp(model.since_ns / 1e9, UTC))
        if model.state == "degraded":
            alarms.append(Alarm(code=MODEL_ALARM, message=model.why, since=model_since))
        return InstanceStatus(
            sessions=audio.sessions,
            stt_backlog_s=audio.stt_backlog_s,
            alarms=tuple(alarms),
            classifier=ClassifierHealth(
                model=self.intelligence.classifier,
                source="llm" if model.state == "up" else "local",
                degraded=model.state == "degraded",
                state=model.state,
                message=model.why,
                since=model_since,
            ),
            budget=msgspec.to_builtins(self.budget),
            trace_url=self.settings.telemetry.trace_url if self.traces else None,
        )

    async def status(self, health: InstanceStatus) -> dict[str, Any]:
        """Its part of the line in `quickcomm status`."""
        return {
            "sessions": health.sessions,
            "stt_model": self.audio.health().stt_model,
            "stt_backlog_s": health.stt_backlog_s,
            "classifier": health.classifier.model,
            "llm": self.intelligence.status() | {"since": health.classifier.since},
            "usage_today": msgspec.to_builtins(self.intelligence.used_today()),
            "bus_backlog": await self._backlog(),
        }

    def commands(self) -> Mapping[str, Command]:
        """What an operator may ask of it."""
        return {
            **keys_of(self.key_store),
            **dead_letters(self.bus),
            **ledgers_of(self.audio.ledgers),
            **PromptAdministration(self.intelligence.prompting).commands(),
        }

    # -- inside -----------------------------------------------------------------------------------------------------

    def _understanding(self, engines: Engines) -> Intelligence:
        settings = self.settings
        side = SideSettings(answers=settings.answers, usage=settings.usage, summaries=settings.summaries)
        return Intelligence(
            database=self.database,
            bus=self.bus,
            clock=self.clock,
            pack=self._pack,
            classifier=engines.classifier,
            model=engines.model,
            settings=IntelligenceSettings(llm=settings.llm, side=side),
        )

    async def _authenticate(self, request: web.Request) -> Caller:
        principal = await self.keys.require(request, "ingest")
        return Caller(
            site=principal.site,
            key_id=principal.key_id,
            still_valid=lambda: self.key_store.still_valid(principal),
        )

    def _site_alarms(self) -> list[tuple[str, str]]:
        """Of the bus, of the store behind it, and of the disk."""
        store = [] if self._store_alarms is None else self._store_alarms.found
        return [*self.bus.alarms, *store, *disk_alarms(self._directory.path)]

    async def _backlog(self) -> dict[str, int] | None:
        """None while nobody can say."""
        try:
            return await self.bus.backlog()
        except QuickCommError:
            return None


def _bus(redis_url: str | None, database: Database, clock: Clock) -> WholeBus:
    if redis_url is None:
        return SqlBus(database, clock)
    from quickcomm.kernel.bus.outbox import OutboxBus  # noqa: PLC0415 - where there is no Valkey

    return OutboxBus(redis_url, database, clock)
