"""One behaviour suite for every session store: tokens, epochs, atomic publishing, numbering, the ends of a talk."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import reduce
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.hearing import TOKEN, request
from tests.support.valkey import Valkey

from quickcomm.audio.adapters.redis_sessions import RedisSessions
from quickcomm.audio.adapters.sql_sessions import MIGRATIONS, SqlSessions
from quickcomm.audio.model.checkpoint import Checkpoint
from quickcomm.audio.model.segmenter import SegmenterState
from quickcomm.audio.ports import FencedError, Progress, SessionStore, Stored
from quickcomm.contracts.audio_socket import AudioFormat, DurableEvent
from quickcomm.contracts.checking import ANSWERED, ENDED, FIRST, TRANSCRIBED, CompareAudio, Item
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged, ConversationState, Ledger
from quickcomm.contracts.identity import utterance_id
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.dashboard.model.projections import with_change
from quickcomm.dashboard.model.records import ConversationRecord
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import ForbiddenError, NotFoundError
from quickcomm.kernel.messaging.bus import BusUnavailableError
from quickcomm.kernel.messaging.bus import sql_tables as sql_bus
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import Names
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.storage import Database, StorageError, migrate


class Site(Protocol):
    """A store, the clock that it goes by, and what it told the bus."""

    store: SessionStore
    clock: FakeClock

    async def told(self, stream: str) -> list[bytes]: ...

    async def break_bus(self) -> None:
        """Nothing can be published to `transcripts.v1` any more."""
        ...

    async def mend_bus(self) -> None: ...


class SqlSite:
    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.store: SessionStore = SqlSessions(database, clock)
        self.clock = clock
        self.database = database

    async def told(self, stream: str) -> list[bytes]:
        query = sa.select(sql_bus.messages.c.payload).where(sql_bus.messages.c.stream == stream)
        return await self.database.read(
            lambda connection: list(connection.execute(query.order_by(sql_bus.messages.c.id)).scalars())
        )

    async def break_bus(self) -> None:
        await self._rename("bus_messages", "gone")

    async def mend_bus(self) -> None:
        await self._rename("gone", "bus_messages")

    async def _rename(self, table: str, name: str) -> None:
        def run(connection: sa.Connection) -> None:
            connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {name}")

        await self.database.write(run)


class RedisSite:
    def __init__(self, store: RedisSessions, url: str, clock: FakeClock, prefix: str) -> None:
        self.store: SessionStore = store
        self.clock = clock
        self.names = Names(prefix)
        self.link = Link(url)

    async def told(self, stream: str) -> list[bytes]:
        found = [entry for part in self.names.parts(stream) for entry in await self.link.call("XRANGE", part, "-", "+")]
        return [fields[b"p"] for _, fields in sorted(found, key=lambda entry: tuple(map(int, entry[0].split(b"-"))))]

    async def break_bus(self) -> None:
        for part in self.names.parts(TRANSCRIPTS):
            if await self.link.call("EXISTS", part):
                await self.link.call("RENAME", part, f"{part}:gone")
            await self.link.call("SET", part, "no stream")

    async def mend_bus(self) -> None:
        for part in self.names.parts(TRANSCRIPTS):
            await self.link.call("DEL", part)
            if await self.link.call("EXISTS", f"{part}:gone"):
                await self.link.call("RENAME", f"{part}:gone", part)


def folded(changes: Iterable[ConversationChanged]) -> ConversationRecord | None:
    """Return what a dashboard has of a conversation."""
    nothing: ConversationRecord | None = None
    return reduce(with_change, changes, nothing)


TURNS: tuple[ConversationState, ...] = ("interrupted", "live", "interrupted", "live", "ended")


async def states(site: Site) -> list[str]:
    """What the bus was told of a conversation; a state that is replaced by a newer one may be left out."""
    payloads = await site.told(CONVERSATIONS)
    return [msgspec.json.decode(payload, type=ConversationChanged).state for payload in payloads]


@asynccontextmanager
async def open_sql(path: Path, clock: FakeClock) -> AsyncIterator[Site]:
    database = Database(path)
    database.open()
    SqlBus(database, clock).migrate()
    migrate(database.engine, "audio", MIGRATIONS)
    try:
        yield SqlSite(database, clock)
    finally:
        await database.aclose()


@asynccontextmanager
async def open_redis(url: str, prefix: str, clock: FakeClock) -> AsyncIterator[Site]:
    store = RedisSessions(url, clock, prefix=prefix)
    await store.connect()
    site = RedisSite(store, url, clock, prefix)
    try:
        yield site
    finally:
        await store.aclose()
        await site.link.aclose()


@pytest.fixture(params=["sql", "redis"])
def open_site(
    request: pytest.FixtureRequest, tmp_path: Path, valkey: Valkey
) -> Callable[[], AbstractAsyncContextManager[Site]]:
    """Opens the same store again each time, as a restarted process does."""
    clock = FakeClock()
    if request.param == "sql":
        return lambda: open_sql(tmp_path / "site.sqlite", clock)
    return lambda: open_redis(valkey.url, tmp_path.name, clock)


@pytest.fixture
async def site(open_site: Callable[[], AbstractAsyncContextManager[Site]]) -> AsyncIterator[Site]:
    async with open_site() as made:
        yield made


def progress(stored: Stored, offset: int = 0, *, epoch: int | None = None) -> Progress:
    checkpoint = Checkpoint(offset=offset, segmenter=SegmenterState(position=offset // 512))
    return Progress(
        site=stored.site,
        conversation_id=stored.conversation_id,
        epoch=stored.epoch if epoch is None else epoch,
        checkpoints=(checkpoint,),
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
    insight = Insight(
        index=0,
        revision=revision,
        intent="chatter",
        department="none",
        urgency="low",
        summary="Nothing",
        confidence=0.5,
        model="m",
    )
    return InsightsFound(
        site=stored.site,
        conversation_id=stored.conversation_id,
        utterance_id=utterance_id(stored.conversation_id, 0, start),
        revision=revision,
        insights=(insight,),
        speech_ended_ns=2,
        published_ns=3,
        latency=Latency(),
    )


def change(stored: Stored, state: ConversationState) -> ConversationChanged:
    return ConversationChanged(
        site=stored.site,
        conversation_id=stored.conversation_id,
        channel=stored.channel,
        state=state,
        sample_rate=16_000,
        speakers=1,
        ledgers=(Ledger(),),
        at_ns=1,
    )


async def answer(site: Site, stored: Stored, start: int, revision: int = 1) -> DurableEvent | None:
    found = insights(stored, start, revision)
    return await site.store.add_insights(found)


async def log(site: Site, stored: Stored, after: int = 0) -> list[int]:
    return [event.seq for event in await site.store.events(stored.site, stored.conversation_id, after)]


async def test_a_new_conversation(site: Site) -> None:
    stored = await site.store.open(
        request(audio_format=AudioFormat(encoding="alaw", sample_rate=8_000, speakers=2)), TOKEN
    )
    assert stored.created
    assert (stored.epoch, stored.last_seq, stored.state) == (1, 0, "live")
    assert stored.checkpoints == (Checkpoint(), Checkpoint())
    assert await states(site) == ["live"]


async def test_whether_a_conversation_is_known(site: Site) -> None:
    assert not await site.store.known("main", "c-1")
    await site.store.open(request(), TOKEN)
    assert await site.store.known("main", "c-1")
    assert not await site.store.known("elsewhere", "c-1")
    assert not await site.store.known("main", "c-2")


async def test_a_conversation_that_goes_on_with_another_tells_so_once(site: Site) -> None:
    wanted = msgspec.structs.replace(request(), continues="c-before")
    await site.store.open(wanted, TOKEN)
    await site.store.open(wanted, TOKEN)
    told = [msgspec.json.decode(payload, type=ConversationChanged) for payload in await site.told(CONVERSATIONS)]
    assert [change.continues for change in told] == ["c-before", None]


async def test_whoever_reads_only_the_newest_change_knows_all_times(site: Site) -> None:
    """A dashboard that did not read for a while must end like one that has read each change."""
    stored = await site.store.open(request(), TOKEN)
    told = [msgspec.json.decode(payload, type=ConversationChanged) for payload in await site.told(CONVERSATIONS)]
    for at_ns, state in enumerate(TURNS, start=told[0].at_ns + 1):
        made = msgspec.structs.replace(change(stored, state), at_ns=at_ns)
        await site.store.change_state(progress(stored), made)
        told.append(made)
        found = [msgspec.json.decode(payload, type=ConversationChanged) for payload in await site.told(CONVERSATIONS)]
        assert folded(found) == folded(told)


async def test_resuming_gives_back_everything_under_a_new_epoch(
    open_site: Callable[[], AbstractAsyncContextManager[Site]],
) -> None:
    wanted = request(audio_format=AudioFormat(encoding="mulaw", sample_rate=8_000))
    async with open_site() as site:
        stored = await site.store.open(wanted, TOKEN)
        await site.store.publish(progress(stored, 5_120), utterance(stored, 512))
    async with open_site() as site:
        again = await site.store.open(wanted, "another token")
        assert not again.created
        assert again.epoch > stored.epoch
        assert again.format == wanted.format
        assert again.checkpoints == progress(stored, 5_120).checkpoints
        assert again.ledgers == (Ledger(received=5_120, silence=5_120),)
        assert again.last_seq == 1
        assert again.unanswered == (utterance_id("c-1", 0, 512),)


@pytest.mark.parametrize("token", [None, "", "x" * 32, TOKEN + "x", TOKEN[:-1]])
async def test_without_its_token_nobody_gets_in(site: Site, token: str | None) -> None:
    stored = await site.store.open(request(), TOKEN)
    with pytest.raises(ForbiddenError):
        await site.store.open(request(token=token), token or "chosen by the server")
    assert await site.store.save([progress(stored, 512)]) == [], "a failed attempt must not fence the owner"


async def test_sites_do_not_meet(site: Site) -> None:
    here = await site.store.open(request(), TOKEN)
    there = await site.store.open(request(site="other", token="o" * 32), "o" * 32)
    assert there.created
    await site.store.publish(progress(here), utterance(here, 0))
    assert await site.store.publish(progress(there), utterance(there, 0)) is not None
    assert await log(site, here) == await log(site, there) == [1]


async def test_an_owner_that_was_replaced_can_do_nothing(site: Site) -> None:
    old = await site.store.open(request(), TOKEN)
    new = await site.store.open(request(), TOKEN)
    with pytest.raises(FencedError):
        await site.store.publish(progress(old, 5_120), utterance(old, 0))
    with pytest.raises(FencedError):
        await site.store.change_state(progress(old, 5_120), change(old, "ended"))
    assert await site.store.save([progress(old, 5_120)]) == [("main", "c-1")]
    assert await log(site, new) == []
    assert await site.told(TRANSCRIPTS) == []
    assert set(await states(site)) == {"live"}
    [left] = await site.store.ledgers("c-1")
    assert left.ledgers == (Ledger(),)


async def test_who_is_fenced_can_be_asked_without_storing_anything(site: Site) -> None:
    old = await site.store.open(request(), TOKEN)
    other = await site.store.open(request("c-2"), TOKEN)
    assert await site.store.fenced([progress(old), progress(other)]) == []
    await site.store.open(request(), TOKEN)
    stranger = msgspec.structs.replace(progress(old), conversation_id="c-9")
    asked = [progress(old, 512), progress(other, 512), stranger]
    assert await site.store.fenced(asked) == [("main", "c-1"), ("main", "c-9")]
    assert [item.ledgers for item in await site.store.ledgers(None)] == [(Ledger(),), (Ledger(),)]


async def test_a_process_that_is_alone_has_every_turn(site: Site) -> None:
    assert await site.store.turn("recordings", 60)
    assert await site.store.turn("recordings", 60)


async def test_one_fenced_conversation_does_not_hold_up_the_others(site: Site) -> None:
    old = await site.store.open(request(), TOKEN)
    await site.store.open(request(), TOKEN)
    other = await site.store.open(request("c-2"), TOKEN)
    assert await site.store.save([progress(old, 512), progress(other, 1_024)]) == [("main", "c-1")]
    assert (await site.store.open(request("c-2"), TOKEN)).checkpoints[0].offset == 1_024


async def test_publishing_is_one_step(site: Site) -> None:
    """Number, event, checkpoint and message: all of it, or nothing."""
    stored = await site.store.open(request(), TOKEN)
    event = await site.store.publish(progress(stored, 5_120), utterance(stored, 512))
    assert event is not None
    assert event.seq == 1
    assert event.seq == 1
    [payload] = await site.told(TRANSCRIPTS)
    message = msgspec.json.decode(payload, type=UtteranceTranscribed)
    assert (message.seq, message.utterance_id) == (1, event.utterance_id)
    assert await site.store.events("main", "c-1", 0) == [event]

    await site.break_bus()
    with pytest.raises((StorageError, BusUnavailableError)):
        await site.store.publish(progress(stored, 10_240), utterance(stored, 6_000))
    await site.mend_bus()
    assert await log(site, stored) == [1]
    again = await site.store.publish(progress(stored, 10_240), utterance(stored, 6_000))
    assert again is not None
    assert again.seq == 2


async def test_publishing_again_changes_nothing(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    await site.store.publish(progress(stored, 512), utterance(stored, 0))
    assert await site.store.publish(progress(stored, 512), utterance(stored, 0, "heard otherwise")) is None
    assert len(await site.told(TRANSCRIPTS)) == 1
    assert await log(site, stored) == [1]


async def test_seq_counts_utterances_and_insights_without_holes(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    for start in range(0, 50_000, 1_000):
        assert await site.store.publish(progress(stored), utterance(stored, start)) is not None
        assert await site.store.publish(progress(stored), utterance(stored, start)) is None
        if start % 3_000 == 0:
            assert await answer(site, stored, start) is not None
            assert await answer(site, stored, start) is None
    count = 50 + 17
    seen: list[int] = []
    while page := await log(site, stored, seen[-1] if seen else 0):
        seen += page
    assert seen == list(range(1, count + 1))
    assert await log(site, stored, 60) == list(range(61, count + 1))


async def test_a_renewed_insight_is_logged_once_and_an_old_one_never(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    await site.store.publish(progress(stored), utterance(stored, 0))
    events = [await answer(site, stored, 0, revision) for revision in (1, 1, 3, 2, 3)]
    assert [event.seq if event else None for event in events] == [2, None, 3, None, None]
    assert (await site.store.open(request(), TOKEN)).unanswered == ()


async def test_insights_of_nobody_are_no_error(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    stranger = msgspec.structs.replace(stored, conversation_id="c-9")
    assert await answer(site, stranger, 0) is None


async def test_a_process_that_died_leaves_interrupted_conversations(
    open_site: Callable[[], AbstractAsyncContextManager[Site]],
) -> None:
    async with open_site() as site:
        for name in ("c-1", "c-2", "c-3"):
            stored = await site.store.open(request(name), TOKEN)
        await site.store.change_state(progress(stored), change(stored, "ended"))
    async with open_site() as site:
        assert await site.store.adopt() == 2
        assert await site.store.adopt() == 0
        states = {item.conversation_id: item.state for item in await site.store.ledgers(None)}
        assert states == {"c-1": "interrupted", "c-2": "interrupted", "c-3": "ended"}
        assert (await site.store.open(request("c-1"), TOKEN)).epoch == 2


async def test_nobody_expires_for_the_time_there_was_no_server(
    open_site: Callable[[], AbstractAsyncContextManager[Site]],
) -> None:
    """Nor for the hours that the wall clock jumps between two runs."""
    async with open_site() as site:
        stored = await site.store.open(request(), TOKEN)
        await site.store.change_state(progress(stored), change(stored, "interrupted"))
    async with open_site() as site:
        site.clock.advance(10_000)
        await site.store.adopt()
        now = site.clock.now_ns()
        assert await site.store.expire(now, now, frozenset()) == 0
        assert await site.store.expire(now + 1, now, frozenset()) == 1


async def test_who_does_not_come_back_expires(site: Site) -> None:
    for name in ("gone", "kept", "ended"):
        stored = await site.store.open(request(name), TOKEN)
        if name != "ended":
            await site.store.change_state(progress(stored), change(stored, "interrupted"))
    await site.store.change_state(progress(stored), change(stored, "ended"))
    site.clock.advance(100)
    now = site.clock.now_ns()
    fresh = await site.store.open(request("fresh"), TOKEN)
    assert await site.store.expire(now, now, frozenset({("main", "kept")})) == 1
    found = {item.conversation_id: item.state for item in await site.store.ledgers(None)}
    assert found == {"gone": "expired", "kept": "interrupted", "ended": "ended", "fresh": "live"}
    assert await site.store.save([progress(fresh, 512)]) == []
    gone = msgspec.structs.replace(fresh, conversation_id="gone")
    with pytest.raises(FencedError):
        await site.store.publish(progress(gone), utterance(gone, 0))
    again = await site.store.open(request("gone"), TOKEN)
    assert again.state == "expired", "an expired conversation replays, and does not live again"


async def test_a_live_conversation_that_nobody_has_is_interrupted_before_it_expires(site: Site) -> None:
    """It may have been silent for long; its client has the whole idle limit to come back."""
    stored = await site.store.open(request(), TOKEN)
    site.clock.advance(1_000)
    now = site.clock.now_ns()
    assert await site.store.expire(now, now, frozenset()) == 0
    assert (await states(site))[-1] == "interrupted"
    with pytest.raises(FencedError):
        await site.store.publish(progress(stored), utterance(stored, 0))
    assert await site.store.expire(now, now, frozenset()) == 0, "the idle limit begins anew"
    site.clock.advance(10)
    assert await site.store.expire(site.clock.now_ns(), site.clock.now_ns(), frozenset()) == 1
    assert (await states(site))[-1] == "expired"


async def test_what_ended_long_ago_is_deleted(site: Site) -> None:
    ended = await site.store.open(request("ended"), TOKEN)
    await site.store.publish(progress(ended), utterance(ended, 0))
    await site.store.change_state(progress(ended), change(ended, "ended"))
    await site.store.open(request("live"), TOKEN)
    site.clock.advance(100)
    recent = await site.store.open(request("recent"), TOKEN)
    await site.store.change_state(progress(recent), change(recent, "ended"))
    assert await site.store.purge(site.clock.now_ns()) == 1
    assert {item.conversation_id for item in await site.store.ledgers(None)} == {"live", "recent"}
    assert await log(site, ended) == []
    assert await answer(site, ended, 0) is None
    assert (await site.store.open(request("ended"), TOKEN)).created


async def test_a_full_ledger_is_given_back(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    ledgers = (Ledger(received=1_024, speech=512, silence=0, gap=512),)
    moved = msgspec.structs.replace(progress(stored, 1_024), ledgers=ledgers)
    assert await site.store.save([moved]) == []
    [found] = await site.store.ledgers("c-1")
    assert found.ledgers == ledgers
    assert found.ledgers[0].balanced
    assert await site.store.ledgers("c-2") == []


def by_id(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.id)


async def test_the_checker_is_told_what_the_logs_have_in_ranges_of_any_size(site: Site) -> None:
    """`a` sorts before `a-b`, and its utterances behind those: what is within a range is no matter of conversations."""
    for name in ("a", "a-b", "b"):
        stored = await site.store.open(request(conversation_id=name), TOKEN)
        for start in (0, 512, 1024):
            await site.store.publish(progress(stored, start), utterance(stored, start))
        await site.store.add_insights(insights(stored, 512))
        await site.store.add_insights(insights(stored, 512, revision=2))
        if name != "b":
            await site.store.change_state(progress(stored, 2048), change(stored, "ended"))
    whole = await site.store.contents(CompareAudio(items=True))
    said = sorted(f"{name}:0:{start}" for name in ("a", "a-b", "b") for start in (0, 512, 1024))
    assert sorted(item.id for item in whole.items[TRANSCRIBED]) == said
    assert sorted(item.id for item in whole.items[ANSWERED]) == ["a-b:0:512", "a:0:512", "b:0:512"]
    assert sorted(item.id for item in whole.items[ENDED]) == ["a", "a-b"]
    for limit in (1, 2, 4, 9):
        parts, after = [], FIRST
        while True:
            part = await site.store.contents(CompareAudio(after=after, limit=limit, items=True))
            parts.append(part)
            assert part.kinds[TRANSCRIBED].count <= limit
            if part.until is None:
                break
            after = part.until
        for kind, items in whole.items.items():
            assert by_id(item for each in parts for item in each.items[kind]) == by_id(items)
    assert whole.faults == []
    now_ns = site.clock.now_ns()
    assert sorted(await site.store.recent(now_ns - 10**9, 9)) == [("main", "a"), ("main", "a-b"), ("main", "b")]
    assert len(await site.store.recent(now_ns - 10**9, 2)) == 2
    assert await site.store.recent(now_ns + 10**9, 9) == []


async def test_a_conversation_that_nobody_has_is_finished_once(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    await site.store.publish(progress(stored, 512), utterance(stored, 0))
    await site.store.change_state(progress(stored), change(stored, "interrupted"))
    first = await site.store.finish("main", "c-1", "closed by ada")
    assert (first.state, first.last_utterance, first.last_seq) == ("ended", utterance_id("c-1", 0, 0), 1)
    assert await site.store.finish("main", "c-1", "closed by bob") == first
    [*_, last] = [msgspec.json.decode(each, type=ConversationChanged) for each in await site.told(CONVERSATIONS)]
    assert (last.state, last.reason) == ("ended", "closed by ada")
    with pytest.raises(FencedError):  # its owner was only thought to be away
        await site.store.change_state(progress(stored), change(stored, "live"))
    with pytest.raises(NotFoundError):
        await site.store.finish("main", "nobody-said-it", "closed by ada")
