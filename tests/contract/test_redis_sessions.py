"""What only the session store in Valkey must bear: lost answers, owners side by side, a full bus, a killed server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.support.hearing import TOKEN, Hall, hall, request, said, silence, speech
from tests.support.valkey import Valkey

from quickcomm.audio.adapters import redis_calls, redis_sessions
from quickcomm.audio.adapters.redis_sessions import RedisSessions
from quickcomm.audio.model.checkpoint import Checkpoint
from quickcomm.audio.ports import FencedError, Progress, SessionStore, Stored
from quickcomm.audio.service.manager import Session
from quickcomm.contracts.audio_socket import Utterance
from quickcomm.contracts.conversations import ConversationChanged, Ledger
from quickcomm.contracts.identity import utterance_id
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.messaging.bus import BusFullError, BusUnavailableError
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_link import Argument, Link, Script
from quickcomm.kernel.messaging.bus.redis_names import partition


class Stores:
    """Stores of several processes on one server."""

    def __init__(self, url: str, prefix: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.prefix = prefix
        self.clock = FakeClock()
        self._stack = stack

    async def store(self, owner: str = "audio-1", high_water: int = 100) -> RedisSessions:
        made = RedisSessions(self.url, self.clock, owner=owner, prefix=self.prefix, high_water=high_water)
        self._stack.push_async_callback(made.aclose)
        await made.connect()
        return made

    def bus(self) -> RedisBus:
        made = RedisBus(self.url, self.clock, prefix=self.prefix)
        self._stack.push_async_callback(made.aclose)
        return made


@pytest.fixture
async def stores(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Stores]:
    async with AsyncExitStack() as stack:
        yield Stores(valkey.url, tmp_path.name, stack)


def progress(stored: Stored, offset: int = 0) -> Progress:
    return Progress(
        site=stored.site,
        conversation_id=stored.conversation_id,
        epoch=stored.epoch,
        checkpoints=(Checkpoint(offset=offset),),
        ledgers=(Ledger(received=offset, silence=offset),),
    )


def utterance(stored: Stored, start: int, text: str = "towels") -> UtteranceTranscribed:
    return UtteranceTranscribed(
        site=stored.site,
        conversation_id=stored.conversation_id,
        utterance_id=utterance_id(stored.conversation_id, 0, start),
        channel=stored.channel,
        speaker=0,
        seq=0,
        start_offset=start,
        end_offset=start + 800,
        sample_rate=16_000,
        text=text,
        words=(),
        confidence=0.9,
        stt_model="m",
        spoken_at_ns=1,
        speech_ended_ns=2,
        published_ns=3,
        latency=Latency(),
    )


def insights(stored: Stored, start: int, revision: int = 1) -> InsightsFound:
    return InsightsFound(
        site=stored.site,
        conversation_id=stored.conversation_id,
        utterance_id=utterance_id(stored.conversation_id, 0, start),
        revision=revision,
        insights=(),
        speech_ended_ns=2,
        published_ns=3,
        latency=Latency(),
    )


def change(stored: Stored, state: str) -> ConversationChanged:
    return msgspec.convert(
        {
            "site": stored.site,
            "conversation_id": stored.conversation_id,
            "channel": stored.channel,
            "state": state,
            "sample_rate": 16_000,
            "speakers": 1,
            "ledgers": (Ledger(),),
            "at_ns": 1,
        },
        ConversationChanged,
    )


@pytest.fixture(params=[1, len(redis_calls.RETRY_S) + 1], ids=["one answer", "all answers of a call"])
def deaf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """So many answers as the number in it says do not arrive, though the server does what it is told."""
    run, left = Link.run, [0, request.param]

    async def lossy(link: Link, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        answer = await run(link, script, keys, *arguments)
        if left[0]:
            left[0] -= 1
            raise BusUnavailableError("The connection broke.")
        return answer

    monkeypatch.setattr(Link, "run", lossy)
    return left


async def test_an_event_whose_answer_was_lost_is_told_once_all_the_same(stores: Stores, deaf: list[int]) -> None:
    store = await stores.store()
    stored = await store.open(request(), TOKEN)
    deaf[0] = deaf[1]
    try:
        event = await store.publish(progress(stored), utterance(stored, 0))
    except BusUnavailableError:  # the conversation tries again
        event = await store.publish(progress(stored), utterance(stored, 0))
    assert event is not None
    assert await store.events("main", "c-1", 0) == [event]
    assert await store.publish(progress(stored), utterance(stored, 0)) is None
    found = insights(stored, 0)
    deaf[0] = deaf[1]
    try:
        answer = await store.add_insights(found)
    except BusUnavailableError:
        answer = await store.add_insights(found)
    assert answer is not None
    assert answer.seq == 2
    assert await store.events("main", "c-1", 0) == [event, answer]
    assert await store.add_insights(found) is None


async def test_calls_without_an_answer_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may be the one that tries again, and gets the answer."""
    monkeypatch.setattr(redis_calls, "RETRY_S", ())
    link = Link("redis://127.0.0.1:1")
    calls = redis_calls.Calls(link, FakeClock())
    for number in range(redis_calls.UNSURE_AT_MOST + 10):
        with pytest.raises(BusUnavailableError):
            await calls.run(redis_sessions._FENCED, (), unsure=("main:c-1", str(number)))
    assert len(calls._unsure) == redis_calls.UNSURE_AT_MOST
    assert ("main:c-1", "9") not in calls._unsure
    await link.aclose()


