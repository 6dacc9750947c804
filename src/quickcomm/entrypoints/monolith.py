"""The monolith: all modules in one process, on one port, over one SQLite database."""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog
from aiohttp import web

from quickcomm import __version__
from quickcomm.audio.module import Audio, Caller, Places, SpeechToText
from quickcomm.contracts.timing import Latency
from quickcomm.dashboard.module import Alarm, ClassifierHealth, Dashboard, Health, Neighbours
from quickcomm.entrypoints.administration import Administration, Answer, Arguments, admin_socket
from quickcomm.entrypoints.data_directory import DataDirectory, Running
from quickcomm.entrypoints.engines import load_classifier, load_engine, load_model
from quickcomm.entrypoints.moving import check_here, settle
from quickcomm.entrypoints.prompt_administration import PromptAdministration
from quickcomm.entrypoints.settings import Settings
from quickcomm.entrypoints.trace_administration import trace_command
from quickcomm.intelligence.module import Classifier, Intelligence, IntelligenceSettings, LanguageModel, SideSettings
from quickcomm.kernel.bus import WholeBus
from quickcomm.kernel.bus.sql import SqlBus
from quickcomm.kernel.clock import Clock, SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry, Instance, registered
from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.http import create_app
from quickcomm.kernel.keys import Authenticator, key_store
from quickcomm.kernel.site_pack import SitePack, load_pack
from quickcomm.kernel.storage import Database
from quickcomm.kernel.telemetry.settings import budget_with_model
from quickcomm.kernel.telemetry.setup import start_tracing, stop_tracing

