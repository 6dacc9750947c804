"""A conversation on a real store with a scripted engine: what is acked is durable, whatever fails or comes between."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs
from tests.support.hearing import TOKEN, Hall, ScriptedEngine, hall, request, said, silence, speech
from tests.support.talking import understood

from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.model.formats import Int16
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.model.state import State
from quickcomm.audio.model.track import Span
from quickcomm.audio.ports import (
    Clip,
    EngineError,
    OpenRequest,
    Progress,
    RecordingError,
    Stored,
    Transcript,
)
from quickcomm.audio.service.manager import Session, ShuttingDownError
from quickcomm.audio.service.voice import Voice
from quickcomm.contracts.audio_socket import FRAME_MS, AudioFormat, DurableEvent, Insights, Utterance
from quickcomm.contracts.conversations import ConversationChanged
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.clock import FakeClock, SystemClock
from quickcomm.kernel.errors import BusyError, InvalidInputError
from quickcomm.kernel.storage import StorageError
from quickcomm.kernel.telemetry.side import set_side

PHRASE = np.concatenate([silence(0.5), speech(0.8), silence(0.7)])
NO_WAIT = AudioSettings(answer_wait_s=0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.sqlite"


async def feed(session: Session, samples: Int16) -> None:
    block = session.conversation.format.speakers * 1_600
    for start in range(0, len(samples), block):
        await session.conversation.feed(samples[start : start + block].tobytes())


async def utterances(here: Hall) -> list[tuple[int, int, int]]:
    """(speaker, start, end) of what is in the log."""
    log = await here.store.events("main", "c-1", 0)
    return [(each.speaker, each.start_offset, each.end_offset) for each in log if isinstance(each, Utterance)]


async def finish(session: Session) -> list[dict[str, object]]:
    session.conversation.end()
    return await asyncio.wait_for(said(session), 30)


async def test_from_beginning_to_end(path: Path) -> None:
    async with hall(path) as here:
        session = await here.open()
        await feed(session, np.tile(PHRASE, 3))
        events = await finish(session)
        [change] = await here.store.ledgers("c-1")
    assert [event["seq"] for event in events if "seq" in event] == [1, 2, 3]
    assert events[-1] == {"type": "close", "code": 1000}
    [ledger] = change.ledgers
    assert ledger.balanced
    assert ledger.received == 3 * len(PHRASE)
    assert ledger.speech == sum(end - start for _, start, end in spans(events))


def spans(events: Sequence[dict[str, object]]) -> list[tuple[int, int, int]]:
    return [
        (int(str(e["speaker"])), int(str(e["start_offset"])), int(str(e["end_offset"])))
        for e in events
        if e["type"] == "utterance"
    ]


async def test_resumed_after_a_restart(path: Path) -> None:
    async with hall(path.with_name("calm.sqlite")) as here:
        calm = await here.open()
        await feed(calm, np.tile(PHRASE, 2))
        expected = spans(await finish(calm))
    async with hall(path) as here:
        session = await here.open()
        await feed(session, np.concatenate([PHRASE, PHRASE[:16_000]]))
        await here.manager.checkpoint()
    async with hall(path) as here:
        assert await here.store.adopt() == 1
        again = await here.open()
        assert again.conversation.state is State.RESUMED
        at = again.conversation.next_offset
        assert at % 512 == 0
        await feed(again, np.tile(PHRASE, 2)[at:])
        await finish(again)
        assert await utterances(here) == expected


async def test_what_is_heard_during_a_migration_says_whose_audio_heard_it(path: Path) -> None:
    try:
        async with hall(path) as here:
            session = await here.open()
            await feed(session, PHRASE)
            await here.heard(session)
            assert session.conversation.change("live").side is msgspec.UNSET
            set_side(lambda: "service")
            await feed(session, PHRASE)
            await finish(session)
            assert session.conversation.change("ended").side == "service"
    finally:
        set_side(None)
    assert [message.side for message in here.captions.shown] == [msgspec.UNSET, "service"]
    assert [caption.side for caption in here.captions.captions] == [msgspec.UNSET, "service"]


async def test_two_tracks_with_one_sound_are_told_once(path: Path) -> None:
    mono = np.concatenate([speech(3.0), silence(1.0), speech(3.0)])
    async with hall(path) as here:
        with capture_logs() as logs:
            session = await here.manager.open(request(audio_format=AudioFormat(speakers=2)), 0)
            await feed(session, np.stack([mono, mono], axis=1).reshape(-1))
            assert here.manager.doubled() == [session.conversation]
            await feed(session, np.stack([speech(1.0), silence(1.0)], axis=1).reshape(-1))
            assert here.manager.doubled() == []
    assert [log["conversation_id"] for log in logs if log["event"] == "conversation.tracks_identical"] == ["c-1"]


async def test_two_speakers_go_on_from_different_checkpoints(path: Path) -> None:
    """The one who was further hears again what it knows, and does not take it twice."""
    both = AudioFormat(speakers=2)
    first = np.concatenate([PHRASE, silence(5.0)])
    second = np.concatenate([speech(5.0), silence(2.0)])
    sound = np.stack([first, second], axis=1).reshape(-1)

    async def play(here: Hall, until: int | None) -> Session:
        session = await here.manager.open(request(audio_format=both), 0)
        at = session.conversation.next_offset
        await feed(session, sound[2 * at :] if until is None else sound[2 * at : 2 * until])
        return session

    async with hall(path.with_name("calm.sqlite")) as here:
        expected = spans(await finish(await play(here, None)))
    async with hall(path) as here:
        session = await play(here, 72_000)
        await here.heard(session)
        await here.manager.checkpoint()
        offsets = [voice.checkpoint.offset for voice in session.conversation._intake.voices]
        assert offsets[0] > offsets[1]
        assert session.conversation.acked == offsets[1]
    async with hall(path) as here:
        again = await play(here, None)
        assert [voice.track.received for voice in again.conversation._intake.voices] == [len(first)] * 2
        await finish(again)
        assert sorted(await utterances(here)) == sorted(expected)
        [change] = await here.store.ledgers("c-1")
    assert all(ledger.balanced and ledger.received == len(first) for ledger in change.ledgers)


async def test_a_checkpoint_that_is_not_stored_yet_is_not_acked(path: Path) -> None:
    async with hall(path) as here:
        session = await here.open()
        talk = session.conversation
        await feed(session, silence(3.0))
        await here.heard(session)
        stored = talk.progress()
        assert stored is not None
        talk.saved(stored)
        acked = talk.acked
        assert acked == stored.checkpoints[0].offset > 0
        await feed(session, silence(3.0))
        await here.heard(session)
        later = talk.progress()
        assert later is not None
        talk.saved(stored)
        assert talk.acked == acked, "only what was stored is acked"
        again = talk.progress()
        assert again is not None
        assert again.checkpoints == later.checkpoints, "and what was not stored is offered again"


async def test_a_burst_is_acked_though_nothing_follows_it(path: Path) -> None:
    async with hall(path) as here:
        here.front_end._snapshot_frames = 31  # a second
        session = await here.open()
        await feed(session, silence(4.0))
        await here.heard(session)
        await here.manager.checkpoint()
        assert session.conversation.acked >= 2 * 16_000


async def test_a_store_that_fails_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hall(path) as here:
        session = await here.open()
        publish, failures = here.store.publish, [StorageError("disk full")] * 3
        tried: list[Progress] = []
        told: list[object] = []

        async def failing(progress: Progress, message: UtteranceTranscribed) -> DurableEvent | None:
            tried.append(progress)
            told.append(message.held_up)
            if failures:
                raise failures.pop()
            return await publish(progress, message)

        monkeypatch.setattr(here.store, "publish", failing)
        await feed(session, np.tile(PHRASE, 2))
        events = await finish(session)
        assert await utterances(here) == spans(events)
        [change] = await here.store.ledgers("c-1")
    assert [event["seq"] for event in events if "seq" in event] == [1, 2]
    assert len(tried) == 5
    assert told[:4] == [msgspec.UNSET, *["disk full"] * 3], "the receipt says why it is late"
    assert all(ledger.silence >= 0 and ledger.balanced for progress in tried for ledger in progress.ledgers)
    assert change.ledgers[0].speech == sum(end - start for _, start, end in spans(events))


async def test_while_a_publication_is_on_its_way_no_checkpoint_passes_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hall(path) as here:
        session = await here.open()
        entered, go = asyncio.Event(), asyncio.Event()
        publish = here.store.publish

        async def slow(progress: Progress, message: UtteranceTranscribed) -> DurableEvent | None:
            entered.set()
            await go.wait()
            return await publish(progress, message)

        monkeypatch.setattr(here.store, "publish", slow)
        await feed(session, np.concatenate([PHRASE, silence(3.0)]))
        await asyncio.wait_for(entered.wait(), 30)
        assert session.conversation.progress() is None
        await here.manager.checkpoint()
        assert (await here.store.ledgers("c-1"))[0].ledgers[0].received <= 8_000
        go.set()
        await finish(session)


async def test_speech_in_hand_is_published_with_its_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a flush the same sound would be cut otherwise: the crash may come at any moment, and costs nothing."""
    async with hall(path) as here:
        session = await here.open()
        await feed(session, PHRASE[:16_000])
        await here.heard(session)

        async def never(progress: Sequence[Progress]) -> list[tuple[str, str]]:
            raise StorageError(f"dead before it: {len(progress)}")

        monkeypatch.setattr(here.store, "save", never)
        session.conversation.flush_here()
        await here.heard(session)
        [(_, start, end)] = await utterances(here)
    async with hall(path) as here:
        again = await here.open()
        assert again.conversation.next_offset == 16_000 - 16_000 % 512
        rest = np.concatenate([speech(1.0), silence(1.0)])
        await feed(again, rest)
        await finish(again)
        [first, second] = await utterances(here)
        [change] = await here.store.ledgers("c-1")
    assert first == (0, start, end)
    assert second[1] >= end
    assert change.ledgers[0].speech == end - start + second[2] - second[1]


