"""A site that is behind: what the client and the page are told, who is heard ahead, and who is turned away."""

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from tests.support.hearing import TOKEN, Hall, ScriptedEngine, hall, silence, speech

from quickcomm.audio.ingest.caller import Caller
from quickcomm.audio.ingest.reception import Reception
from quickcomm.audio.ingest.websocket import NativeSocket, events_of
from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.model.formats import Int16
from quickcomm.audio.ports import Clip, Effort, OpenRequest, Transcript
from quickcomm.audio.service import metrics
from quickcomm.audio.service.admission import OverloadedError, Source
from quickcomm.audio.service.load import LIMITS_S
from quickcomm.audio.service.manager import Session
from quickcomm.audio.service.metrics import MOST_CHANNELS, OTHERS, BehindGauge
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.kernel.clock import FakeClock

CALM, FIRE = "Four towels to room 412.", "There is a fire in the kitchen, send security."
FAR_S = 4.0


class StepEngine(ScriptedEngine):
    """Answers a call with the next text that the test gives, and waits for it."""

    def __init__(self) -> None:
        super().__init__(self._answer, max_batch=1)
        self.texts: queue.Queue[str] = queue.Queue()
        self.efforts: list[Effort] = []

    def _answer(self, clips: Sequence[Clip]) -> list[Transcript]:
        self.efforts += [clip.effort for clip in clips]
        return [Transcript(text=self.texts.get(timeout=30), confidence=1.0) for _ in clips]


def phrase(seconds: float) -> Int16:
    return np.concatenate([silence(0.5), speech(seconds), silence(1.0)])


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - the engine's thread makes it so
            await asyncio.sleep(0)


class Behind:
    """A conversation on a channel, of which everything waits behind its first utterance."""

    def __init__(self, here: Hall, engine: StepEngine, clock: FakeClock, session: Session) -> None:
        self.here, self.engine, self.clock, self.session = here, engine, clock, session
        self.told: list[dict[str, object]] = []

    async def say(self, *lengths: float) -> None:
        listener = self.session.conversation._listener
        for seconds in lengths:
            sound, waiting = phrase(seconds), len(listener.pending)
            for start in range(0, len(sound), 1_600):
                await self.session.conversation.feed(sound[start : start + 1_600].tobytes())
            await until(lambda before=waiting: len(listener.pending) > before)  # type: ignore[misc]

    def of_kind(self, *kinds: str) -> list[dict[str, object]]:
        return [event for event in self.told if event["type"] in kinds]

    def urgent(self) -> bool:
        return self.session.conversation._listener.urgent

    async def listen(self) -> None:
        async for event in events_of(self.session.outlet):
            self.told.append(msgspec.json.decode(msgspec.json.encode(event), type=dict[str, object]))


@asynccontextmanager
async def behind(path: Path, channel: str = "desk", *lengths: float) -> AsyncIterator[Behind]:
    engine, clock = StepEngine(), FakeClock()
    async with hall(path / "site.sqlite", engine, clock=clock) as here:
        wanted = OpenRequest(site="main", conversation_id="c-1", channel=channel, format=AudioFormat(), token=TOKEN)
        made = Behind(here, engine, clock, await here.manager.open(wanted, 0))
        listening = asyncio.create_task(made.listen())
        await made.say(*lengths)
        await until(lambda: engine.calls)
        try:
            yield made
        finally:
            listening.cancel()
            for _ in range(20):
                engine.texts.put(CALM)


async def test_client_and_page_are_told_now_and_then_and_once_when_it_is_over(tmp_path: Path) -> None:
    async with behind(tmp_path, "desk", 1.0) as at:
        for _ in range(10):
            at.clock.advance(1.0)
            at.here.manager.look()
        assert at.session.conversation.too_late
        at.engine.texts.put(CALM)
        await until(lambda: at.of_kind("utterance"))
        at.here.manager.look()
        at.here.manager.look()
        await until(lambda: {"type": "late", "behind_ms": 0} in at.told)
        told = [int(str(event["behind_ms"])) for event in at.of_kind("late")]
        assert told[:-1] == sorted(told[:-1])
        assert 3 <= len(told[:-1]) <= 4
        assert told[0] >= 3_000
        late = at.here.captions.late
        assert [each.behind_ms for each in late] == told
        assert {(each.site, each.channel, each.conversation_id) for each in late} == {("main", "desk", "c-1")}


