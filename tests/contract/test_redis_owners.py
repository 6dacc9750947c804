"""Several processes on one session store: a conversation has one owner, and what must be done once is done once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.contract.test_redis_sessions import Stores, feed, insights, progress, spans, utterance
from tests.contract.test_session_store import change
from tests.support.hearing import TOKEN, Hall, hall, request, said, silence, speech
from tests.support.valkey import Valkey

from quickcomm.audio.adapters import redis_calls, redis_owners
from quickcomm.audio.adapters.redis_rows import Row
from quickcomm.audio.adapters.redis_sessions import RedisSessions
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.ports import FencedError, Stored
from quickcomm.audio.service.manager import AT_ONCE_MS, Session
from quickcomm.contracts.audio_socket import DurableEvent
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.link import FIRST
from quickcomm.contracts.timing import Latency
from quickcomm.kernel.messaging.bus import BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_link import Argument, Link
from quickcomm.kernel.messaging.bus.redis_names import Names

PHRASE = np.concatenate([silence(0.5), speech(0.8), silence(0.7)])
PATIENT = AudioSettings(answer_wait_s=60.0)
WITHIN_S = 30.0
NS = 1_000_000_000
IDLE_S = 300.0


@pytest.fixture
async def stores(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Stores]:
    async with AsyncExitStack() as stack:
        yield Stores(valkey.url, tmp_path.name, stack)


class Mail:
    """What a process is told of by others."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[tuple[str, str, DurableEvent]] = asyncio.Queue()

    def tell(self, site: str, conversation_id: str, event: DurableEvent) -> None:
        self.came.put_nowait((site, conversation_id, event))


@asynccontextmanager
async def listening(store: RedisSessions) -> AsyncIterator[Mail]:
    mail = Mail()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(store.listen(mail.tell))
        yield mail
        task.cancel()


async def answer(store: RedisSessions, stored: Stored, start: int, revision: int = 1) -> DurableEvent | None:
    found = msgspec.structs.replace(insights(stored, start), revision=revision)
    return await store.add_insights(found)


async def states(stores: Stores, conversation_id: str) -> list[str]:
    """What the bus was told of a conversation, but for states that newer ones have replaced in the stream."""
    store = await stores.store("reader")
    name = Names(stores.prefix).of_key(CONVERSATIONS, conversation_id)
    entries = await store._link.call("XRANGE", name, "-", "+")
    changes = [msgspec.json.decode(fields[b"p"], type=ConversationChanged) for _, fields in entries]
    return [each.state for each in changes if each.conversation_id == conversation_id]


async def pass_by(stores: Stores, *alive: RedisSessions, seconds: float) -> None:
    """Time goes by, in which these say that they are there, and look."""
    for _ in range(round(seconds / redis_owners.ABSENT_S)):
        stores.clock.advance(redis_owners.ABSENT_S)
        for store in alive:
            await store.expire(0, stores.clock.now_ns(), frozenset())


async def die(store: RedisSessions) -> None:
    """As a process that is killed does, after a while."""
    await store._link.call("DEL", store._names.owner(store._owners.owner))


# -- insights go to whoever has the conversation ----------------------------------------------------------------------


async def test_insights_that_another_process_logs_reach_the_owner(stores: Stores) -> None:
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    stored = await one.open(request(), TOKEN)
    await one.publish(progress(stored), utterance(stored, 0))
    async with listening(one) as mail, listening(two) as others, asyncio.timeout(WITHIN_S):
        event = await answer(two, stored, 0)
        assert event is not None
        assert await mail.came.get() == ("main", "c-1", event)
        assert await answer(two, stored, 0) is None, "told once"
        renewed = await answer(two, stored, 0, revision=2)
        assert await mail.came.get() == ("main", "c-1", renewed)
        assert mail.came.empty()
        assert others.came.empty()


async def test_what_the_owner_logs_itself_is_no_mail(stores: Stores) -> None:
    one = await stores.store("audio-1")
    stored = await one.open(request(), TOKEN)
    await one.publish(progress(stored), utterance(stored, 0))
    assert await answer(one, stored, 0) is not None
    assert not await one._link.call("EXISTS", one._names.mail(one._life))


async def test_mail_goes_to_the_one_who_has_taken_over(stores: Stores) -> None:
    one, two, three = [await stores.store(f"audio-{number}") for number in (1, 2, 3)]
    stored = await one.open(request(), TOKEN)
    await one.publish(progress(stored), utterance(stored, 0))
    again = await two.open(request(), TOKEN)
    async with listening(one) as former, listening(two) as mail, asyncio.timeout(WITHIN_S):
        event = await answer(three, again, 0)
        assert (await mail.came.get())[2] == event
        assert former.came.empty()
    assert await two.events("main", "c-1", 1) == [event]


