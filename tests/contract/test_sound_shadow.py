"""Two sides of audio at real sockets: one serves, the other one hears a copy, compares, and changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from tests.support.hearing import Hall, ScriptedEngine, hall, lengths, said, silence, speech
from tests.support.linked import Word, served, until
from tests.unit.test_audio_share import Followed
from tests.unit.test_conversation import feed, spans

from quickcomm.audio.model.segmenter import SegmenterSettings
from quickcomm.audio.ports import Clip, Transcript
from quickcomm.audio.service.hand_over import Receivers
from quickcomm.audio.service.share import Share
from quickcomm.audio.service.sound_copy import Copies
from quickcomm.audio.service.sound_shadow import SILENT_S, SoundShadow
from quickcomm.contracts.evidence import HeardInShadow
from quickcomm.contracts.link import Room, ServedText, SoundCopy
from quickcomm.contracts.routes import MONOLITH, SERVICE, Mode, ModuleRoute, Routes, Side
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.messaging.live import LocalLive
from quickcomm.kernel.messaging.live.wire import WireLive
from quickcomm.traffic.adapters.heard import hearings
from quickcomm.traffic.model.gates import Evidence, Limits, judge

PHRASES: Final = 26
NAMES: Final[dict[Side, str]] = {MONOLITH: "monolith", SERVICE: "audio-1"}
MODULES: Final[dict[Side, str]] = {MONOLITH: "monolith", SERVICE: "audio"}
SAID: Final = [
    np.concatenate([silence(1.2), speech(0.4 + 0.1 * (number % 7)), silence(0.9)]) for number in range(PHRASES)
]


def wrong(clips: Sequence[Clip]) -> list[Transcript]:
    return [Transcript(text="something else", confidence=1.0) for _ in clips]


class End:
    """A side of audio: it serves, copies, and hears what the other one copies."""

    def __init__(self, side: Side, registry: DirectoryRegistry, engine: ScriptedEngine) -> None:
        self.side = side
        self.clock = FakeClock()
        self.engine = engine
        self.live = LocalLive()
        self.followed = Followed(Routes(version=1, modules={"audio": ModuleRoute(mode="shadow")}), 1)
        self.share = Share(side, self.followed)
        self.receivers = Receivers(self.share, self.clock)
        self.copies = Copies(self.share, self.receivers, 1.0, self.live.publish, self.clock)
        self.wire = WireLive(self.live, ("audio",), registry, Word(), NAMES[side])
        self.here: Hall
        self.shadow: SoundShadow

    @asynccontextmanager
    async def running(self, registry: DirectoryRegistry, folder: Path) -> AsyncIterator[None]:
        name = NAMES[self.side]
        async with hall(folder / f"{name}.sqlite", self.engine, copies=self.copies) as self.here:
            self.here.on_published = self.copies.served
            self.shadow = SoundShadow(
                name, self.share, self.here.front_end, self.here.transcriber, self.clock, SegmenterSettings()
            )
            self.live.subscribe(
                [
                    (Room, self.receivers.told),
                    (SoundCopy, self.shadow.copied),
                    (ServedText, self.shadow.served),
                ]
            )
            socket = served(self.wire.routes(), registry, folder, name, MODULES[self.side], ("audio",))
            async with socket, asyncio.TaskGroup() as tasks:
                task = tasks.create_task(self.wire.run())
                self.live.publish(Room(conversations=100))
                yield
                task.cancel()

    def moves(self, mode: Mode) -> None:
        self.followed.routes = Routes(version=2, modules={"audio": ModuleRoute(mode=mode)})

    @property
    def found(self) -> HeardInShadow:
        found = self.shadow.since(0)
        assert found is not None
        return found

    async def compared(self, utterances: int = PHRASES) -> HeardInShadow:
        """Return what was compared, once it is so much, and the conversation is forgotten."""

        def done() -> bool:
            self.shadow.expire()
            return self.found.utterances >= utterances and not self.shadow.hears

        await until(done)
        return self.found


class Pair:
    """`serves` talks with a client; `hears` is its shadow."""

    def __init__(self, serves: End, hears: End) -> None:
        self.serves = serves
        self.hears = hears

    async def talk(self, *, at_once: bool = False) -> list[dict[str, Any]]:
        """Have the client say everything; return what it was told. `at_once`: whatever the shadow has heard."""
        session = await self.serves.here.open()
        telling = asyncio.create_task(said(session))
        for number, phrase in enumerate(SAID):
            await feed(session, phrase)
            await (self._sent() if at_once else self._compared(number))
        await self.serves.here.heard(session)
        session.conversation.end()
        return await asyncio.wait_for(telling, 60)

    async def _sent(self) -> None:
        await until(lambda: not any(line._bulk for line in self.serves.wire._lines))

    async def _compared(self, utterances: int) -> None:
        await until(lambda: self.hears.found.utterances >= utterances)


@asynccontextmanager
async def sides(folder: Path, candidate: ScriptedEngine) -> AsyncIterator[Pair]:
    registry = DirectoryRegistry(folder / "instances", lease_s=3_600)
    monolith, service = End(MONOLITH, registry, ScriptedEngine()), End(SERVICE, registry, candidate)
    async with AsyncExitStack() as stack:
        for end in (monolith, service):
            await stack.enter_async_context(end.running(registry, folder))
        await until(lambda: bool(monolith.receivers.room and service.receivers.room))
        await until(lambda: len(monolith.wire._lines) == len(service.wire._lines) == 2)
        yield Pair(monolith, service)


def outcome(found: HeardInShadow, mode: Mode = "shadow") -> str:
    return judge("audio", mode, Evidence(heard=hearings([found, None])), Limits()).outcome


def told(events: list[dict[str, Any]]) -> list[Any]:
    """Return what a client was told, but for the times."""
    return [*spans(events), [each["text"] for each in events if each["type"] == "utterance"], events[-2], events[-1]]


@pytest.fixture
async def undisturbed(tmp_path: Path) -> list[Any]:
    async with hall(tmp_path / "calm.sqlite") as here:
        session = await here.open()
        await feed(session, np.concatenate(SAID))
        session.conversation.end()
        return told(await asyncio.wait_for(said(session), 60))


async def test_a_candidate_that_hears_the_same_passes_and_publishes_nothing(
    tmp_path: Path, undisturbed: list[Any]
) -> None:
    async with sides(tmp_path, ScriptedEngine()) as pair:
        assert told(await pair.talk()) == undisturbed
        found = await pair.hears.compared()
        there = pair.hears.here
        shown = [*there.captions.captions, *there.captions.shown, *there.captions.late]
        assert shown == []
        assert not await there.store.known("main", "c-1")
        assert await there.store.ledgers(None) == []
        assert there.manager.conversations == []
    assert (found.utterances, found.words, found.wrong, found.missed, found.extra) == (PHRASES, PHRASES, 0, 0, 0)
    assert set(found.starts_ms + found.ends_ms) == {0.0}
    assert (found.shed, found.lost, found.differences) == (0, 0, ())
    assert outcome(found) == "pass"


async def test_a_candidate_with_a_wrong_engine_is_a_breach_by_name(tmp_path: Path) -> None:
    async with sides(tmp_path, ScriptedEngine(wrong)) as pair:
        await pair.talk()
        found = await pair.hears.compared()
    assert found.wrong >= found.words
    assert {each.fields for each in found.differences} == {("words",)}
    assert found.differences[0].utterance_id.startswith("c-1:0:")
    assert outcome(found) == "breach"


async def test_a_candidate_that_hears_nothing_misses_all(tmp_path: Path) -> None:
    async with sides(tmp_path, ScriptedEngine(lambda clips: [Transcript(text="") for _ in clips])) as pair:
        await pair.talk()
        found = await pair.hears.compared()
    assert found.missed == PHRASES
    assert outcome(found) == "breach"


async def test_in_a_canary_the_monolith_hears_what_the_candidate_serves(tmp_path: Path) -> None:
    async with sides(tmp_path, ScriptedEngine(wrong)) as pair:
        for end in (pair.serves, pair.hears):
            end.moves("canary")
        turned = Pair(pair.hears, pair.serves)
        await turned.talk()
        found = await turned.hears.compared()
    assert outcome(found, "canary") == "breach"


async def test_a_candidate_that_is_slow_drops_and_the_client_notices_nothing(
    tmp_path: Path, undisturbed: list[Any]
) -> None:
    engine = ScriptedEngine()
    engine.go.clear()
    async with sides(tmp_path, engine) as pair:
        assert told(await pair.talk(at_once=True)) == undisturbed
        await until(lambda: pair.hears.found.shed > 0)
        engine.go.set()
        await until(lambda: not pair.hears.here.transcriber._beside)
        pair.hears.shadow.expire()
        found = pair.hears.found
        assert found.utterances < PHRASES
        assert found.wrong == 0, "what was left out is no difference"


async def test_a_candidate_that_reads_nothing_changes_nothing(
    tmp_path: Path, undisturbed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sides(tmp_path, ScriptedEngine()) as pair:
        monkeypatch.setattr(pair.hears.wire, "_hear", lambda *_: None)
        assert told(await pair.talk(at_once=True)) == undisturbed
        assert pair.hears.found == HeardInShadow()


async def test_served_speech_of_the_candidate_goes_first(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with sides(tmp_path, engine) as pair:
        engine.go.clear()
        own = await pair.hears.here.open("own")
        await feed(own, np.concatenate([silence(0.5), speech(0.9), silence(0.7)]))
        await until(lambda: len(engine.calls) == 1)
        await pair.talk(at_once=True)
        await until(lambda: bool(pair.hears.here.transcriber._beside))
        await feed(own, np.concatenate([silence(0.5), speech(0.9), silence(0.7)]))
        await until(lambda: not pair.hears.here.transcriber._beside)
        assert pair.hears.found.shed
        engine.go.set()
        own.conversation.end()
        assert len(spans(await asyncio.wait_for(said(own), 60))) == 2


async def test_a_copy_with_a_hole_is_broken_off_and_begun_anew(tmp_path: Path) -> None:
    async with sides(tmp_path, ScriptedEngine(lengths)) as pair:
        session = await pair.serves.here.open()
        for number, phrase in enumerate(SAID[:10]):
            await feed(session, phrase)
            if number == 5:
                await until(lambda: pair.hears.found.utterances >= 5)
                pair.serves.copies._lines[session.conversation.key].number += 1
        session.conversation.end()
        await asyncio.wait_for(said(session), 60)
        found = await pair.hears.compared(8)
    assert found.lost == 1
    assert (found.wrong, found.missed, found.extra) == (0, 0, 0)
    assert found.utterances < 10


async def test_a_conversation_of_which_nothing_comes_any_more_is_forgotten(tmp_path: Path) -> None:
    async with sides(tmp_path, ScriptedEngine()) as pair:
        session = await pair.serves.here.open()
        await feed(session, np.concatenate(SAID[:3]))
        await until(lambda: pair.hears.shadow.hears == 1)
        pair.hears.clock.advance(SILENT_S + 1)
        pair.hears.shadow.expire()
        assert pair.hears.shadow.hears == 0
        pair.hears.moves("full")
        assert pair.hears.shadow.since(0) is None