PURGE_EVERY_S: Final = 3_600.0
CATCH_UP_S: Final = 3.0
MODEL_ALARM: Final = "language_model"
BUS_ALARM: Final = "bus.unavailable"
DAY_NS: Final = 86_400 * 1_000_000_000

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The server answers at `url`; `admin_key` only at the very first start."""

    url: str
    admin_key: str | None


class Monolith:
    def __init__(
        self,
        settings: Settings,
        directory: DataDirectory,
        engine: SpeechToText,
        classifier: Classifier,
        model: LanguageModel | None = None,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._clock = SystemClock()
        self._database = Database(directory.database)
        self._bus = _bus(settings.redis_url, self._database, self._clock)
        self._key_store = key_store(settings.redis_url, self._database, self._clock)
        self._keys = Authenticator(self._key_store, self._clock, settings.keys)
        self._alarms: dict[str, Alarm] = {}
        self._pack: SitePack = load_pack(settings.pack)
        self._started = datetime.now(UTC)
        self._url = ""
        self._budget = budget_with_model(settings.budgets, settings.llm.budget_s if model else 0.0)
        self._traces = start_tracing(settings.telemetry, self._clock, lambda: self._budget)
        self._intelligence = self._understanding(classifier, model)
        self._dashboard = Dashboard(
            database=self._database,
            bus=self._bus,
            clock=self._clock,
            keys=self._keys,
            settings=settings.dashboard,
            health=self._health,
            on_receipt=self._receipt,
            neighbours=Neighbours(
                prompts=self._intelligence.prompts,
                usage=self._intelligence.usage,
                narrator=self._intelligence.narrate,
                budget=lambda: self._budget,
            ),
        )
        self._audio = Audio(
            settings=settings.audio,
            database=self._database,
            bus=self._bus,
            clock=self._clock,
            engine=engine,
            captions=self._dashboard.captions,
            authenticate=self._authenticate,
            places=Places(
                recordings=directory.recordings if settings.storage.recordings else None, redis_url=settings.redis_url
            ),
        )

    async def run(self, ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises `ConfigurationError` where the port cannot be had."""
        self._database.open()
        for module in (self._bus, self._key_store, self._audio, self._intelligence, self._dashboard):
            module.migrate()
        try:
            await self._work(ready, stop)
        except* QuickCommError as errors:
            raise errors.exceptions[0] from errors
        finally:
            await self._audio.aclose()
            await self._dashboard.aclose()
            await self._intelligence.aclose()
            await self._bus.aclose()
            await self._key_store.aclose()
            await self._database.aclose()
            await stop_tracing(self._traces)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _understanding(self, classifier: Classifier, model: LanguageModel | None) -> Intelligence:
        settings = self._settings
        side = SideSettings(answers=settings.answers, usage=settings.usage, summaries=settings.summaries)
        return Intelligence(
            database=self._database,
            bus=self._bus,
            clock=self._clock,
            pack=self._pack,
            classifier=classifier,
            model=model,
            settings=IntelligenceSettings(llm=settings.llm, side=side),
        )

    async def _work(self, ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(self._dashboard.run(), name="dashboard"),
                tasks.create_task(self._intelligence.run(), name="intelligence"),
                tasks.create_task(self._audio.run(), name="audio"),
                tasks.create_task(self._bus.maintain(), name="bus"),
                tasks.create_task(self._purge_forever(), name="purge"),
            ]
            if self._traces is not None:
                work.append(tasks.create_task(self._traces.run(), name="traces"))
            async with self._listening():
                # What is there now stays: a full collection that walked it would stop every thread for 60 ms.
                gc.freeze()
                async with self._found():
                    ready(Ready(url=self._url, admin_key=await self._first_key()))
                    await stop.wait()
                await self._drain()
            for task in work:
                task.cancel()

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        app = create_app([*self._audio.routes(), *self._dashboard.routes()])
        # A body is small, and is taken as it is: nothing to be gained from unpacking what a stranger sends.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, auto_decompress=False)
        await runner.setup()
        place = self._settings.instance
        site: web.BaseSite = (
            web.UnixSite(runner, place.socket)
            if place.socket
            else web.TCPSite(runner, self._settings.host, self._settings.port)
        )
        administration = Administration(
            self._database,
            self._bus,
            self._key_store,
            self._audio.ledgers,
            self._status,
            {
                **PromptAdministration(self._intelligence.prompting).commands(),
                "report": self._report,
                **trace_command(self._dashboard.waterfall),
            },
        )
        try:
            try:
                await site.start()
            except OSError as error:
                raise ConfigurationError(_cannot_listen(error, self._settings)) from error
            if place.socket:
                self._url = place.public_url or f"unix:{place.socket}"
            else:
                port = runner.addresses[0][1]
                host = "127.0.0.1" if self._settings.host in {"0.0.0.0", "::"} else self._settings.host
                self._url = f"http://{host}:{port}"
            async with admin_socket(administration, self._directory.socket):
                self._directory.announce(Running(pid=os.getpid(), url=self._url, version=__version__))
                yield
        finally:
            await runner.cleanup()

    @contextlib.asynccontextmanager
    async def _found(self) -> AsyncIterator[None]:
        """Be in the registry, where there is one; out of it before the drain begins."""
        place = self._settings.instance
        if place.registry is None or place.socket is None:
            yield
            return
        me = Instance(module="monolith", name=place.name, pid=os.getpid(), version=__version__, socket=place.socket)
        async with registered(DirectoryRegistry(Path(place.registry)), me):
            yield

    async def _drain(self) -> None:
        """Intake first, then what it caused: nothing that was heard is left behind."""
        log.info("server.draining")
        self._intelligence.drain()
        await self._audio.drain()
        with contextlib.suppress(TimeoutError, QuickCommError):  # a store that is away keeps what waits
            async with asyncio.timeout(CATCH_UP_S + self._intelligence.catch_up_s):
                while any((await self._bus.backlog()).values()):  # noqa: ASYNC110 - only the table knows
                    await asyncio.sleep(0.05)
        await self._dashboard.drain()

    async def _first_key(self) -> str | None:
        if self._settings.instance.registry or await self._key_store.list():
            return None  # behind an edge it is made by who started both: here it would end up in a log
        return (await self._key_store.create("admin", "first start")).key

    def _receipt(self, site: str, conversation_id: str, utterance_id: str, latency: Latency) -> None:
        self._audio.receipt(site, conversation_id, utterance_id, latency)

    async def _authenticate(self, request: web.Request) -> Caller:
        principal = await self._keys.require(request, "ingest")
        return Caller(
            site=principal.site,
            key_id=principal.key_id,
            still_valid=lambda: self._key_store.still_valid(principal),
        )

    def _health(self) -> Health:
        audio = self._audio.health()
        model = self._intelligence.state
        now = _rfc3339(datetime.now(UTC))
        self._alarms = {
            code: Alarm(code=code, message=message, since=self._alarms[code].since if code in self._alarms else now)
            for code, message in (*audio.alarms, *self._bus_alarms())
        }
        model_since = _rfc3339(datetime.fromtimestamp(model.since_ns / 1e9, UTC))
        if model.state == "degraded":
            self._alarms[MODEL_ALARM] = Alarm(code=MODEL_ALARM, message=model.why, since=model_since)
        return Health(
            status="degraded" if self._alarms else "ok",
            sessions=audio.sessions,
            stt_backlog_s=audio.stt_backlog_s,
            alarms=tuple(self._alarms.values()),
            classifier=ClassifierHealth(
                model=self._intelligence.classifier,
                source="llm" if model.state == "up" else "local",
                degraded=model.state == "degraded",
                state=model.state,
                message=model.why,
                since=model_since,
            ),
            budget=self._budget,
            stages=self._dashboard.stages,
            trace_url=self._settings.telemetry.trace_url if self._traces else None,
        )

    def _bus_alarms(self) -> list[tuple[str, str]]:
        return [] if self._bus.trouble is None else [(BUS_ALARM, self._bus.trouble)]

    async def _backlog(self) -> dict[str, int] | None:
        """None while nobody can say."""
        try:
            return await self._bus.backlog()
        except QuickCommError:
            return None

    async def _status(self) -> Answer:
        health = self._health()
        audio = self._audio.health()
        return [
            {
                "module": "monolith",
                "pid": os.getpid(),
                "healthy": health.status == "ok",
                "version": __version__,
                "url": self._url,
                "started_at": _rfc3339(self._started),
                "sessions": health.sessions,
                "stt_model": audio.stt_model,
                "stt_backlog_s": health.stt_backlog_s,
                "classifier": health.classifier.model,
                "llm": self._intelligence.status() | {"since": health.classifier.since},
                "usage_today": msgspec.to_builtins(self._intelligence.used_today()),
                "bus_backlog": await self._backlog(),
                "stages": [msgspec.to_builtins(stage) for stage in health.stages],
                "alarms": [msgspec.to_builtins(alarm) for alarm in health.alarms],
            }
        ]

    async def _report(self, arguments: Arguments) -> Answer:
        since = arguments.get("since_ns")
        site = str(arguments.get("site") or "main")
        report = await self._dashboard.shift_report(site, None if since is None else int(since))
        return [msgspec.to_builtins(report)]

    async def _purge_forever(self) -> None:
        days = self._settings.storage.retention_days
        while days:
            try:
                removed = await self._purge(self._clock.now_ns() - days * DAY_NS)
            except QuickCommError as error:
                log.warning("retention.failed", error=str(error))
            else:
                if removed:
                    log.info("retention.purged", conversations=removed, older_than_days=days)
            await asyncio.sleep(PURGE_EVERY_S)

    async def _purge(self, before_ns: int) -> int:
        await self._intelligence.purge(before_ns)
        await self._dashboard.purge(before_ns)
        return await self._audio.purge(before_ns)


