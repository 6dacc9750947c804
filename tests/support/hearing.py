"""The audio module's core with scripted engines: real store, bus and front end, no models, no sockets."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from quickcomm.audio.adapters.sql_sessions import MIGRATIONS, SqlSessions
from quickcomm.audio.ingest.websocket import ENDINGS, events_of
from quickcomm.audio.model.formats import Int16
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.ports import (
    VAD_STATE,
    Clip,
    FencedError,
    OpenRequest,
    Recorder,
    SessionStore,
    SttTraits,
    Transcript,
)
from quickcomm.audio.service.conversation import Conversation
from quickcomm.audio.service.front_end import FrontEnd
from quickcomm.audio.service.listener import Held, Tools
from quickcomm.audio.service.manager import Manager, Session
from quickcomm.audio.service.sound_copy import Copying, NoCopies
from quickcomm.audio.service.transcriber import Transcriber
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.clock import Clock, SystemClock
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.site_pack import load_pack
from quickcomm.kernel.storage import Database, migrate

TOKEN = "t" * 32
Answer = Callable[[Sequence[Clip]], list[Transcript]]


def lengths(clips: Sequence[Clip]) -> list[Transcript]:
    """Every clip's text is its length."""
    return [Transcript(text=str(len(clip.samples)), confidence=1.0) for clip in clips]


class Talk:
    """A `Line`: whose utterances come out one after the other."""

    def __init__(self, *, over: bool = False, urgent: bool = False) -> None:
        self.over = over
        self.urgent = urgent


class ScriptedEngine:
    """A `SpeechToText` that does what the test says; `hold` keeps it from answering."""

    def __init__(self, answer: Answer = lengths, *, workers: int = 1, max_batch: int = 4) -> None:
        self.traits = SttTraits(model="scripted", workers=workers, max_batch=max_batch)
        self.answer = answer
        self.calls: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.closed = False

    def transcribe(self, clips: Sequence[Clip]) -> list[Transcript]:
        self.calls.append([len(clip.samples) for clip in clips])
        assert self.go.wait(30), "nobody let the engine go on"
        return self.answer(clips)

    def close(self) -> None:
        self.closed = True


class Loudness:
    """Loud is voice."""

    rest = np.zeros(VAD_STATE, np.float32)

    def step(
        self, frames: npt.NDArray[np.float32], state: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        level = np.abs(frames[:, 64:]).mean(axis=1)
        return (level > 0.05).astype(np.float32), state


class Silent:
    """Only what must be seen comes, unless `watches` is set. `gives_receipts`: somebody is said to send receipts."""

    def __init__(self, *, gives_receipts: bool = False) -> None:
        self.gives_receipts = gives_receipts
        self.watches = False
        self.captions: list[Caption] = []
        self.late: list[Behind] = []
        self.shown: list[UtteranceTranscribed] = []
        self.before: list[str | None] = []

    def caption(self, caption: Caption) -> None:
        self.captions.append(caption)

    def behind(self, behind: Behind) -> None:
        self.late.append(behind)

    def published(self, message: UtteranceTranscribed, after: str | None) -> None:
        self.shown.append(message)
        self.before.append(after)

    def watched(self, site: str, channel: str) -> bool:  # noqa: ARG002 - the port's signature
        return self.watches


def speech(seconds: float, rate: int = 16_000) -> Int16:
    return (6_000 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


def silence(seconds: float, rate: int = 16_000) -> Int16:
    return np.zeros(round(seconds * rate), np.int16)


def request(
    conversation_id: str = "c-1",
    *,
    token: str | None = TOKEN,
    site: str = "main",
    audio_format: AudioFormat | None = None,
) -> OpenRequest:
    return OpenRequest(
        site=site,
        conversation_id=conversation_id,
        channel="desk",
        format=audio_format or AudioFormat(),
        token=token,
    )


class Hall:
    """A manager with its conversations' tasks."""

    def __init__(
        self,
        path: Path,
        engine: ScriptedEngine,
        settings: AudioSettings,
        recorder: Recorder | None,
        store: SessionStore | None,
        clock: Clock | None,
        copies: Copying,
    ) -> None:
        self.clock = clock or SystemClock(pauses=0)
        self.database = Database(path)
        self.store = SqlSessions(self.database, self.clock) if store is None else store
        self.bus = SqlBus(self.database, self.clock)
        self.engine = engine
        self.transcriber = Transcriber(engine, self.clock)
        self.captions = Silent()
        self.front_end = FrontEnd(Loudness(), self.clock, capacity=16, snapshot_every_s=0.0)
        tools = Tools(
            settings=settings,
            clock=self.clock,
            store=self.store,
            front_end=self.front_end,
            transcriber=self.transcriber,
            captions=self.captions,
            recorder=recorder,
            held=Held(settings.max_unacked_mb << 20),
            emergencies=EmergencyRules(load_pack().emergency),
            published=self._published,
            copies=copies,
        )
        self.manager = Manager(tools, self._spawn)
        self.on_published: Callable[[UtteranceTranscribed], None] = lambda _message: None
        self.tasks: asyncio.TaskGroup | None = None
        self.work: list[asyncio.Task[None]] = []

    def _published(self, message: UtteranceTranscribed) -> None:
        self.on_published(message)

    def _spawn(self, conversation: Conversation) -> None:
        assert self.tasks is not None
        self.work.append(self.tasks.create_task(self._live(conversation)))

    async def _live(self, conversation: Conversation) -> None:
        try:
            await conversation.run()
        except FencedError:
            self.manager.let_go(conversation)
        finally:
            self.manager.finished(conversation)

    async def open(self, conversation_id: str = "c-1", after_seq: int = 0) -> Session:
        return await self.manager.open(request(conversation_id), after_seq)

    async def heard(self, session: Session) -> None:
        """Every whole frame that was fed went through the front end, and what was said is published."""
        talk = session.conversation
        async with asyncio.timeout(30):
            while talk.behind:  # noqa: ASYNC110 - no event tells of a partial frame
                await asyncio.sleep(0)


@asynccontextmanager
async def hall(
    path: Path,
    engine: ScriptedEngine | None = None,
    settings: AudioSettings | None = None,
    recorder: Recorder | None = None,
    store: SessionStore | None = None,
    clock: Clock | None = None,
    copies: Copying | None = None,
) -> AsyncGenerator[Hall]:
    """Ends without a farewell, as a killed process does; open the same path again to restart it."""
    settings = settings or AudioSettings(answer_wait_s=0.0)
    made = Hall(path, engine or ScriptedEngine(), settings, recorder, store, clock, copies or NoCopies())
    made.database.open()
    made.bus.migrate()
    migrate(made.database.engine, "audio", MIGRATIONS)
    try:
        async with asyncio.TaskGroup() as tasks:
            made.tasks = tasks
            made.work += [tasks.create_task(made.front_end.run()), tasks.create_task(made.transcriber.run())]
            try:
                yield made
            finally:
                made.engine.go.set()
                for task in made.work:
                    task.cancel()
    finally:
        made.front_end.close()
        made.transcriber.close()
        await made.database.aclose()


async def said(session: Session) -> list[dict[str, object]]:
    """All that the connection hears until it is closed; the close code last."""
    found: list[dict[str, object]] = []
    async for event in events_of(session.outlet):
        found.append(msgspec.json.decode(msgspec.json.encode(event), type=dict[str, object]))  # noqa: PERF401 - async
    assert session.outlet.ended_by is not None
    found.append({"type": "close", "code": ENDINGS[session.outlet.ended_by][0]})
    return found