async def test_a_transmission_ends_where_the_key_was_let_go(path: Path) -> None:
    """Two in one burst stay two, each with what it was: cut hard at both ends, no silence between them."""
    async with hall(path) as here:
        session = await here.open()
        first, second = speech(0.83), speech(0.64)
        for part in (first, second):
            await feed(session, part)
            session.conversation.flush(session.conversation.next_offset)
        both = spans(await finish(session))
        [change] = await here.store.ledgers("c-1")
    assert both == [(0, 0, len(first)), (0, len(first), len(first) + len(second))]
    assert change.ledgers[0].balanced


async def test_a_flush_before_its_sound_counts_as_well(path: Path) -> None:
    async with hall(path) as here:
        session = await here.open()
        first, second = speech(0.83), speech(0.64)
        session.conversation.flush(len(first))
        await feed(session, np.concatenate([first, second]))
        assert spans(await finish(session)) == [(0, 0, len(first)), (0, len(first), len(first) + len(second))]


async def test_who_stops_sending_has_said_it(path: Path) -> None:
    """A push-to-talk gateway sends nothing between transmissions: each comes out alone."""
    clock = FakeClock()
    async with hall(path, clock=clock) as here:
        session = await here.open()
        talk = session.conversation
        for _ in range(3):
            before = len(await utterances(here))
            await feed(session, speech(0.83))
            await here.heard(session)
            clock.advance(0.83 + 0.9)
            talk.flush_if_stopped()
            await here.heard(session)
            assert len(await utterances(here)) == before
            clock.advance(0.3)
            talk.flush_if_stopped()
            await here.heard(session)
            assert len(await utterances(here)) == before, "it may be that this process could not read"
            talk.flush_if_stopped()
            await here.heard(session)
        size = len(speech(0.83))
        assert await utterances(here) == [(0, size * number, size * (number + 1)) for number in range(3)]
        await here.manager.checkpoint()
        assert 3 * size - 512 < talk.acked <= 3 * size


