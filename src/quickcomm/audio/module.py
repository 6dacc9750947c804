"""The public face of audio: build it, run it, drain it, close it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from aiohttp import web

from quickcomm.audio.adapters.captions import LiveCaptions
from quickcomm.audio.adapters.digests import digest_answers
from quickcomm.audio.adapters.engines import engine_class
from quickcomm.audio.adapters.erasing import erasing_answer
from quickcomm.audio.adapters.exported import EXPORTED
from quickcomm.audio.adapters.finishing import finishing
from quickcomm.audio.adapters.ledgers import ledger_answer, live_ledgers_answer
from quickcomm.audio.adapters.places import Places, sessions, shelf_of
from quickcomm.audio.adapters.recorder import FlacRecorder, Folder
from quickcomm.audio.adapters.silero import Silero
from quickcomm.audio.adapters.sql_sessions import MIGRATIONS, SqlSessions
from quickcomm.audio.adapters.whisper_models import model_spec
from quickcomm.audio.declaration import GROUP, INGESTS
from quickcomm.audio.ingest.caller import Caller
from quickcomm.audio.ingest.port import Ingest
from quickcomm.audio.ingest.reception import Reception
from quickcomm.audio.ingest.twilio import relayed_caller
from quickcomm.audio.model.formats import ENGINE_RATE, Int16
from quickcomm.audio.model.settings import AudioSettings, TwilioSettings
from quickcomm.audio.ports import EngineOptions, FencedError, SpeechToText, Transcript
from quickcomm.audio.service.conversation import Conversation
from quickcomm.audio.service.front_end import FrontEnd
from quickcomm.audio.service.listener import Held, Tools
from quickcomm.audio.service.manager import Manager
from quickcomm.audio.service.moving import Moving
from quickcomm.audio.service.offline import transcribe_offline
from quickcomm.audio.service.share import Share
from quickcomm.audio.service.sharing import share_out
from quickcomm.audio.service.sound_shadow import MAX_HEARINGS
from quickcomm.audio.service.transcriber import Transcriber
from quickcomm.contracts.audio_socket import RELAYED
from quickcomm.contracts.commands import ShareOut
from quickcomm.contracts.evidence import MeasureAudio
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.link import InstanceStatus, Receipt
from quickcomm.contracts.reading import reader
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.copier.transfer import ModuleTables
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.errors import MALFORMED, BusyError, ConfigurationError
from quickcomm.kernel.keys import Authenticator
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.bus import BusUnavailableError, Delivery, RejectedError
from quickcomm.kernel.messaging.live import Peer
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.model_files import ModelReport, ModelStore
from quickcomm.kernel.runtime.movable import asleep
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.storage import Database, migrate

if TYPE_CHECKING:
    from quickcomm.kernel.copier.valkey import Moved
    from quickcomm.kernel.messaging.bus.redis_link import Link

STT_BEHIND: Final = "audio.stt_behind"
REFUSING: Final = "audio.refusing"
SAME_TRACKS: Final = "audio.same_tracks"
RETRY_S: Final = 1.0
PURGE_TURN_S: Final = 3_000
"""Shorter than the hour after which everybody tries again."""
_insights = reader(InsightsFound)

log = structlog.get_logger(__name__)


class AudioHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What audio says of itself. `alarms` are (code, message) pairs that an operator understands."""

    sessions: int
    stt_backlog_s: float
    stt_model: str
    alarms: tuple[tuple[str, str], ...]