async def test_what_is_in_time_is_told_nothing(tmp_path: Path) -> None:
    async with behind(tmp_path, "desk", 1.0) as at:
        at.clock.advance(1.0)
        at.here.manager.look()
        at.engine.texts.put(CALM)
        await until(lambda: at.of_kind("utterance"))
        at.here.manager.look()
        assert at.here.captions.late == []


async def test_a_page_is_not_left_with_the_lateness_of_a_conversation_that_went_elsewhere(tmp_path: Path) -> None:
    async with behind(tmp_path, "desk", 1.0) as at:
        at.clock.advance(6.0)
        at.here.manager.look()
        at.session.conversation.hand_back(EndReason.FENCED)
        assert [each.behind_ms > 0 for each in at.here.captions.late] == [True, False]


async def test_an_emergency_on_a_line_far_behind_is_told_ahead_and_confirmed_in_its_place(tmp_path: Path) -> None:
    async with behind(tmp_path, "desk", 1.0, 1.2, 1.4) as at:
        at.clock.advance(FAR_S)
        at.engine.texts.put(CALM)
        await until(lambda: len(at.engine.calls) == 2)
        assert at.engine.calls[1][0] > at.engine.calls[0][0] + 0.3 * 16_000, "the newest, not the next"
        assert not at.urgent()
        at.engine.texts.put(FIRE)
        await until(lambda: at.of_kind("partial"))
        [ahead] = at.of_kind("partial")
        assert ahead["emergency"] is True
        assert ahead["text"] == FIRE
        [shown] = [each for each in at.here.captions.captions if each.emergency]
        assert (shown.text, shown.final) == (FIRE, False)
        assert at.urgent(), "the rest of the line goes first from now on"
        at.engine.texts.put(CALM)
        await until(lambda: len(at.of_kind("utterance")) == 3)
        assert [event["text"] for event in at.of_kind("utterance")] == [CALM, CALM, FIRE]
        assert at.of_kind("utterance")[-1]["utterance_id"] == shown.utterance_id
        assert len(at.engine.calls) == 3, "what was decoded ahead is not decoded again"


async def test_what_comes_in_its_turn_is_told_once(tmp_path: Path) -> None:
    async with behind(tmp_path, "desk", 1.0) as at:
        at.engine.texts.put(FIRE)
        await until(lambda: at.of_kind("utterance"))
        assert not [each for each in at.here.captions.captions if each.emergency]
        assert at.urgent()
        at.clock.advance(121.0)
        assert not at.urgent()


async def test_a_channel_for_emergencies_is_urgent_and_late_sooner(tmp_path: Path) -> None:
    async with behind(tmp_path, "Security", 1.0) as at:
        assert at.urgent()
        at.clock.advance(2.5)
        at.here.manager.look()
        assert at.session.conversation.too_late
        assert len(at.here.captions.late) == 1


# -- who is turned away -----------------------------------------------------------------------------------------------


def source(channel: str = "desk", key: str = "k-1") -> Source:
    return Source(site="main", key_id=key, channel=channel)


def overload(here: Hall) -> None:
    here.transcriber.load.look(LIMITS_S[-1] + 1, here.clock.monotonic())
    here.manager.admission.look()


def relieve(here: Hall, clock: FakeClock) -> None:
    for _ in range(8):
        clock.advance(2.1)
        here.manager.look()


def refused() -> float:
    return REGISTRY.get_sample_value("quickcomm_conversations_refused_total") or 0.0