async def test_who_sends_slowly_has_not_stopped(path: Path) -> None:
    """Over a link that takes less sound than is spoken there are pauses all the time."""
    clock = FakeClock()
    async with hall(path, clock=clock) as here:
        session = await here.open()
        for start in range(0, 16_000, 1_600):
            await session.conversation.feed(speech(1.0)[start : start + 1_600].tobytes())
            await here.heard(session)
            session.conversation.flush_if_stopped()
            clock.advance(0.9)
        clock.advance(0.5)
        session.conversation.flush_if_stopped()
        await here.heard(session)
        assert await utterances(here) == []
        assert [(speaker, start) for speaker, start, _ in spans(await finish(session))] == [(0, 0)]


async def test_sound_that_could_not_be_read_in_time_was_not_stopped(path: Path) -> None:
    """A process that does nothing for seconds finds what was sent meanwhile at once; so does one that comes back."""
    clock = FakeClock()
    async with hall(path, clock=clock) as here:
        session = await here.open()
        sound = speech(3.0)
        await feed(session, sound[:16_000])
        await here.heard(session)
        clock.advance(5.0)
        session.conversation.flush_if_stopped()
        await feed(session, sound[16_000:32_000])
        session.conversation.flush_if_stopped()
        await here.heard(session)
        await here.manager.dropped(session)
        clock.advance(5.0)
        session = await here.open()
        for _ in range(3):
            clock.advance(0.2)
            session.conversation.flush_if_stopped()
        await feed(session, sound[32_000:])
        assert [start for _, start, _ in spans(await finish(session))] == [0]


async def test_the_end_that_could_not_be_stored_is_stored_later_and_counts_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hall(path) as here:
        session = await here.open()
        change_state, failed = here.store.change_state, asyncio.Event()

        async def once(progress: Progress, change: ConversationChanged) -> None:
            if not failed.is_set():
                failed.set()
                raise StorageError("full")
            await change_state(progress, change)

        monkeypatch.setattr(here.store, "change_state", once)
        await feed(session, PHRASE)
        session.conversation.end()
        await asyncio.wait_for(failed.wait(), 30)
        await here.manager.checkpoint()
        [change] = await here.store.ledgers("c-1")
        assert change.ledgers[0].balanced
        assert change.ledgers[0].received == len(PHRASE)
    async with hall(path) as here:
        again = await here.open()
        assert len(PHRASE) - 512 < again.conversation.next_offset <= len(PHRASE)
        await finish(again)
        [change] = await here.store.ledgers("c-1")
        [(_, start, end)] = await utterances(here)
    assert change.ledgers[0].balanced
    assert change.ledgers[0].speech == end - start