async def test_a_client_without_a_token_gets_in_though_the_answer_was_lost(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Link.run
    lost: list[int] = []

    async def lossy(link: Link, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        answer = await run(link, script, keys, *arguments)
        if script is redis_sessions._CREATE and not lost:
            lost.append(answer)
            raise BusUnavailableError("The connection broke.")
        return answer

    monkeypatch.setattr(Link, "run", lossy)
    store = await stores.store()
    stored = await store.open(request(token=None), TOKEN)
    assert lost == [1]
    assert await store.save([progress(stored, 512)]) == []


def at(stored: Stored, offset: int, step: int) -> Progress:
    return msgspec.structs.replace(progress(stored, offset), step=step)


async def test_a_checkpoint_that_comes_late_does_not_go_back_before_the_acks(stores: Stores) -> None:
    """What an owner sends goes over several connections; what it gave up is still done once a server wakes up."""
    store = await stores.store()
    stored = await store.open(request(), TOKEN)
    await store.publish(at(stored, 1_024, 2), utterance(stored, 0))
    assert await store.save([at(stored, 512, 1)]) == [], "nobody else owns it"
    await store.save([at(stored, 2_048, 4)])
    assert await store.publish(at(stored, 1_024, 3), utterance(stored, 0)) is None
    again = await store.open(request(), TOKEN)
    assert again.checkpoints[0].offset == 2_048
    assert await store.save([at(again, 4_096, 1)]) == [], "who takes it over counts anew"
    assert (await store.open(request(), TOKEN)).checkpoints[0].offset == 4_096


async def test_a_checkpoint_is_stored_with_an_utterance_that_was_there(stores: Stores) -> None:
    """Its answer was lost, and the conversation stored meanwhile what it believed: then it acknowledges this one."""
    store = await stores.store()
    stored = await store.open(request(), TOKEN)
    await store.publish(at(stored, 1_024, 1), utterance(stored, 0))
    await store.save([at(stored, 0, 2)])
    assert await store.publish(at(stored, 1_024, 3), utterance(stored, 0)) is None
    assert (await store.open(request(), TOKEN)).checkpoints[0].offset == 1_024


async def test_a_state_that_comes_late_does_not_undo_the_end(stores: Stores) -> None:
    store = await stores.store()
    stored = await store.open(request(), TOKEN)
    await store.change_state(at(stored, 512, 2), change(stored, "ended"))
    await store.change_state(at(stored, 512, 1), change(stored, "interrupted"))
    [left] = await store.ledgers("c-1")
    assert left.state == "ended"


async def test_a_conversation_goes_from_one_owner_to_the_other(stores: Stores) -> None:
    monolith, service = await stores.store("monolith"), await stores.store("audio-1")
    old = await monolith.open(request(), TOKEN)
    first = await monolith.publish(progress(old, 512), utterance(old, 0))
    new = await service.open(request(), TOKEN)
    assert (new.epoch, new.last_seq, new.checkpoints[0].offset) == (2, 1, 512)
    with pytest.raises(FencedError):
        await monolith.publish(progress(old, 1_024), utterance(old, 512))
    second = await service.publish(progress(new, 1_024), utterance(new, 512))
    assert await monolith.events("main", "c-1", 0) == [first, second]
    back = await monolith.open(request(), TOKEN)
    assert (back.epoch, back.last_seq) == (3, 2)
    assert await service.save([progress(new, 2_048)]) == [("main", "c-1")]


async def test_owners_leave_each_other_alone(stores: Stores) -> None:
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    await one.open(request("of-one"), TOKEN)
    await two.open(request("of-two"), TOKEN)
    again = await stores.store("audio-1")
    assert await again.adopt() == 1
    states = {item.conversation_id: item.state for item in await again.ledgers(None)}
    assert states == {"of-one": "interrupted", "of-two": "live"}
    stores.clock.advance(1_000)
    now = stores.clock.now_ns()
    assert await again.expire(now, now, frozenset()) == 1, "its predecessor is gone, the other one is there"
    assert await two.expire(now, now, frozenset({("main", "of-two")})) == 0
    await two._link.call("DEL", two._names.owner("audio-2"))  # as time does for who is gone
    stores.clock.advance(redis_sessions.ORPHANS_EVERY_S)
    assert await again.expire(now, now, frozenset()) == 0, "it is missed for the first time"
    stores.clock.advance(redis_sessions.ORPHANS_EVERY_S)
    assert await again.expire(now, now, frozenset()) == 0
    states = {item.conversation_id: item.state for item in await again.ledgers(None)}
    assert states == {"of-one": "expired", "of-two": "interrupted"}


async def test_nothing_is_acknowledged_that_the_bus_does_not_take(stores: Stores) -> None:
    store, bus = await stores.store(high_water=3), stores.bus()
    await bus.register(TRANSCRIPTS, "slow")
    stored = await store.open(request(), TOKEN)
    for start in range(3):
        await store.publish(progress(stored, start), utterance(stored, start))
    with pytest.raises(BusFullError) as refused:
        await store.publish(progress(stored, 99), utterance(stored, 3))
    assert refused.value.retryable
    assert str(refused.value).startswith(
        f"Partition {partition('c-1')} of transcripts.v1 is full: slow is behind there."
    )
    [left] = await store.ledgers("c-1")
    assert left.ledgers[0].received == 2
    assert [event.seq for event in await store.events("main", "c-1", 0)] == [1, 2, 3]
    await bus.retire(TRANSCRIPTS, "slow")
    await bus.register(TRANSCRIPTS, "quick")
    names = bus._names
    name = names.of_key(TRANSCRIPTS, "c-1")
    read = await bus._link.call("XREADGROUP", "GROUP", "quick", "me", "STREAMS", name, ">")
    assert read
    for entry, _ in await bus._link.call("XRANGE", name, "-", "+"):
        await bus._link.call("XACK", name, "quick", entry)
    event = await store.publish(progress(stored, 99), utterance(stored, 3))
    assert event is not None
    assert event.seq == 4


async def test_a_store_without_memory_takes_no_sound_and_nobody_counts_as_gone(stores: Stores) -> None:
    store = await stores.store()
    stored = await store.open(request(), TOKEN)
    await store.publish(progress(stored, 512), utterance(stored, 0))
    await store._link.call("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BusFullError, match="maxmemory"):
            await store.publish(progress(stored, 1_024), utterance(stored, 512))
        with pytest.raises(BusFullError):
            await store.open(request("c-2"), TOKEN)
        await stores.store("audio-2")
        found = insights(stored, 0)
        assert await store.add_insights(found) is not None, "what waits is handled"
    finally:
        await store._link.call("CONFIG", "SET", "maxmemory", 0)
    assert await store.publish(progress(stored, 1_024), utterance(stored, 512)) is not None


PHRASE = np.concatenate([silence(0.5), speech(0.8), silence(0.7)])


async def feed(session: Session, phrases: int) -> None:
    samples = np.tile(PHRASE, phrases)
    for start in range(0, len(samples), 1_600):
        await session.conversation.feed(samples[start : start + 1_600].tobytes())


async def spans(store: SessionStore) -> list[tuple[int, int]]:
    events = [msgspec.to_builtins(event) for event in await store.events("main", "c-1", 0)]
    return [(event["start_offset"], event["end_offset"]) for event in events]


async def test_audio_waits_for_a_full_bus_and_loses_nothing(stores: Stores, tmp_path: Path) -> None:
    """Sound keeps coming in, what was said is kept, and no ack passes what the bus has not taken."""
    async with hall(tmp_path / "calm.sqlite") as here:
        session = await here.open()
        await feed(session, 6)
        session.conversation.end()
        await asyncio.wait_for(said(session), 30)
        calm = await spans(here.store)
    store, bus = await stores.store(high_water=2), stores.bus()
    await bus.register(TRANSCRIPTS, "slow")
    async with hall(tmp_path / "site.sqlite", store=store) as here:
        session = await here.open()
        await feed(session, 6)
        await _two_are_there(store)
        await here.manager.checkpoint()
        assert session.conversation.acked <= calm[2][0], "the third was said, and is not stored"
        await bus.retire(TRANSCRIPTS, "slow")
        await bus._link.call("DEL", *bus._names.parts(TRANSCRIPTS))  # as if somebody had taken them
        await _goes_on(bus, here, session)
        assert await spans(store) == calm
    [change] = await store.ledgers("c-1")
    assert change.ledgers[0].balanced
    assert change.ledgers[0].received == 6 * len(PHRASE)


async def _two_are_there(store: RedisSessions) -> None:
    async with asyncio.timeout(30):
        while len(await store.events("main", "c-1", 0)) < 2:  # noqa: ASYNC110 - only the store knows
            await asyncio.sleep(0.01)


async def _goes_on(bus: RedisBus, here: Hall, session: Session) -> None:
    """There is room now and then, until everything is said."""
    session.conversation.end()
    async with asyncio.timeout(30):
        while not session.conversation.finished:
            await bus._link.call("DEL", *bus._names.parts(TRANSCRIPTS))
            await asyncio.sleep(0.01)
    assert here.manager.conversations == []


async def test_audio_goes_on_after_a_crash_as_if_nothing_had_been(stores: Stores, tmp_path: Path) -> None:
    """A killed process, its successor on the same store, and what the client has not had acked sent again."""
    store = await stores.store()
    async with hall(tmp_path / "one.sqlite", store=store) as here:
        session = await here.open()
        await feed(session, 3)
        await here.heard(session)
    successor = await stores.store()
    assert await successor.adopt() == 1
    async with hall(tmp_path / "two.sqlite", store=successor) as here:
        session = await here.open()
        again = np.tile(PHRASE, 5)[session.conversation.next_offset :]
        assert len(again) < 5 * len(PHRASE)
        for start in range(0, len(again), 1_600):
            await session.conversation.feed(again[start : start + 1_600].tobytes())
        session.conversation.end()
        events = await asyncio.wait_for(said(session), 30)
    assert [event["seq"] for event in events if "seq" in event] == [1, 2, 3, 4, 5]
    async with hall(tmp_path / "calm.sqlite") as here:
        session = await here.open()
        await feed(session, 5)
        session.conversation.end()
        await asyncio.wait_for(said(session), 30)
        assert await spans(here.store) == await spans(successor)


async def test_what_people_say_cannot_pass_for_a_number(stores: Stores) -> None:
    store = await stores.store()
    stored = await store.open(request(), TOKEN)
    await store.publish(progress(stored), utterance(stored, 0))
    said = '"seq":0,"x":"\\"seq\\":0,\n\u2028'
    event = await store.publish(progress(stored), utterance(stored, 1, said))
    assert event is not None
    assert isinstance(event, Utterance)
    assert event.text == said
    assert event.seq == 2
    assert await store.events("main", "c-1", 1) == [event]


async def test_an_ended_conversation_is_replayed_for_a_while(stores: Stores) -> None:
    store = await stores.store()
    stored = await store.open(request(), TOKEN)
    event = await store.publish(progress(stored), utterance(stored, 0))
    await store.change_state(progress(stored), change(stored, "ended"))
    assert await store.events("main", "c-1", 0) == [event]
    names = store._names
    for key in (names.log("main:c-1"), names.said("main:c-1")):
        assert 0 < await store._link.call("TTL", key) <= redis_sessions.REPLAY_S
        await store._link.call("DEL", key)  # as time does
    again = await store.open(request(), TOKEN)
    assert (again.state, again.last_seq) == ("ended", 1)
    found = insights(stored, 0)
    assert await store.add_insights(found) is None, "nobody is left to hear it"
    assert len(await store.ledgers(None)) == 1


async def test_a_killed_server_comes_back_with_everything(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey", sync="always")
    server.start()
    store = RedisSessions(server.url, FakeClock())
    try:
        await store.connect()
        stored = await store.open(request(), TOKEN)
        events = [await store.publish(progress(stored, i), utterance(stored, i)) for i in range(20)]
        server.kill()
        with pytest.raises(BusUnavailableError):
            await store.publish(progress(stored, 20), utterance(stored, 20))
        server.start()
        events.append(await store.publish(progress(stored, 20), utterance(stored, 20)))
        assert await store.events("main", "c-1", 0) == events
        assert [event.seq for event in events if event] == list(range(1, 22))
        again = await store.open(request(), TOKEN)
        assert (again.last_seq, again.checkpoints[0].offset, again.epoch) == (21, 20, 2)
    finally:
        await store.aclose()
        server.stop()