async def serve(settings: Settings, data_dir: Path, ready: Callable[[Ready], None]) -> bool:
    """Run the monolith on a data directory until SIGINT or SIGTERM.

    False if that came while engines were loaded. Their threads may still be at work, so the process must leave by
    `os._exit`. They write under names that count only once they are whole.
    """
    directory = DataDirectory(data_dir)
    with directory.own():
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        pack = load_pack(settings.pack)
        loading = asyncio.gather(
            _in_daemon(load_engine, settings, pack),
            _in_daemon(load_classifier, settings, pack),
            _in_daemon(load_model, settings, pack),
            _keep(directory, settings.redis_url),
        )
        stopping = asyncio.ensure_future(stop.wait())
        either: set[asyncio.Future[Any]] = {loading, stopping}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loading.done():
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loading
            return False
        engine, classifier, model, _ = loading.result()
        if not stop.is_set():
            await Monolith(settings, directory, engine, classifier, model).run(ready, stop)
    return True


async def _keep(directory: DataDirectory, redis_url: str | None) -> None:
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


async def _in_daemon(function: Callable[[Settings, SitePack], T], settings: Settings, pack: SitePack) -> T:
    """As `asyncio.to_thread`, but nobody waits for the thread at the end: learning a pack cannot be interrupted."""
    loop = asyncio.get_running_loop()
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # it cannot be cancelled any more, only left alone

    def work() -> None:
        try:
            result.set_result(function(settings, pack))
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            result.set_exception(error)

    threading.Thread(target=work, name=function.__name__, daemon=True).start()
    return await asyncio.wrap_future(result, loop=loop)


def _rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _cannot_listen(error: OSError, settings: Settings) -> str:
    where = settings.instance.socket or f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"Port {settings.port} is taken by another program. Stop it, or choose another with --port."
    return f"Cannot listen on {where}: {error.strerror}."