async def test_a_ledger_tells_what_was_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is counted where it is heard, so an utterance that was dropped is missing in the sum."""
    async with hall(path) as here:
        session = await here.open()
        listener = session.conversation._listener
        finished = listener._finished
        taken: list[Span] = []

        def lossy(voice: Voice, span: Span) -> None:
            taken.append(span)
            if len(taken) != 2:
                finished(voice, span)

        monkeypatch.setattr(listener, "_finished", lossy)
        await feed(session, np.tile(PHRASE, 3))
        await finish(session)
        [change] = await here.store.ledgers("c-1")
    [ledger] = change.ledgers
    assert not ledger.balanced
    assert ledger.received - ledger.speech - ledger.silence - ledger.gap == taken[1].end - taken[1].start


async def test_utterances_without_words_are_silence(path: Path) -> None:
    texts = ["towels", "", "room 412"]
    async with hall(path, ScriptedEngine(lambda clips: [Transcript(text=texts.pop(0)) for _ in clips])) as here:
        session = await here.open()
        await feed(session, np.tile(PHRASE, 3))
        both = spans(await finish(session))
        [change] = await here.store.ledgers("c-1")
    assert len(both) == 2
    assert change.ledgers[0].balanced
    assert change.ledgers[0].speech == sum(end - start for _, start, end in both)


async def test_insights_whose_mail_is_lost_end_the_talk_in_time(path: Path) -> None:
    """Also where a later event was told of."""
    async with hall(path, settings=AudioSettings(answer_wait_s=30.0)) as here:
        session = await here.open()
        await feed(session, np.tile(PHRASE, 2))
        await here.heard(session)
        first, second = [understood(message) for message in here.captions.shown]
        await here.store.add_insights(first)  # nobody tells
        await here.manager.answered(second)
        events = await asyncio.wait_for(finish(session), 10)
    assert events[-1] == {"type": "close", "code": 1000}


async def test_who_comes_while_the_server_stops_is_sent_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hall(path) as here:
        opened, go = asyncio.Event(), asyncio.Event()
        take = here.store.open

        async def slow(wanted: OpenRequest, token: str) -> Stored:
            stored = await take(wanted, token)
            opened.set()
            await go.wait()
            return stored

        monkeypatch.setattr(here.store, "open", slow)
        coming = asyncio.ensure_future(here.open())
        await opened.wait()
        await here.manager.drain()
        go.set()
        with pytest.raises(ShuttingDownError):
            await coming
        assert here.manager.conversations == []
        [change] = await here.store.ledgers("c-1")
        assert change.state == "interrupted"


async def test_another_format_disturbs_nobody(path: Path) -> None:
    """It is refused before the conversation has another owner."""
    async with hall(path) as here:
        session = await here.open()
        other = request(audio_format=AudioFormat(sample_rate=8_000))
        with pytest.raises(InvalidInputError):
            await here.store.open(other, TOKEN)
        assert await here.store.fenced([session.conversation.account.now()]) == []


async def test_who_comes_at_the_same_time_is_counted(path: Path) -> None:
    async with hall(path, settings=AudioSettings(max_sessions=2)) as here:
        with here.manager.expecting(("main", "a")), here.manager.expecting(("main", "b")):
            with pytest.raises(BusyError), here.manager.expecting(("main", "c")):
                pass
            with here.manager.expecting(("main", "a")):
                pass
        with here.manager.expecting(("main", "c")):
            pass


async def test_nothing_is_taken_from_who_is_being_turned_away(path: Path) -> None:
    async with hall(path) as here:
        session = await here.open()
        assert session.conversation.serves(session.outlet)
        session.outlet.close(EndReason.REVOKED)
        assert not session.conversation.serves(session.outlet)


async def test_who_is_kept_waiting_is_not_cut_off(path: Path) -> None:
    """A client that sends nothing because its window is full of what we have not decoded yet has not fallen silent."""
    async with hall(path.with_name("calm.sqlite")) as here:
        calm = await here.open()
        await feed(calm, np.tile(PHRASE, 2))
        expected = spans(await finish(calm))
    async with hall(path) as here:
        here.engine.go.clear()
        session = await here.open()
        talk = session.conversation
        await feed(session, np.concatenate([PHRASE, PHRASE[:16_000]]))
        async with asyncio.timeout(30):
            while not talk._listener.all_heard:  # noqa: ASYNC110 - no event tells of a partial frame
                await asyncio.sleep(0)
        much_later = here.clock.monotonic() + here.manager.settings.interrupted_grace_s + 1
        here.manager._sweep(talk, much_later)
        here.engine.go.set()
        await feed(session, PHRASE[16_000:])
        assert spans(await finish(session)) == expected


async def test_who_has_fallen_silent_is_published(path: Path) -> None:
    async with hall(path) as here:
        session = await here.open()
        await feed(session, PHRASE[:16_000])
        await here.heard(session)
        much_later = here.clock.monotonic() + here.manager.settings.interrupted_grace_s + 1
        here.manager._sweep(session.conversation, much_later)
        await here.heard(session)
        assert len(await utterances(here)) == 1


@pytest.mark.parametrize("text", ["", "towels"])
async def test_a_fenced_owner_acks_nothing(path: Path, text: str) -> None:
    engine = ScriptedEngine(lambda clips: [Transcript(text=text) for _ in clips])
    async with hall(path, engine) as here:
        session = await here.open()
        await here.store.open(request(), TOKEN)  # somebody else
        await feed(session, np.tile(PHRASE, 4))
        events = await asyncio.wait_for(said(session), 30)
        assert here.manager.conversations == []
        assert await utterances(here) == []
    assert [event["type"] for event in events] == ["error", "close"]
    assert events[0]["code"] == "audio.fenced"
    assert session.conversation.acked == 0


async def test_speech_that_no_engine_can_take_is_marked_and_acked(path: Path) -> None:
    def broken(_: Sequence[Clip]) -> list[Transcript]:
        raise EngineError("no")

    async with hall(path, ScriptedEngine(broken)) as here:
        session = await here.open()
        await feed(session, PHRASE)
        events = await finish(session)
        assert session.conversation.acked == len(PHRASE)
    [event] = [event for event in events if event["type"] == "utterance"]
    assert event["unintelligible"] is True
    assert event["status"] == "unintelligible"
    assert event["text"] == ""


@pytest.mark.parametrize(("voiced_s", "published"), [(0.8, []), (1.4, ["unintelligible"])])
async def test_voice_without_a_word_is_speech_and_a_click_is_silence(
    path: Path, voiced_s: float, published: list[str]
) -> None:
    sound = np.concatenate([silence(0.5), speech(voiced_s), silence(0.7)])
    async with hall(path, ScriptedEngine(lambda clips: [Transcript(text="") for _ in clips])) as here:
        session = await here.open()
        await feed(session, sound)
        events = await finish(session)
    assert [event["status"] for event in events if event["type"] == "utterance"] == published
    [ended] = [event for event in events if event["type"] == "ended"]
    ledger = msgspec.convert(ended["ledger"], dict[str, int])
    assert ledger["received"] == len(sound) == ledger["speech"] + ledger["silence"]
    assert bool(ledger["speech"]) == bool(published)


async def test_a_second_connection_takes_over(path: Path) -> None:
    """What the first one still sends must not be heard: the second one sends it again."""
    async with hall(path) as here:
        first = await here.open()
        await feed(first, PHRASE[:8_000])
        second = await here.open()
        assert second.conversation is first.conversation
        assert not first.conversation.serves(first.outlet)
        assert first.conversation.serves(second.outlet)
        events = await said(first)
        assert [event.get("code") for event in events] == ["audio.superseded", 1008]
        await here.manager.dropped(first)
        assert second.conversation.connected
        await feed(second, PHRASE[second.conversation.next_offset :])
        ended = await finish(second)
    assert len([event for event in ended if event["type"] == "utterance"]) == 1


async def test_a_client_far_ahead_waits_and_a_new_connection_is_not_stuck(path: Path) -> None:
    engine = ScriptedEngine()
    engine.go.clear()
    settings = AudioSettings(answer_wait_s=0.0, max_unacked_ms=6_000)
    async with hall(path, engine, settings, clock=SystemClock(limits=1_000)) as here:  # not read on meanwhile
        first = await here.open()
        ahead = asyncio.ensure_future(feed(first, np.tile(PHRASE, 8)))
        async with asyncio.timeout(30):
            while not engine.calls:  # noqa: ASYNC110 - the engine's thread makes it so
                await asyncio.sleep(0)
        assert not ahead.done()
        received = first.conversation.next_offset
        assert received - first.conversation.acked <= 6 * 16_000 + 1_600
        ahead.cancel()
        await here.manager.dropped(first)
        second = await here.open()
        engine.go.set()
        going = asyncio.ensure_future(feed(second, np.tile(PHRASE, 8)[second.conversation.next_offset :]))
        async with asyncio.timeout(30):
            while not going.done():
                await here.manager.checkpoint()
                await asyncio.sleep(0)
        assert len(spans(await finish(second))) == 8


@pytest.mark.parametrize("full", [False, True])
async def test_a_client_far_ahead_is_read_slowly_while_there_is_memory(path: Path, *, full: bool) -> None:
    """So that its pings, which lie behind its sound, are answered; nothing can be acked meanwhile."""
    engine = ScriptedEngine()
    engine.go.clear()
    async with hall(path, engine, AudioSettings(answer_wait_s=0.0, max_unacked_ms=6_000)) as here:
        session = await here.open()
        held = here.manager._tools.held
        held.most = 1 if full else held.most
        ahead = asyncio.ensure_future(feed(session, np.tile(PHRASE, 32)))
        done, _ = await asyncio.wait([ahead], timeout=0.5 if full else 30)
        assert bool(done) is not full
        assert full or held.total >= 2 * len(np.tile(PHRASE, 32)) - 2 * 16_000
        ahead.cancel()


async def test_insights_may_be_told_of_before_the_utterance_is_known_to_be_stored(path: Path, tmp_path: Path) -> None:
    """By another process, which was quick, while the answer of the store took long: nobody waits for them any more."""
    async with hall(tmp_path / "calm.sqlite") as here:
        session = await here.open()
        await feed(session, PHRASE)
        [(_, start, _)] = spans(await finish(session))
    engine = ScriptedEngine()
    async with hall(path, engine, AudioSettings(answer_wait_s=3_600.0)) as here:
        engine.go.clear()
        session = await here.open()
        await feed(session, PHRASE)
        early = Insights[Insight](seq=2, utterance_id=f"c-1:0:{start}", insights=())
        here.manager.told("main", "c-1", early)
        here.manager.told("main", "c-9", early)
        engine.go.set()
        events = await finish(session)
    assert events[-1] == {"type": "close", "code": 1000}


async def test_a_drain_is_over_as_soon_as_all_is_heard(path: Path) -> None:
    """A message seldom ends with a frame: what is left of it is asked for again, and waited for by nobody."""
    async with hall(path, settings=AudioSettings(drain_s=3_600)) as here:
        session = await here.open()
        await feed(session, np.concatenate([PHRASE, silence(1.0), speech(0.51)]))
        await asyncio.wait_for(here.manager.drain(), 30)
        events = await asyncio.wait_for(said(session), 30)
        assert [event.get("code") for event in events if event["type"] == "close"] == [1012]
        assert len(spans(events)) == 1
        await here.manager.dropped(session)
        assert not session.conversation.connected
    assert (acks(events))[-1] == session.conversation.acked
    async with hall(path) as here:
        assert (await here.open()).conversation.next_offset == session.conversation.acked


def acks(events: Sequence[dict[str, object]]) -> list[int]:
    return [int(str(event["offset"])) for event in events if event["type"] == "ack"]


async def test_a_drain_goes_on_when_the_disk_is_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hall(path) as here:
        session = await here.open()
        await feed(session, silence(2.0))

        async def never(progress: Sequence[Progress]) -> list[tuple[str, str]]:
            raise StorageError(f"disk full: {len(progress)}")

        monkeypatch.setattr(here.store, "save", never)
        await asyncio.wait_for(here.manager.drain(), 30)
        events = await asyncio.wait_for(said(session), 30)
    assert events[-1] == {"type": "close", "code": 1012}
    assert acks(events) == []


async def test_an_idle_limit_that_falls_into_a_drain(path: Path) -> None:
    async with hall(path) as here:
        session = await here.open()
        await here.manager.dropped(session)
        session.conversation.stop_listening()
        session.conversation.expire()
        assert session.conversation.state is State.DRAINING


async def test_who_does_not_come_back_ends_with_what_was_received(path: Path) -> None:
    async with hall(path) as here:
        session = await here.open()
        await feed(session, PHRASE)
        await here.manager.dropped(session)
        session.conversation.expire()
        session.conversation.expire()
        async with asyncio.timeout(30):
            while here.manager.conversations:  # noqa: ASYNC110 - only the end of its task tells
                await asyncio.sleep(0)
        [change] = await here.store.ledgers("c-1")
    assert change.state == "expired"
    assert change.ledgers[0].speech > 0
    assert len(PHRASE) - 512 < change.ledgers[0].received <= len(PHRASE)


async def test_one_stream_that_fails_does_not_harm_the_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hall(path) as here:
        good, bad = await here.open(), await here.open("c-2")

        def broken(*_: object) -> list[object]:
            raise ZeroDivisionError

        monkeypatch.setattr(bad.conversation._intake.voices[0].track, "step", broken)
        await feed(bad, PHRASE)
        await feed(good, PHRASE)
        events = await asyncio.wait_for(said(bad), 30)
        assert [event.get("code") for event in events] == ["audio.failed", 1011]
        assert len(spans(await finish(good))) == 1
        assert len(here.front_end._free) == 16


async def test_a_door_is_for_one_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the first one at it fails: two owners in one process would fence each other."""
    async with hall(path) as here:
        open_, inside, most, fail = here.store.open, 0, 0, [StorageError("no")]

        async def counting(wanted: OpenRequest, token: str) -> Stored:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            try:
                await asyncio.sleep(0)
                if fail:
                    raise fail.pop()
                stored = await open_(wanted, token)
                late.append(asyncio.ensure_future(here.open()))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                return stored
            finally:
                inside -= 1

        late: list[asyncio.Future[Session]] = []
        monkeypatch.setattr(here.store, "open", counting)
        results = await asyncio.gather(*(here.open() for _ in range(3)), return_exceptions=True)
        sessions = [result for result in results if not isinstance(result, BaseException)]
        sessions += await asyncio.gather(*late)
        assert isinstance(results[0], StorageError)
        assert most == 1
        assert len({id(session.conversation) for session in sessions}) == 1
        assert here.manager._opening == {}