async def test_mail_that_nobody_reads_goes_by_itself(stores: Stores) -> None:
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    stored = await one.open(request(), TOKEN)
    await one.publish(progress(stored), utterance(stored, 0))
    await answer(two, stored, 0)
    assert 0 < await two._link.call("TTL", two._names.mail(one._life)) <= redis_owners.MAIL_S


# -- owners that are gone ---------------------------------------------------------------------------------------------


async def test_what_a_dead_process_had_live_is_interrupted_once(stores: Stores) -> None:
    dead, one, two = [await stores.store(f"audio-{number}") for number in (1, 2, 3)]
    stored = await dead.open(request(), TOKEN)
    kept = await one.open(request("kept"), TOKEN)
    await die(dead)
    await pass_by(stores, one, two, seconds=30)
    assert await states(stores, "c-1") == ["interrupted"]
    assert await states(stores, "kept") == ["live"], "its owner is there"
    with pytest.raises(FencedError):  # it only hung, and comes back too late
        await dead.publish(progress(stored), utterance(stored, 0))
    assert await one.save([progress(kept, 512)]) == []
    again = await two.open(request(), TOKEN)
    assert (again.state, again.created) == ("interrupted", False)


async def test_nobody_is_gone_who_is_missed_for_a_moment(stores: Stores) -> None:
    """After the store was away, the first who looks finds nobody."""
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    stored = await one.open(request(), TOKEN)
    stores.clock.advance(60)
    await die(one)
    await two.expire(0, stores.clock.now_ns(), frozenset())
    await one.connect()
    await pass_by(stores, two, seconds=30)
    assert await states(stores, "c-1") == ["live"]
    assert await one.save([progress(stored, 512)]) == []


async def test_a_silent_radio_of_a_dead_process_is_interrupted_and_ends_at_the_idle_limit_once(stores: Stores) -> None:
    """Its sound last moved something long ago; that alone must not end it."""
    dead, one, two = [await stores.store(f"audio-{number}") for number in (1, 2, 3)]
    await dead.open(request(), TOKEN)
    await die(dead)
    stores.clock.advance(IDLE_S)
    expected = ["live", "interrupted", "interrupted", "expired"]
    for state in expected:
        limit_ns, now_ns = stores.clock.now_ns() - int(IDLE_S * 1e9), stores.clock.now_ns()
        ended = await asyncio.gather(*(store.expire(limit_ns, now_ns, frozenset()) for store in (one, two)))
        assert sum(ended) == (state == "expired")
        assert await states(stores, "c-1") == [state]
        stores.clock.advance(IDLE_S if state == "interrupted" else redis_owners.ABSENT_S)