class Audio:
    def __init__(
        self,
        *,
        settings: AudioSettings,
        database: Database | None,
        messaging: Messaging,
        clock: Clock,
        engine: SpeechToText,
        keys: Authenticator,
        emergencies: EmergencyRules,
        places: Places = Places(),  # noqa: B008 - frozen
    ) -> None:
        """`database`: None where nothing is kept in one, and `places` has a Valkey.

        `emergencies`: the rules of the site's pack, by which audio judges its own transcripts.
        """
        self._database = database
        self._clock = clock
        self._bus = messaging.bus
        self._captions = LiveCaptions(messaging.live)
        self._store = sessions(places, database, clock, settings.reassign_after_s)
        self._in = database if places.redis_url is None else None
        self._transcriber = Transcriber(engine, clock)
        capacity = 2 * (settings.max_sessions + MAX_HEARINGS)
        interval = settings.ack_interval_ms / 1000
        self._front_end = FrontEnd(Silero(), clock, capacity=capacity, snapshot_every_s=interval)
        shelf = shelf_of(places, clock)
        self._recorder = None if shelf is None else FlacRecorder(shelf)
        share = Share(places.side, places.routes)
        self._moving = Moving(places.owner, share, self._front_end, self._transcriber, messaging, clock, settings)
        tools = Tools(
            settings=settings,
            clock=clock,
            store=self._store,
            front_end=self._front_end,
            transcriber=self._transcriber,
            captions=self._captions,
            recorder=self._recorder,
            held=Held(settings.max_unacked_mb << 20),
            emergencies=emergencies,
            published=self._moving.published,
            copies=self._moving.copies,
        )
        self._manager = Manager(tools, self._start)
        self._moving.manage(self._manager, self._store)
        self._reception = Reception(self._manager, engine.traits.language, share, self._moving.overflow)
        self._ingests = [
            ingest(self._reception, callers(keys, settings.twilio)) for ingest in map(ingest_class, INGESTS)
        ]
        self._tasks: asyncio.TaskGroup | None = None
        self._is_behind = False

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of all ingests."""
        return [web.get(ingest.path, ingest.handle) for ingest in self._ingests]

    @staticmethod
    def doors() -> list[web.RouteDef]:
        """Return `routes` of an audio that is not built."""
        return [web.get(ingest.path, asleep) for ingest in map(ingest_class, INGESTS)]

    def migrate(self) -> None:
        if self._database is not None:
            self.migrate_tables(self._database)

    @staticmethod
    def migrate_tables(database: Database) -> None:
        migrate(database.engine, "audio", MIGRATIONS)

    @staticmethod
    def moved(clock: Clock, prefix: str) -> "Sequence[Moved]":
        """Return the tables that `up` moves into a Valkey."""
        from quickcomm.audio.adapters.redis_import import moved  # noqa: PLC0415 - once in a site's life

        return moved(clock.now_ns(), prefix)

    @staticmethod
    async def export(
        database: Database, link: "Link", tell: Callable[[int, int], None], *, prefix: str
    ) -> dict[str, int]:
        """Write every conversation of that Valkey into the database; return the rows of each table."""
        from quickcomm.audio.adapters.redis_export import export  # noqa: PLC0415 - for a backup

        return await export(database, link, tell, prefix=prefix)

    @classmethod
    def stored_answers(cls, database: Database, clock: Clock, recordings: Path | None = None) -> Sequence[Answer]:
        """As `answers`, on a database that no server has open."""
        cls.migrate_tables(database)
        store = SqlSessions(database, clock)
        recorder = None if recordings is None else FlacRecorder(Folder(recordings))
        erasing = erasing_answer(store, recorder, database)
        return [ledger_answer(store), *digest_answers(store, recorder), erasing]

    @classmethod
    def erasing(cls, database: Database, clock: Clock, places: Places) -> Sequence[Answer]:
        """Return what is answered about erasure on a database that no audio has open now. `places`: of recordings."""
        cls.migrate_tables(database)
        shelf = shelf_of(places, clock)
        recorder = None if shelf is None else FlacRecorder(shelf)
        return [erasing_answer(SqlSessions(database, clock), recorder, database)]

    @staticmethod
    def exported() -> ModuleTables:
        """Return the tables that go with an export."""
        return EXPORTED

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            adopted = await self._adopt()
            if adopted:
                log.info("audio.adopted", conversations=adopted)
            tasks.create_task(self._front_end.run(), name="audio:front-end")
            tasks.create_task(self._transcriber.run(), name="audio:stt")
            tasks.create_task(self._manager.checkpoint_forever(), name="audio:checkpoints")
            tasks.create_task(self._manager.sweep_forever(), name="audio:sweep")
            tasks.create_task(self._manager.look_forever(), name="audio:look")
            tasks.create_task(self._reception.check_forever(), name="audio:keys")
            tasks.create_task(self._reception.ping_forever(), name="audio:pings")
            tasks.create_task(self._bus.subscribe(INSIGHTS, GROUP, self._answer), name="audio:insights")
            tasks.create_task(self._store.listen(self._manager.told), name="audio:mail")
            self._moving.begin(tasks)

    async def drain(self, has_peers: Callable[[], bool] = lambda: False) -> None:
        """Stop intake, let utterances in hand come out, send the clients away.

        `has_peers`: returns True while another replica can take over conversations.
        """
        await self._manager.drain(has_peers)
        await self._reception.aclose()

    async def retire(self) -> None:
        """Raise `BusyError` as long as there are conversations that are not handed over, nor over."""
        if left := len(self._manager.conversations):
            raise BusyError(f"{left} conversations are still here. Clients that cannot resume stay until they end.")

    def close(self) -> None:
        """After `run` was cancelled."""
        self._front_end.close()
        self._transcriber.close()

    async def aclose(self) -> None:
        """`close`, and let go of the store."""
        self.close()
        await self._store.aclose()

    def part(self) -> Part:
        """Return this module as a part of a process."""
        return Part(
            name="audio",
            routes=self.routes(),
            answers=[
                ledger_answer(self._store),
                live_ledgers_answer(self._store),
                self._finishing(),
                *digest_answers(self._store, self._recorder),
                (MeasureAudio, self._moving.measure),
                (ShareOut, self._share_out),
                erasing_answer(self._store, self._recorder, self._in, self._manager.erased),
            ],
            subscriptions=[*self._captions.subscriptions(), (Receipt, self._receipt), *self._moving.subscriptions()],
            work={"audio": self.run},
            open=self.migrate,
            purge=self.purge,
            alarms=lambda: self.health().alarms,
            live_status=self._live_status,
            status=self._status,
            drain=self.drain,
            retire=self.retire,
            close=self.aclose,
        )

    def _finishing(self) -> Answer:
        return finishing(self._manager, self._store, self._database, self._clock)

    def _receipt(self, receipt: Receipt, _peer: Peer) -> None:
        """Tell the client how long each stage took: the card was pushed."""
        self._manager.receipt(receipt.site, receipt.conversation_id, receipt.utterance_id, receipt.latency)

    async def purge(self, before_ns: int) -> int:
        """Of several processes one deletes recordings, and all of them conversations, each once."""
        removed = await self._store.purge(before_ns)
        if self._recorder is not None and await self._store.turn("recordings", PURGE_TURN_S):
            await self._recorder.purge(before_ns)
        return removed

    def health(self) -> AudioHealth:
        alarms = [
            ("audio.no_text", f"People speak on {item.channel}, but no text comes out.")
            for item in self._manager.mute()
        ]
        alarms += self._overload()
        alarms += [
            (SAME_TRACKS, f"Both tracks of {item.channel} carry the same sound: each sentence is heard twice.")
            for item in self._manager.doubled()
        ]
        return AudioHealth(
            sessions=len(self._manager.conversations),
            stt_backlog_s=round(self._transcriber.backlog_s, 1),
            stt_model=self._transcriber.model,
            alarms=tuple(alarms),
        )

    def _live_status(self) -> InstanceStatus:
        health = self.health()
        return InstanceStatus(sessions=health.sessions, stt_backlog_s=health.stt_backlog_s)

    async def _status(self) -> dict[str, object]:
        health = self.health()
        row: dict[str, object] = {
            "sessions": health.sessions,
            "talkers": len(self._manager.talking),
            "cannot_resume": sum(not each.resumes for each in self._manager.conversations),
            "stt_model": health.stt_model,
            "stt_workers": self._transcriber.workers,
            "stt_backlog_s": health.stt_backlog_s,
        }
        return row | ({"to_hand_over": self._moving.left} if self._moving.share.moves else {})

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _share_out(self, request: ShareOut) -> dict[str, int]:
        return {"given_up": await share_out(self._manager, self._clock, request.conversations)}

    def _overload(self) -> Iterator[tuple[str, str]]:
        """Alarms of too much speech: from the first line beyond its bound until the last one is whole again."""
        late = sorted(
            (item for item in self._manager.conversations if item.told_behind), key=lambda item: -item.behind_s
        )
        self._is_behind = bool(late) and (self._is_behind or any(item.too_late for item in late))
        if self._is_behind:
            others = len({item.channel for item in late} - {late[0].channel})
            more = f", nor what was said on {others} more channels" if others else ""
            said = f"what was said on {late[0].channel} {late[0].behind_s:.0f} s ago is not written down yet{more}"
            yield STT_BEHIND, f"Running behind: {said}."
        refused = self._manager.admission.refused
        if refused is not None:
            yield (
                REFUSING,
                f"More is said than can be written down: new conversations are turned away ({refused} so far).",
            )

    async def _adopt(self) -> int:
        """A store that is away is waited for; clients are told to try again meanwhile."""
        while True:
            try:
                return await self._store.adopt()
            except BusUnavailableError as error:
                log.warning("audio.store_away", error=str(error))
                await asyncio.sleep(RETRY_S)

    def _start(self, conversation: Conversation) -> None:
        assert self._tasks is not None, "run() comes before the first connection"  # noqa: S101 - a programming error
        self._tasks.create_task(self._serve(conversation), name=f"conversation:{conversation.id}")

    async def _serve(self, conversation: Conversation) -> None:
        try:
            await conversation.run()
        except FencedError:
            self._manager.let_go(conversation)
        except Exception as error:  # noqa: BLE001 - it is resumed from its last ack; the others go on
            self._moving.failed()
            conversation.give_up(error)
        finally:
            self._moving.over(conversation)
            self._manager.finished(conversation)

    async def _answer(self, batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            try:
                found = _insights.decode(delivery.payload)
            except MALFORMED as error:
                raise RejectedError(f"Not an InsightsFound message: {error}") from error
            await self._manager.answered(found)


def ingest_class(name: str) -> type[Ingest]:
    """Import an ingest by its place in the table."""
    module, _, attribute = name.partition(":")
    found: type[Ingest] = getattr(import_module(module), attribute)
    return found


def callers(keys: Authenticator, twilio: TwilioSettings) -> Callable[[web.Request], Awaitable[Caller]]:
    """Return how a request for the audio socket is authenticated: with a key for `ingest`, or as a relayed call."""

    async def authenticate(request: web.Request) -> Caller:
        if RELAYED in request.headers and keys.behind_edge:
            return relayed_caller(twilio, request)
        principal = await keys.require(request, "ingest")
        return Caller(
            site=principal.site, key_id=principal.key_id, still_valid=lambda: keys.keys.still_valid(principal)
        )

    return authenticate


def build_engine(name: str, options: EngineOptions, store: ModelStore) -> SpeechToText:
    """A speech-to-text engine by its name in the table. Raises `ConfigurationError` with what to do."""
    engine: SpeechToText = engine_class(name).build(options, store)
    if engine.traits.sample_rate_hz != ENGINE_RATE:
        raise ConfigurationError(
            f"The engine {name} wants {engine.traits.sample_rate_hz} Hz; audio gives {ENGINE_RATE}."
        )
    return engine


def describe_models(engine: str, options: EngineOptions, store: ModelStore) -> list[ModelReport]:
    """Which speech-to-text model would be used, where from, and whether it is the published one."""
    report = store.describe(model_spec(options.model), options.model_path)
    if report.found and report.hash == "unknown":  # only loading such weights shows whether they are whole
        try:
            build_engine(engine, options, store).close()
        except ConfigurationError as error:
            report = replace(report, found=False, detail=str(error))
    return [report]


def cut_offline(
    samples: Int16, engine: SpeechToText, settings: AudioSettings
) -> Iterator[tuple[float, float, Transcript]]:
    """Utterances of a whole recording: start and end in seconds, transcript. samples: int16[n], 16 kHz mono."""
    return transcribe_offline(samples, engine, Silero(), settings)


__all__ = [
    "ENGINE_RATE",
    "Audio",
    "AudioHealth",
    "AudioSettings",
    "EngineOptions",
    "Int16",
    "Places",
    "SpeechToText",
    "build_engine",
    "cut_offline",
    "describe_models",
]