async def test_what_ended_is_not_live_again(path: Path) -> None:
    async with hall(path) as here:
        session = await here.open()
        await feed(session, PHRASE)
        session.conversation.end()
        opened = 0
        async with asyncio.timeout(30):
            while not session.conversation.finished:
                await here.open()
                opened += 1
        assert opened
        [change] = await here.store.ledgers("c-1")
        assert change.state == "ended"
        replay = await here.open()
        events = await asyncio.wait_for(said(replay), 30)
    assert [event["type"] for event in events] == ["utterance", "ended", "close"]


async def test_a_client_that_knows_more_than_the_log(path: Path) -> None:
    """A backup was restored, say: it must hear what comes, though it has seen such numbers before."""
    async with hall(path) as here:
        session = await here.open(after_seq=1_000)
        await feed(session, PHRASE)
        assert len(spans(await finish(session))) == 1


async def test_sound_that_cannot_be_kept_is_still_written_down(path: Path) -> None:
    class Full:
        async def record(self, site: str, utterance_id: str, samples: Int16) -> None:
            raise RecordingError(f"no room for {site} {utterance_id} {len(samples)}")

    async with hall(path, recorder=Full()) as here:
        session = await here.open()
        await feed(session, PHRASE)
        with capture_logs() as logged:
            assert len(spans(await finish(session))) == 1
    [line] = [line for line in logged if line["event"] == "recording.failed"]
    assert "no room for main" in line["error"]
    assert "exc_info" not in line, "what caused it may be a request with its signature"