async def test_a_new_conversation_is_turned_away_and_no_resume(tmp_path: Path) -> None:
    clock, before = FakeClock(), refused()
    async with hall(tmp_path / "site.sqlite", clock=clock) as here:
        await here.open("c-1")
    async with hall(tmp_path / "site.sqlite", clock=clock) as here:
        await here.open("c-2")
        await here.manager.admit(source(), "c-3")
        with capture_logs() as logs:
            overload(here)
            for _ in range(3):
                with pytest.raises(OverloadedError):
                    await here.manager.admit(source(), "c-3")
                overload(here)
            await here.manager.admit(source(), "c-2")  # it is on
            await here.manager.admit(source(), "c-1")  # the store knows it: another process had it
            await here.manager.admit(source("security"), "c-4")
            relieve(here, clock)
            await here.manager.admit(source(), "c-3")
        told = [entry for entry in logs if entry["event"].startswith("admission.")]
        assert [entry["event"] for entry in told] == ["admission.closed", "admission.opened"]
        assert told[-1]["refused"] == 3
        assert refused() - before == 3


async def test_a_conversation_for_each_transmission_gets_the_place_of_the_one_before(tmp_path: Path) -> None:
    clock = FakeClock()
    async with hall(tmp_path / "site.sqlite", clock=clock) as here:
        admission = here.manager.admission
        first = await here.open("t-1")
        with admission.present(source(), first.conversation):
            overload(here)
            with pytest.raises(OverloadedError):
                await here.manager.admit(source(), "t-2")
            first.conversation.end()
            await here.manager.admit(source(), "t-2")
            with pytest.raises(OverloadedError):
                await here.manager.admit(source(), "t-3")
        second = await here.open("t-2")
        with admission.present(source(), second.conversation):
            pass
        with pytest.raises(OverloadedError):
            await here.manager.admit(source("lobby"), "t-3")
        with pytest.raises(OverloadedError):
            await here.manager.admit(source(key="k-2"), "t-3")
        await here.manager.admit(source(), "t-3")
        third = await here.open("t-3")
        with admission.present(source(), third.conversation):
            pass
        clock.advance(here.manager.settings.idle_limit_s + 1)
        with pytest.raises(OverloadedError):
            await here.manager.admit(source(), "t-4")
        admission.forget_places()
        assert admission._places == {}


async def test_the_answer_says_when_to_come_back(tmp_path: Path) -> None:
    async def authenticate(_: web.Request) -> Caller:
        async def valid() -> bool:
            return True

        return Caller(site="main", key_id="k-1", still_valid=valid)

    async with hall(tmp_path / "site.sqlite") as here:
        app = web.Application()
        app.router.add_get(NativeSocket.path, NativeSocket(Reception(here.manager), authenticate).handle)
        overload(here)
        async with TestServer(app) as server, aiohttp.ClientSession() as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as turned_away:
                await client.ws_connect(server.make_url("/v1/conversations/c-1/audio?channel=desk"))
            assert turned_away.value.status == 503
            assert turned_away.value.headers is not None
            assert turned_away.value.headers["Retry-After"] == "10"
            async with client.ws_connect(server.make_url("/v1/conversations/c-2/audio?channel=security")) as socket:
                assert (await socket.receive_json())["type"] == "ready"


def test_a_figure_for_each_channel_that_is_behind_and_no_more_than_so_many() -> None:
    def shown() -> dict[str, float]:
        [family] = [each for each in REGISTRY.collect() if each.name == "quickcomm_audio_behind_seconds"]
        return {sample.labels["channel"]: sample.value for sample in family.samples}

    metrics._BEHIND.clear()
    gauge = BehindGauge()
    gauge.show({"desk": 7.0, "lobby": 0.2})
    assert shown() == {"desk": 7.0}
    gauge.show({f"c-{number}": 1.0 + number for number in range(2 * MOST_CHANNELS)})
    assert len(shown()) == MOST_CHANNELS + 1
    assert shown()[OTHERS] == MOST_CHANNELS
    gauge.show({})
    assert shown() == {}
