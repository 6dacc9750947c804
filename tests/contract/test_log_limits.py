"""What an open conversation keeps of its log, on both session stores, and what it never forgets."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from tests.contract.test_session_store import (
    RedisSite,
    Site,
    SqlSite,
    answer,
    change,
    log,
    open_sql,
    progress,
    utterance,
)
from tests.support.hearing import TOKEN, request
from tests.support.home import move
from tests.support.valkey import Valkey

from quickcomm.audio.adapters import redis_sessions
from quickcomm.audio.adapters.log_limits import LogLimits
from quickcomm.audio.adapters.redis_import import moved
from quickcomm.audio.adapters.redis_sessions import RedisSessions
from quickcomm.audio.adapters.sql_sessions import SqlSessions
from quickcomm.audio.model.checkpoint import FrontEndState
from quickcomm.audio.ports import Progress, Stored
from quickcomm.contracts.conversations import CONVERSATIONS
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.messaging.bus import BusFullError
from quickcomm.kernel.messaging.bus.redis import RedisBus

LIMITS = LogLimits(seconds=100, events=20, margin=100)
HIGH_WATER = 3


@pytest.fixture(params=["sql", "redis"])
async def site(request: pytest.FixtureRequest, tmp_path: Path, valkey: Valkey) -> AsyncIterator[Site]:
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        if request.param == "sql":
            made = await stack.enter_async_context(open_sql(tmp_path / "site.sqlite", clock))
            assert isinstance(made, SqlSite)
            made.store = SqlSessions(made.database, clock, limits=LIMITS)
            yield made
        else:
            store = RedisSessions(valkey.url, clock, prefix=tmp_path.name, limits=LIMITS)
            stack.push_async_callback(store.aclose)
            found = RedisSite(store, valkey.url, clock, tmp_path.name)
            stack.push_async_callback(found.link.aclose)
            yield found


def at(stored: Stored, number: int, step: int | None = None) -> Progress:
    """All is heard and settled before the utterance of that number."""
    return msgspec.structs.replace(progress(stored, number * 1_000), step=number if step is None else step)


async def talk(site: Site, stored: Stored, numbers: range, every_s: float = 1.0) -> None:
    """Utterances and their insights, one after the other."""
    for number in numbers:
        await site.store.publish(at(stored, number), utterance(stored, number * 1_000))
        await answer(site, stored, number * 1_000)
        site.clock.advance(every_s)


async def test_many_events_at_once_are_bounded(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    await talk(site, stored, range(1, 101), every_s=1.0)
    kept = await log(site, stored)
    assert 20 <= len(kept) <= 20 + 2 * 100 / 6 + 2
    assert kept == list(range(201 - len(kept), 201)), "the newest, without holes"
    assert await log(site, stored, 190) == list(range(191, 201))


async def test_old_events_go_and_what_is_young_stays(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    await talk(site, stored, range(1, 5))
    assert await log(site, stored) == list(range(1, 9))
    site.clock.advance(100)
    await talk(site, stored, range(5, 7))
    assert len(await log(site, stored)) >= 4, "the last ones stay, however old the others are"
    site.clock.advance(100)
    await talk(site, stored, range(7, 8))
    kept = await log(site, stored)
    assert kept[-1] == 14
    assert kept[0] > 8
    again = await site.store.open(request(), TOKEN)
    assert (again.last_seq, again.unanswered) == (14, ())


async def test_what_may_be_published_again_is_never_forgotten(site: Site) -> None:
    """The checkpoint stays: a restart would hear all of it again."""
    stored = await site.store.open(request(), TOKEN)
    stays = msgspec.structs.replace(progress(stored, 1_000), step=1)
    for number in range(1, 61):
        await site.store.publish(stays, utterance(stored, number * 1_000))
        site.clock.advance(10)
    for number in range(1, 61):
        assert await site.store.publish(stays, utterance(stored, number * 1_000)) is None
    assert len(await site.told(TRANSCRIPTS)) == 60
    assert len((await site.store.open(request(), TOKEN)).unanswered) == 60


async def test_what_was_forgotten_is_not_published_by_a_call_that_comes_late(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    await talk(site, stored, range(1, 61))
    assert await site.store.publish(at(stored, 1, step=1), utterance(stored, 1_000)) is None
    assert len(await site.told(TRANSCRIPTS)) == 60


async def test_insights_come_however_late(site: Site) -> None:
    """A language model was away for hours; the utterance is forgotten."""
    stored = await site.store.open(request(), TOKEN)
    await talk(site, stored, range(1, 61))
    event = await answer(site, stored, 1_000, revision=2)
    assert event is not None
    assert event.seq == 121
    assert await answer(site, stored, 1_000, revision=2) is None
    assert (await log(site, stored))[-1] == 121
    await site.store.publish(at(stored, 61), utterance(stored, 61_000))
    assert await log(site, stored, 121) == [122]


async def test_a_shortened_log_moves_to_the_other_store(tmp_path: Path, valkey: Valkey) -> None:
    clock = FakeClock()
    store = RedisSessions(valkey.url, clock, prefix=tmp_path.name)
    try:
        async with open_sql(tmp_path / "site.sqlite", clock) as here:
            assert isinstance(here, SqlSite)
            here.store = SqlSessions(here.database, clock, limits=LIMITS)
            stored = await here.store.open(request(), TOKEN)
            await talk(here, stored, range(1, 61))
            kept = await here.store.events("main", "c-1", 0)
            await move(here.database, valkey.url, moved(clock.now_ns(), tmp_path.name), tmp_path.name)
        assert await store.events("main", "c-1", 0) == kept
        there = await store.open(request(), TOKEN)
        event = await store.publish(at(there, 61), utterance(there, 61_000))
        assert event is not None
        assert event.seq == 121
        assert (await store.events("main", "c-1", 120)) == [event]
    finally:
        await store.aclose()


async def test_changes_of_conversations_are_bounded(tmp_path: Path, valkey: Valkey) -> None:
    """Nobody takes them: of each conversation the newest waits, and new ones are begun as far as there is room."""
    clock = FakeClock()
    store = RedisSessions(valkey.url, clock, prefix=tmp_path.name, high_water=HIGH_WATER)
    bus = RedisBus(valkey.url, clock, prefix=tmp_path.name)
    try:
        await bus.register(CONVERSATIONS, "away")
        names = [name for name in map("c-{}".format, range(100)) if _part(bus, name) == _part(bus, "c-0")]
        for name in names[:HIGH_WATER]:
            stored = await store.open(request(name), TOKEN)
            for state in ("interrupted", "live") * 5:
                await store.change_state(progress(stored), change(stored, state))
        with pytest.raises(BusFullError) as refused:
            await store.open(request(names[HIGH_WATER]), TOKEN)
        assert refused.value.retryable
        assert (await store.open(request(names[0]), TOKEN)).epoch == 2, "who is in may always come back"
        await store.change_state(progress(stored), change(stored, "ended"))
        assert (await bus.backlog())[f"{CONVERSATIONS}/away"] == HIGH_WATER
        told = await bus._link.call("XRANGE", _part(bus, "c-0"), "-", "+")
        states = [msgspec.json.decode(fields[b"p"])["state"] for _, fields in told]
        assert sorted(states) == ["ended", "live", "live"]
    finally:
        await store.aclose()
        await bus.aclose()


def _part(bus: RedisBus, name: str) -> str:
    return bus._names.of_key(CONVERSATIONS, name)


async def test_so_many_ended_conversations_are_kept(
    tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_sessions, "CLOSED_AT_MOST", 2)
    clock = FakeClock()
    store = RedisSessions(valkey.url, clock, prefix=tmp_path.name)
    try:
        for number in range(5):
            stored = await store.open(request(f"c-{number}"), TOKEN)
            await store.change_state(progress(stored), change(stored, "ended"))
            clock.advance(1)
        await store.open(request("live"), TOKEN)
        assert await store.purge(0) == 3
        assert [item.conversation_id for item in await store.ledgers(None)] == ["c-3", "c-4", "live"]
    finally:
        await store.aclose()


async def test_what_is_kept_of_an_ended_conversation_is_small(tmp_path: Path, valkey: Valkey) -> None:
    store = RedisSessions(valkey.url, FakeClock(), prefix=tmp_path.name)
    try:
        stored = await store.open(request(), TOKEN)
        front_end = FrontEndState(noise_floor=0.1, hang=0, vad=bytes(1_024), context=bytes(128), history=bytes(512))
        checkpoint = msgspec.structs.replace(progress(stored, 51_200).checkpoints[0], front_end=front_end)
        moved = msgspec.structs.replace(progress(stored, 51_200), checkpoints=(checkpoint,))
        await store.save([moved])
        await store.change_state(moved, change(stored, "ended"))
        key = store._names.conversation("main:c-1")
        assert sum(map(len, await store._link.call("HVALS", key))) < 500
        again = await store.open(request(), TOKEN)
        assert (again.state, again.checkpoints[0].offset, again.ledgers) == ("ended", 51_200, moved.ledgers)
    finally:
        await store.aclose()