async def test_who_is_back_before_the_break_is_stored_is_live(path: Path) -> None:
    async with hall(path) as here, asyncio.TaskGroup() as tasks:
        first = await here.open()
        async with first.conversation.account.storing:  # as while a publication is stored
            coming = tasks.create_task(here.open())
            await asyncio.sleep(0)
            going = tasks.create_task(here.manager.dropped(first))
            await asyncio.sleep(0)
        await coming
        await going
        [change] = await here.store.ledgers("c-1")
        assert change.state == "live"


async def test_what_came_back_while_its_owner_was_looked_for_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was fenced, and by the time that this is known it is here again, under a new epoch."""
    async with hall(path) as here:
        old = await here.open()
        new: list[Session] = []

        async def fenced(progress: Sequence[Progress]) -> list[tuple[str, str]]:
            here.manager.let_go(old.conversation)
            new.append(await here.open())
            return [(each.site, each.conversation_id) for each in progress]

        monkeypatch.setattr(here.store, "fenced", fenced)
        await here.manager.look_for_owners()
        assert here.manager.conversations == [new[0].conversation]
        assert not new[0].conversation.released


async def test_who_is_in_may_come_back_though_it_is_full(path: Path) -> None:
    async with hall(path, settings=AudioSettings(max_sessions=1)) as here:
        session = await here.open()
        await here.manager.dropped(session)
        with pytest.raises(BusyError), here.manager.expecting(("main", "c-2")):
            pass
        with here.manager.expecting(("main", "c-1")):
            pass
        assert (await here.open()).conversation is session.conversation


async def test_nobody_hands_over_to_one_that_stops_as_well(path: Path) -> None:
    """All processes are stopped at once: each still saw the other when it began."""
    settings = AudioSettings(answer_wait_s=0.0, hand_over_s=0.0, drain_s=30.0)
    async with hall(path, settings=settings) as here:
        session = await here.open()
        here.engine.go.clear()
        await feed(session, PHRASE)
        there = [True]

        def others() -> bool:
            if there:
                return there.pop()
            here.engine.go.set()
            return False

        await asyncio.wait_for(here.manager.drain(others), 60)
        assert len(spans(await asyncio.wait_for(said(session), 30))) == 1


@pytest.mark.parametrize("full", [False, True], ids=["killed", "the disk is full first"])
async def test_killed_between_the_last_utterance_and_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, full: bool
) -> None:
    """The talk seldom ends with a frame: who comes back then is let in, and hears the end."""
    sound = np.concatenate([PHRASE, silence(0.5)[:7_777]])
    async with hall(path, settings=AudioSettings(answer_wait_s=0.0 if full else 3_600.0)) as here:
        session = await here.open()
        if full:
            monkeypatch.setattr(here.store, "change_state", no_room)
        await feed(session, sound)
        session.conversation.end()
        async with asyncio.timeout(30):
            while not await utterances(here):  # noqa: ASYNC110 - the store makes it so
                await asyncio.sleep(0)
        for _ in range(100):
            await here.manager.checkpoint()
            await asyncio.sleep(0)
        acked = session.conversation.acked
    monkeypatch.undo()
    async with hall(path, settings=NO_WAIT) as here:
        await here.store.adopt()
        again = await here.open()
        at = again.conversation.next_offset
        assert acked <= at <= len(sound)
        await feed(again, sound[at:])
        await finish(again)
        [change] = await here.store.ledgers("c-1")
        assert change.state == "ended"
        assert change.ledgers[0].received == len(sound)
        assert change.ledgers[0].balanced


async def no_room(*_: object) -> None:
    raise StorageError("The disk is full.")


async def test_a_process_that_holds_much_slows_down_who_is_far_ahead(path: Path) -> None:
    """But nobody so far that his own utterance could not end."""
    async with hall(path, settings=AudioSettings(answer_wait_s=0.0, max_unacked_mb=1)) as here:
        here.engine.go.clear()
        session = await here.open()
        going = asyncio.ensure_future(feed(session, np.tile(PHRASE, 20)))
        async with asyncio.timeout(30):
            while session.conversation.next_offset < 32 * 16_000:  # noqa: ASYNC110 - it is taken little by little
                await asyncio.sleep(0)
        assert here.manager._tools.held.full
        assert not going.done()
        assert session.conversation.next_offset < 34 * 16_000
        here.engine.go.set()
        await going
        assert len(spans(await finish(session))) == 20
    assert here.manager._tools.held.total == 0


async def test_while_the_store_is_away_nobody_runs_out_of_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could come back in that time."""
    clock = FakeClock()
    async with hall(path, clock=clock) as here:
        session = await here.open()
        await here.manager.dropped(session)
        expire = here.store.expire

        async def away(before_ns: int, now_ns: int, keep: frozenset[tuple[str, str]]) -> int:
            raise StorageError(f"away: {before_ns} {now_ns} {keep}")

        monkeypatch.setattr(here.store, "expire", away)
        clock.advance(here.manager.settings.idle_limit_s + 60)
        await here.manager.sweep()
        monkeypatch.setattr(here.store, "expire", expire)
        clock.advance(here.manager.settings.idle_limit_s - 1)
        await here.manager.sweep()
        assert session.conversation.state == "interrupted"
        clock.advance(2)
        await here.manager.sweep()
        assert session.conversation.state == "expiring"


