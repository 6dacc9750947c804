"""`audio`: sound in, transcripts out, in as many processes as it takes. Conversations are in the site's store.

Each process has its own engine and its own batches; any of them can go on with any conversation. Dashboards hear of it
by a direct link to each process, all else comes by the streams. Needs this module, kernel and contracts.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
from aiohttp import web

from quickcomm.audio.module import Audio, Places, SpeechToText
from quickcomm.entrypoints.audio_engine import load_engine
from quickcomm.entrypoints.audio_settings import AudioServiceSettings
from quickcomm.entrypoints.parts import keys_part, measuring, peers, redis_bus_part, traces_part
from quickcomm.kernel.bus.redis import RedisBus
from quickcomm.kernel.bus.watch import UNAVAILABLE_ALARM, ServerWatch
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.keys import Authenticator, key_store
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.runtime.alarms import Found
from quickcomm.kernel.runtime.data_directory import DataDirectory, InstancePost, recordings_of
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.probes import probes
from quickcomm.kernel.runtime.process import Address, Process, stopped_by_signals
from quickcomm.kernel.runtime.starting import in_daemon, unless_stopped
from quickcomm.kernel.site_pack import SitePack, load_pack
from quickcomm.kernel.telemetry.setup import start_tracing
from quickcomm.kernel.trust import trust_of

NAME: Final = "audio"
UNACKNOWLEDGED: Final = "Sound is taken and kept by who sent it, but nothing is acknowledged until it is back."

log = structlog.get_logger(__name__)


class AudioService:
    def __init__(
        self, settings: AudioServiceSettings, site: DataDirectory, engine: SpeechToText, pack: SitePack
    ) -> None:
        """`site`: the data directory of the whole site. Raises `ConfigurationError`."""
        redis_url, socket = _place(settings)
        self._settings = settings
        clock = SystemClock()
        bus = RedisBus(redis_url, clock)
        store = key_store(redis_url, None, clock)
        keys = Authenticator(store, clock, settings.keys)
        self._watch = ServerWatch(bus, clock, UNACKNOWLEDGED)
        self._traces = start_tracing(
            settings.telemetry, clock, lambda: settings.budgets, modules=frozenset({NAME}), process=NAME
        )
        messaging = Messaging.over(bus, clock)
        self._audio = Audio(
            settings=settings.audio,
            database=None,
            messaging=messaging,
            clock=clock,
            engine=engine,
            keys=keys,
            emergencies=EmergencyRules(pack.emergency),
            places=Places(
                recordings=recordings_of(settings.storage, site),
                recordings_endpoint=settings.storage.recordings_endpoint,
                redis_url=redis_url,
                owner=settings.instance.name,
            ),
        )
        self._process = Process(
            NAME,
            Address(host=settings.host, port=settings.port, place=settings.instance),
            InstancePost(socket),
            [
                traces_part(self._traces),
                redis_bus_part(bus, self._watch, NAME, trims=True),
                keys_part(store, administered=False),
                msgspec.structs.replace(self._audio.part(), alarms=self._alarms, drain=self._drain),
                self._probes_part(keys),
            ],
            messaging,
            clock,
            retention_days=settings.storage.retention_days,
            trust=trust_of(settings.trust),
        )

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return those for clients, and the one below `/internal` for dashboards."""
        return self._process.routes()

    async def run(self, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises `QuickCommError` where it cannot begin."""
        await self._process.run(lambda: ready(self._process.url), stop)

    async def aclose(self) -> None:
        """Close what `run` has not. May be called again."""
        await self._process.aclose()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """What was said waits for the others in the store."""
        log.info("server.draining", others=self._others())
        await self._audio.drain(lambda: bool(self._others()))

    def _others(self) -> list[str]:
        return peers(self._settings.instance, NAME)

    def _probes_part(self, keys: Authenticator) -> Part:
        admit = measuring(keys, open_to_all=self._settings.dashboard.metrics_open)
        return Part(name="probes", routes=probes(admit, lambda: bool(self._audio.health().alarms)))

    def _alarms(self) -> list[Found]:
        """Return its own: what is wrong with the store's server, the dashboard tells."""
        trouble = self._watch.trouble
        return [*self._audio.health().alarms, *([] if trouble is None else [(UNAVAILABLE_ALARM, trouble)])]


def _place(settings: AudioServiceSettings) -> tuple[str, str]:
    """Return the address of the store and the process's own socket. Raises `ConfigurationError`."""
    place = settings.instance
    if settings.redis_url is None or place.registry is None or place.socket is None:
        raise ConfigurationError(
            "audio as a service of its own needs a store, and others beside it. Use: quickcomm up --shape services"
        )
    return settings.redis_url, place.socket


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