async def test_what_is_taken_over_while_another_one_sweeps_is_left_alone(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, one, two = [await stores.store(f"audio-{number}") for number in (1, 2, 3)]
    await dead.open(request(), TOKEN)
    await die(dead)
    stores.clock.advance(60)
    await two.expire(0, stores.clock.now_ns(), frozenset())
    stores.clock.advance(redis_owners.ABSENT_S)
    taken: list[Stored] = []
    rows = RedisSessions._rows

    async def late(store: RedisSessions, names: Sequence[str]) -> list[Row]:
        if names:
            taken.append(await one.open(request(), TOKEN))
        return await rows(store, names)

    monkeypatch.setattr(RedisSessions, "_rows", late)
    await two.expire(0, stores.clock.now_ns(), frozenset())
    assert await states(stores, "c-1") == ["live"]
    assert await one.save([progress(taken[0], 512)]) == []


async def test_a_sweep_is_one_call_however_many_are_silent(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    for number in range(200):
        await one.open(request(f"c-{number}"), TOKEN)
    await two.open(request("of-two"), TOKEN)
    stores.clock.advance(1_000)
    calls = []
    call = Link._call

    async def counted(link: Link, command: str, *arguments: Argument) -> Any:
        calls.append(command)
        return await call(link, command, *arguments)

    monkeypatch.setattr(Link, "_call", counted)
    now = stores.clock.now_ns()
    assert await two.expire(now, now, frozenset({("main", "of-two")})) == 0
    assert len(calls) <= 2, "another time with the script's text, where the server does not know it yet"
    calls.clear()
    assert await one.expire(now, now, frozenset(("main", f"c-{number}") for number in range(200))) == 0
    assert len(calls) <= 2


async def test_a_process_that_sweeps_for_long_is_still_present(stores: Stores) -> None:
    one = await stores.store("audio-1")
    await die(one)
    async with listening(one), asyncio.timeout(WITHIN_S):
        while not await one._link.call("EXISTS", one._names.owner("audio-1")):  # noqa: ASYNC110 - only the store knows
            await asyncio.sleep(0.01)


async def test_silent_conversations_outlive_a_store_that_was_away(stores: Stores) -> None:
    """Nobody has said that he is there yet; a radio that was silent for long is not given up for that."""
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    stored = await one.open(request(), TOKEN)
    stores.clock.advance(1_000)
    now = stores.clock.now_ns()
    await die(one)
    assert await two.expire(now, now, frozenset()) == 0
    await one.connect()
    stores.clock.advance(redis_owners.ABSENT_S)
    assert await two.expire(now, now, frozenset()) == 0
    assert await states(stores, "c-1") == ["live"]
    assert await one.save([progress(stored, 512)]) == []


async def test_who_is_missed_again_after_the_store_was_away_is_missed_anew(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    stored = await one.open(request(), TOKEN)
    stores.clock.advance(60)
    await die(one)
    await two.expire(0, stores.clock.now_ns(), frozenset())
    with monkeypatch.context() as away:
        away.setattr(redis_calls, "RETRY_S", ())
        away.setattr(Link, "run", _unavailable)
        with pytest.raises(BusUnavailableError):
            await two.expire(0, stores.clock.now_ns(), frozenset())
    stores.clock.advance(60)
    await two.expire(0, stores.clock.now_ns(), frozenset())
    assert await one.save([progress(stored, 512)]) == []


async def _unavailable(*_: object) -> None:
    raise BusUnavailableError("The connection broke.")


async def test_a_process_that_begins_gives_what_was_left_its_time(stores: Stores) -> None:
    """The whole site was down for longer than the idle limit, and another name begins first."""
    dead = await stores.store("audio-2")
    stored = await dead.open(request(), TOKEN)
    await dead.change_state(progress(stored), change(stored, "interrupted"))
    await die(dead)
    stores.clock.advance(10_000)
    fresh = await stores.store("audio-1")
    assert await fresh.adopt() == 0
    now = stores.clock.now_ns()
    assert await fresh.expire(now, now, frozenset()) == 0
    stores.clock.advance(redis_owners.ABSENT_S)
    assert await fresh.expire(now, now, frozenset()) == 0
    stores.clock.advance(redis_owners.ABSENT_S)
    assert await fresh.expire(now + 1, now, frozenset()) == 1


async def test_one_at_a_time_has_the_turn(stores: Stores) -> None:
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    assert sorted([await one.turn("recordings", 60), await two.turn("recordings", 60)]) == [False, True]
    assert await one.turn("recordings", 60), "it still has it"
    assert await two.turn("something else", 60)
    await one._link.call("DEL", one._names.turn("recordings"))  # as time does
    assert await two.turn("recordings", 60)
    assert not await one.turn("recordings", 60)


# -- conversations that go from one process to another ----------------------------------------------------------------


async def undisturbed(path: Path, phrases: int) -> list[tuple[int, int]]:
    async with hall(path) as here:
        session = await here.open()
        await feed(session, phrases)
        session.conversation.end()
        await asyncio.wait_for(said(session), WITHIN_S)
        return await spans(here.store)


async def go_on(session: Session, phrases: int) -> list[dict[str, object]]:
    rest = np.tile(PHRASE, phrases)[session.conversation.next_offset :]
    for start in range(0, len(rest), 1_600):
        await session.conversation.feed(rest[start : start + 1_600].tobytes())
    session.conversation.end()
    return await asyncio.wait_for(said(session), WITHIN_S)


async def test_a_client_that_reaches_another_process_is_served_there(stores: Stores, tmp_path: Path) -> None:
    """The owner lives: it finds out, says so to whoever is still connected, and lets go."""
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    async with hall(tmp_path / "one.sqlite", store=one) as here, hall(tmp_path / "two.sqlite", store=two) as there:
        old = await here.open()
        await feed(old, 3)
        await here.heard(old)
        new = await there.open()
        events = await go_on(new, 5)
        await here.manager.look_for_owners()
        told = await asyncio.wait_for(said(old), WITHIN_S)
        assert [event["code"] for event in told if event["type"] == "error"] == ["audio.fenced"]
        assert told[-1] == {"type": "close", "code": 1012}
        assert here.manager.conversations == []
    assert [event["seq"] for event in events if "seq" in event] == [1, 2, 3, 4, 5]
    assert await spans(two) == await undisturbed(tmp_path / "calm.sqlite", 5)


async def test_a_drain_hands_over_at_once_where_others_are(stores: Stores, tmp_path: Path) -> None:
    """Even what the engine still has in hand: the next process hears it again."""
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    hasty = AudioSettings(answer_wait_s=0.0, hand_over_s=0.0)
    async with hall(tmp_path / "one.sqlite", store=one, settings=hasty) as here:
        old = await here.open()
        await feed(old, 2)
        await here.heard(old)
        here.engine.go.clear()
        await feed(old, 1)
        async with asyncio.timeout(WITHIN_S):
            await here.manager.drain(lambda: True)
            told = await said(old)
    assert [event["after_ms"] for event in told if event["type"] == "reconnect"] == [AT_ONCE_MS]
    assert told[-1] == {"type": "close", "code": 1012}
    async with hall(tmp_path / "two.sqlite", store=two) as there:
        events = await go_on(await there.open(), 5)
    assert [event["seq"] for event in events if "seq" in event] == [1, 2, 3, 4, 5]
    assert await spans(two) == await undisturbed(tmp_path / "calm.sqlite", 5)


async def test_the_end_waits_for_insights_that_another_process_logs(stores: Stores, tmp_path: Path) -> None:
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    async with hall(tmp_path / "one.sqlite", store=one, settings=PATIENT) as here, asyncio.TaskGroup() as tasks:
        mail = tasks.create_task(one.listen(here.manager.told))
        session = await here.open()
        await feed(session, 1)
        session.conversation.end()
        async with asyncio.timeout(WITHIN_S):
            while not here.captions.shown:  # noqa: ASYNC110 - a fake tells nobody
                await asyncio.sleep(0)
            await _answer_last(here, two)
            events = await said(session)
        mail.cancel()
    assert _durable(events) == ["utterance", "insights", "ended"]


async def test_insights_whose_mail_is_lost_come_before_the_end(stores: Stores, tmp_path: Path) -> None:
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    async with hall(tmp_path / "one.sqlite", store=one) as here:
        session = await here.open()
        await feed(session, 1)
        await here.heard(session)
        await _answer_last(here, two)
        session.conversation.end()
        events = await asyncio.wait_for(said(session), WITHIN_S)
    assert _durable(events) == ["utterance", "insights", "ended"]


async def _answer_last(here: Hall, store: RedisSessions) -> None:
    """Insights about the last utterance, logged by another process."""
    message = here.captions.shown[-1]
    found = InsightsFound(
        site=message.site,
        conversation_id=message.conversation_id,
        utterance_id=message.utterance_id,
        revision=1,
        insights=(),
        speech_ended_ns=message.speech_ended_ns,
        published_ns=message.published_ns,
        latency=Latency(),
    )
    await store.add_insights(found)


def _durable(events: list[dict[str, object]]) -> list[object]:
    return [event["type"] for event in events if event["type"] in {"utterance", "insights", "ended"}]


async def test_after_a_stay_elsewhere_the_order_is_left_to_the_stream(stores: Stores, tmp_path: Path) -> None:
    """What is shown at once names the one before it only where this very process has published that one."""
    one, two = await stores.store("audio-1"), await stores.store("audio-2")
    async with hall(tmp_path / "one.sqlite", store=one) as here, hall(tmp_path / "two.sqlite", store=two) as there:
        await _two_more(here, 2)
        await _two_more(there, 4)
        await _two_more(here, 6)
        assert [len(here.captions.shown), len(there.captions.shown)] == [4, 2]
        firsts = [message.utterance_id for message in here.captions.shown]
        others = [message.utterance_id for message in there.captions.shown]
    assert here.captions.before == [FIRST, firsts[0], None, firsts[2]]
    assert there.captions.before == [None, others[0]]


async def _two_more(here: Hall, phrases: int) -> None:
    """Go on with the talk up to so many phrases, and leave."""
    session = await here.open()
    rest = np.tile(PHRASE, phrases)[session.conversation.next_offset :]
    for start in range(0, len(rest), 1_600):
        await session.conversation.feed(rest[start : start + 1_600].tobytes())
    await here.heard(session)
    await here.manager.checkpoint()
    await here.manager.dropped(session)