async def test_who_sends_faster_than_people_speak_may_pause(path: Path) -> None:
    clock = FakeClock()
    async with hall(path, clock=clock) as here:
        session = await here.open()
        await feed(session, speech(6.0))
        await here.heard(session)
        clock.advance(6.5)
        session.conversation.flush_if_stopped()
        await feed(session, speech(1.0))
        assert [start for _, start, _ in spans(await finish(session))] == [0]


async def in_real_time(session: Session, samples: Int16, clock: FakeClock) -> None:
    for start in range(0, len(samples), 1_600):
        clock.advance(0.1)
        await session.conversation.feed(samples[start : start + 1_600].tobytes())


async def test_sound_that_was_held_up_keeps_its_time_also_after_a_restart(path: Path) -> None:
    """Said at 40.5 s, while no server could be reached; it comes at 130 s, to another process."""
    clock = FakeClock(pauses=0)
    began = clock.now_ns()
    async with hall(path, clock=clock) as here:
        session = await here.open()
        await in_real_time(session, silence(40), clock)
        await here.heard(session)
        await here.manager.checkpoint()
        at = session.conversation.acked
        assert at > 30 * 16_000
    clock.advance(90)
    async with hall(path, clock=clock) as here:
        await here.store.adopt()
        again = await here.open()
        await feed(again, np.concatenate([silence(40)[at:], PHRASE]))
        await here.heard(again)
        [message] = here.captions.shown
    assert (message.spoken_at_ns - began) / 1e9 == pytest.approx(40.5, abs=0.5)
    assert (message.speech_ended_ns - began) / 1e9 == pytest.approx(41.3, abs=0.5)
    assert message.late_ms == pytest.approx(90_000 - 2_000, abs=1_500)
    assert message.latency.endpoint is not None
    assert message.latency.endpoint < 1_000


async def test_a_client_says_when_its_sound_was_captured(path: Path) -> None:
    clock = FakeClock(pauses=0)
    async with hall(path, clock=clock) as here:
        session = await here.open()
        assert session.ready.now_ms == clock.now_ns() // 1_000_000
        captured = clock.now_ns() - 80 * 10**9
        session.conversation.captured(0, captured)
        await feed(session, PHRASE)
        await here.heard(session)
        [message] = here.captions.shown
    before_voice = here.manager.settings.segmenter.preroll * FRAME_MS / 1000
    assert (message.spoken_at_ns - captured) / 1e9 == pytest.approx(0.5 - before_voice, abs=0.1)


async def test_a_long_gap_is_no_sound_that_is_held(path: Path) -> None:
    async with hall(path) as here:
        session = await here.open()
        going = asyncio.ensure_future(session.conversation.skip(10**11))
        await asyncio.sleep(0)
        assert here.manager._tools.held.total == 0
        await here.heard(session)
        await here.manager.checkpoint()
        await going
        assert here.manager._tools.held.total == 0
