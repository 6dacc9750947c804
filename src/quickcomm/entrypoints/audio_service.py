"""`audio`: sound in, transcripts out, in as many processes as it takes. Conversations are in the site's store.

Each process has its own engine and its own batches; any of them can go on with any conversation. Dashboards hear of it
by a direct link to each process, all else comes by the streams. Needs this module, kernel and contracts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
from aiohttp import web

from quickcomm.audio.module import Audio, Caller, DashboardLink, Places, SpeechToText
from quickcomm.contracts.health import Alarm
from quickcomm.contracts.link import InstanceStatus
from quickcomm.contracts.timing import Latency
from quickcomm.entrypoints.administration import Administration, Answer, ledgers_of
from quickcomm.entrypoints.audio_engine import load_engine
from quickcomm.entrypoints.audio_settings import AudioServiceSettings
from quickcomm.entrypoints.data_directory import DataDirectory, InstancePost, recordings_of
from quickcomm.entrypoints.probes import probes
from quickcomm.entrypoints.process import Address, Duty, Process, purge_forever, rfc3339, stopped_by_signals
from quickcomm.entrypoints.starting import in_daemon, unless_stopped
from quickcomm.kernel.bus.redis import RedisBus
from quickcomm.kernel.bus.watch import ServerWatch
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.keys import Authenticator, key_store
from quickcomm.kernel.site_pack import SitePack, load_pack
from quickcomm.kernel.telemetry.setup import start_tracing, stop_tracing
from quickcomm.kernel.trust import trust_of

NAME: Final = "audio"
DASHBOARD: Final = "dashboard"
BUS_ALARM: Final = "bus.unavailable"
UNACKNOWLEDGED: Final = "Sound is taken and kept by who sent it, but nothing is acknowledged until it is back."

log = structlog.get_logger(__name__)


class AudioService:
    def __init__(
        self, settings: AudioServiceSettings, site: DataDirectory, engine: SpeechToText, pack: SitePack
    ) -> None:
        """`site`: the data directory of the whole site. Raises `ConfigurationError`."""
        redis_url, registry, socket = _place(settings)
        self._settings = settings
        self._clock = SystemClock()
        self._bus = RedisBus(redis_url, self._clock)
        self._watch = ServerWatch(self._bus, self._clock, UNACKNOWLEDGED)
        self._key_store = key_store(redis_url, None, self._clock)
        self._keys = Authenticator(self._key_store, self._clock, settings.keys)
        self._trust = trust_of(settings.trust)
        self._registry = DirectoryRegistry(registry)
        self._traces = start_tracing(
            settings.telemetry, self._clock, lambda: settings.budgets, modules=frozenset({NAME}), process=NAME
        )
        self._link = DashboardLink(self._admit_for_long, self._health, self._receipt)
        self._audio = Audio(
            settings=settings.audio,
            database=None,
            bus=self._bus,
            clock=self._clock,
            engine=engine,
            captions=self._link,
            authenticate=self._authenticate,
            emergencies=EmergencyRules(pack.emergency),
            places=Places(
                recordings=recordings_of(settings.storage, site),
                recordings_endpoint=settings.storage.recordings_endpoint,
                redis_url=redis_url,
                owner=settings.instance.name,
            ),
        )
        address = Address(host=settings.host, port=settings.port, place=settings.instance)
        self._process = Process(NAME, address, InstancePost(socket))
        self._alarms: dict[str, Alarm] = {}

    def routes(self) -> list[web.AbstractRouteDef]:
        """Those for clients, and the one below `/internal` for dashboards."""
        return [
            *self._audio.routes(),
            *self._link.routes(),
            *probes(self._may_measure, lambda: bool(self._audio.health().alarms)),
        ]

    async def run(self, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises `QuickCommError` where it cannot begin."""

        async def serving() -> None:
            ready(self._process.url)

        days = self._settings.storage.retention_days
        traces = {} if self._traces is None else {"traces": self._traces.run}
        duty = Duty(
            routes=self.routes(),
            administration=Administration({"status": lambda _: self._status()}, ledgers_of(self._audio.ledgers)),
            work={
                "audio": self._audio.run,
                "link": self._link.run,
                "bus": self._watch.run,
                "trim": self._bus.trim_forever,
                "purge": lambda: purge_forever(self._audio.purge, days, self._clock),
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
        """After all else."""
        await self._audio.aclose()
        await self._key_store.aclose()
        await self._bus.aclose()
        await stop_tracing(self._traces)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """What was said waits for the others in the store."""
        log.info("server.draining", others=self._others())
        await self._audio.drain(lambda: bool(self._others()))
        self._link.close()

    def _others(self) -> list[str]:
        """Processes like this one that are registered."""
        name = self._settings.instance.name
        return [each.name for each in self._registry.instances() if each.module == NAME and each.name != name]

    async def _authenticate(self, request: web.Request) -> Caller:
        principal = await self._keys.require(request, "ingest")
        return Caller(
            site=principal.site,
            key_id=principal.key_id,
            still_valid=lambda: self._key_store.still_valid(principal),
        )

    def _admit_for_long(self, request: web.Request) -> Callable[[], Awaitable[None]]:
        return partial(self._trust.ended, self._trust.grant(request, DASHBOARD))

    async def _may_measure(self, request: web.Request) -> None:
        if not self._settings.dashboard.metrics_open:
            await self._keys.require(request, "read")

    def _receipt(self, site: str, conversation_id: str, utterance_id: str, latency: Latency) -> None:
        self._audio.receipt(site, conversation_id, utterance_id, latency)

    def _health(self) -> InstanceStatus:
        audio, trouble = self._audio.health(), self._watch.trouble
        now = rfc3339(datetime.now(UTC))
        found = [*audio.alarms, *([] if trouble is None else [(BUS_ALARM, trouble)])]
        self._alarms = {
            code: Alarm(code=code, message=message, since=self._alarms[code].since if code in self._alarms else now)
            for code, message in found
        }
        return InstanceStatus(
            sessions=audio.sessions,
            stt_backlog_s=audio.stt_backlog_s,
            alarms=tuple(self._alarms.values()),
            budget=msgspec.to_builtins(self._settings.budgets),
            trace_url=self._settings.telemetry.trace_url if self._traces else None,
        )

    async def _status(self) -> Answer:
        health = self._health()
        details = {
            "sessions": health.sessions,
            "stt_model": self._audio.health().stt_model,
            "stt_backlog_s": health.stt_backlog_s,
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
        return {name: count for name, count in found.items() if name.endswith(f"/{NAME}")}


def _place(settings: AudioServiceSettings) -> tuple[str, Path, str]:
    """Store, registry, own socket."""
    place = settings.instance
    if settings.redis_url is None or place.registry is None or place.socket is None:
        raise ConfigurationError(
            "audio as a service of its own needs a store, and others beside it. Use: quickcomm up --shape services"
        )
    return settings.redis_url, Path(place.registry), place.socket


async def serve_audio(settings: AudioServiceSettings, data_dir: Path, ready: Callable[[str], None]) -> bool:
    """Run until SIGINT or SIGTERM; False if that came before it had begun. Raises `ConfigurationError`."""
    _place(settings)
    stop = stopped_by_signals()
    pack = load_pack(settings.pack)
    load = partial(load_engine, settings, pack, settings.audio.processes)
    engine = await unless_stopped(stop, in_daemon(load, "load_engine"))
    if engine is None:
        return False
    if not stop.is_set():
        await AudioService(settings, DataDirectory(data_dir), engine, pack).run(ready, stop)
    return True
