"""Each module erases in every kind of store: nothing of it is left, nothing of it comes again, and twice is as once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from tests.contract.test_session_store import Site, answer, insights, open_redis, open_sql, progress, utterance
from tests.support.dashboard_site import found, heard, insight, running
from tests.support.hearing import TOKEN, request
from tests.support.intelligence_store import opened
from tests.support.talking import changed, delivery, spoken, understood
from tests.support.valkey import Valkey

from quickcomm.audio.adapters.recorder import FlacRecorder, Folder
from quickcomm.audio.ports import FencedError
from quickcomm.contracts.audio_socket import Insights, Utterance
from quickcomm.contracts.checking import FIRST, CompareAudio, CompareDashboard
from quickcomm.contracts.closing import ArchiveConversation
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged
from quickcomm.contracts.erasing import (
    ERASED,
    EraseAudio,
    Erased,
    EraseDashboard,
    EraseIntelligence,
    FindDashboard,
    Scope,
    Wanted,
)
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.dashboard.adapters.erasing import erasing_answers
from quickcomm.intelligence.adapters.erasing import erasing_answer
from quickcomm.intelligence.adapters.sql_cache import SqlCache, answers
from quickcomm.intelligence.adapters.sql_results import SqlResults, debts
from quickcomm.intelligence.adapters.sql_talks import SqlTalks, talks
from quickcomm.intelligence.model.talk import SummarySettings
from quickcomm.intelligence.ports import Cached, Draft, Heard, Owed
from quickcomm.intelligence.service.side_questions import SideQuestions
from quickcomm.intelligence.service.summaries import Summaries
from quickcomm.kernel.clock import FakeClock, SystemClock
from quickcomm.kernel.messaging.bus import RejectedError
from quickcomm.kernel.messaging.bus.port import Delivery
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.saga.keys import migrate_keys
from quickcomm.kernel.storage import Database

SECRET = "zanzibarquartz"
START = 16_000
NOW = 2 * 10**18


def counts(found: list[Erased]) -> dict[str, int]:
    return {line.what: line.count for line in found if line.count}


def bytes_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes())


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.flac")]


# -- dashboard --------------------------------------------------------------------------------------------------------


def said(place: int, conversation: str = "a", text: str = SECRET) -> Any:
    return heard(place * START, f"{text} {place}", conversation=conversation)


async def test_cards_tasks_search_and_summaries_go(tmp_path: Path, store: Path | str) -> None:
    async with running(tmp_path, store=store) as site:
        whole, first, other = said(0), said(1, "b"), said(3, "b", "towels")
        for message in (whole, first, other):
            await site.say(message, insight("request_item", "412", summary=f"Bring {message.text}"))
        [_, erase] = [handle for _, handle in erasing_answers(site.database)]
        asked = EraseDashboard(
            erasure="e", at_ns=NOW, scope=Scope(conversations=("a",), utterances=(first.utterance_id,))
        )
        assert counts(await erase(asked)) == {"tasks": 2, "cards": 2}
        assert counts(await erase(asked)) == {}, "a second time finds nothing more"
        left = await site.get("/v1/utterances")
        assert [card["utterance_id"] for card in left["items"]] == [other.utterance_id]
        assert (await site.get("/v1/utterances", {"query": SECRET}))["items"] == []
        assert len((await site.get("/v1/tasks"))["items"]) == 1

        await site.publish(whole, found(whole, insight(), revision=2), said(9), said(2, "b", "soap"))
        later = said(4, "b", "soap")
        await site.say(later, insight())
        await until_handled(site.bus)
        left = await site.get("/v1/utterances")
        assert {card["conversation_id"] for card in left["items"]} == {"b"}, "what comes late has no effect"
        contents = await answered(site.dashboard.part().answers, CompareDashboard())
        assert [fault for fault in contents.faults if fault.code == ERASED] == []


async def until_handled(bus: Any) -> None:
    async with asyncio.timeout(20):
        while any((await bus.backlog()).values()):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.02)


async def answered(served: Any, asked: Any) -> Any:
    [handle] = [handle for kind, handle in served if kind is type(asked)]
    return await handle(asked)


async def test_a_name_or_a_time_stands_for_utterances_and_their_copies(tmp_path: Path, store: Path | str) -> None:
    async with running(tmp_path, store=store) as site:
        named = heard(0, "please bring four extra towels for Rose to 412", conversation="a")
        copy = heard(0, "please bring four extra towels for Rosa to 412", conversation="b", channel="hk-2")
        task, other = (
            heard(20 * START, "clean 305", conversation="a"),
            heard(40 * START, "leak in 306", conversation="c"),
        )
        for message in (named, copy, task, other):
            await site.say(message, insight("request_item", "412", summary="Do it"))
        body = await site.get("/v1/tasks")
        [number] = [item["task_id"] for item in body["items"] if item["utterance_id"] == task.utterance_id]
        await site.post(f"/v1/tasks/{number}/assign", body={"assignee": "Rose Miller"})
        find, _ = [handle for _, handle in erasing_answers(site.database)]
        scope = await find(FindDashboard(wanted=Wanted(name="rose")))
        assert set(scope.utterances) == {named.utterance_id, copy.utterance_id, task.utterance_id}
        at = other.spoken_at_ns
        scope = await find(FindDashboard(wanted=Wanted(since_ns=at, until_ns=at + 1)))
        assert scope == Scope(utterances=(other.utterance_id,))
        scope = await find(FindDashboard(wanted=Wanted(conversation="b")))
        assert scope == Scope(conversations=("b",), utterances=(named.utterance_id,)), (
            "one transmission goes as a whole"
        )
        scope = await find(FindDashboard(wanted=Wanted(name="nobody"), utterances=(copy.utterance_id,)))
        assert set(scope.utterances) == {named.utterance_id, copy.utterance_id}


async def test_a_closing_forgets_whose_the_erased_tasks_were(tmp_path: Path, store: Path | str) -> None:
    """It is about a conversation, and goes on to be what it was: the next one is closed as ever."""

    def archiving(conversation: str) -> ArchiveConversation:
        return ArchiveConversation(
            key=f"{conversation}:archive",
            site="main",
            conversation_id=conversation,
            by="grace",
            tasks="hand_over",
            assignee="night desk",
        )

    async with running(tmp_path, store=store) as site:
        migrate_keys(site.database.engine)
        task, other = heard(0, "clean 305", conversation="a"), heard(20 * START, "leak in 306", conversation="b")
        for message in (task, other):
            await site.say(message, insight("request_item", "412", summary="Do it"))
        await site.post(f"/v1/tasks/{task.utterance_id}:0/assign", body={"assignee": SECRET})
        served = site.dashboard._answers()
        reply = await answered(served, archiving("a"))
        assert SECRET not in str(reply), "it is kept with its key"
        find, erase = [handle for _, handle in erasing_answers(site.database)]
        scope = await find(FindDashboard(wanted=Wanted(name=SECRET)))
        assert scope == Scope(utterances=(task.utterance_id,))
        asked = EraseDashboard(erasure="e", at_ns=NOW, scope=scope)
        assert counts(await erase(asked))["decisions"] == 2, "the assignment, and what the closing knew of it"
        assert counts(await erase(asked)) == {}, "a second time finds nothing more"
        query = sa.text("SELECT payload FROM dashboard_decisions")
        left = await site.database.read(lambda connection: connection.execute(query).scalars().all())
        assert SECRET not in str(left)
        assert "night desk" not in str(left)
        assert (await site.get("/v1/conversations/a"))["archived_by"] == "grace"
        await answered(served, archiving("b"))
        assert (await site.get("/v1/conversations/b"))["archived_by"] == "grace"


# -- intelligence -----------------------------------------------------------------------------------------------------

ONE, TWO = spoken(1, f"leak {SECRET}", conversation="a"), spoken(2, f"mop {SECRET}", conversation="b")
KEPT = spoken(3, "towels", conversation="b")


def of(message: Any) -> Any:
    return understood(message, insight("repair", "305", summary=f"Fix {message.text}"))


def owed(message: Any) -> Owed:
    heard_there = Heard(
        text=message.text,
        context=(f"before it {SECRET}",),
        channel=message.channel,
        site="main",
        conversation_id=message.conversation_id,
        utterance_id=message.utterance_id,
    )
    return Owed(found=of(message), heard=heard_there)


async def rows(database: Database, table: sa.Table) -> int:
    query = sa.select(sa.func.count()).select_from(table)
    return int(await database.read(lambda connection: connection.execute(query).scalar_one()))


async def test_results_backlog_notes_and_answers_go(mind_store: Path | str) -> None:
    clock = FakeClock()
    async with opened(mind_store) as database:
        results, settings = SqlResults(database), SummarySettings()
        summaries = Summaries(SqlTalks(database, settings), SideQuestions(), clock, settings)
        cache = SqlCache(database, clock)
        await results.publish([of(each) for each in (ONE, TWO, KEPT)], [owed(each) for each in (ONE, TWO, KEPT)])
        await summaries.transcripts([delivery(each) for each in (ONE, TWO, KEPT)])
        draft = Draft(intent="repair", department="engineering", urgency="high", summary=SECRET)
        await cache.put(b"1", Cached(drafts=(draft,)))
        await cache.flush()
        forgotten: list[Scope] = []
        kind, erase = erasing_answer(database, forgotten.append)
        assert kind is EraseIntelligence
        scope = Scope(conversations=("a",), utterances=(TWO.utterance_id,))
        asked = EraseIntelligence(erasure="e", at_ns=NOW, scope=scope)
        gone = {"results": 2, "backlog": 2, "notes for summaries": 2, "answers of the model": 1, "messages": 2}
        assert counts(await erase(asked)) == gone
        assert counts(await erase(asked)) == {}
        assert forgotten == [scope, scope]
        assert [await rows(database, table) for table in (debts, talks, answers)] == [1, 0, 0]

        await results.publish([of(ONE), of(TWO)], [owed(ONE)])
        await results.follow([of(ONE)], [owed(ONE)])
        await summaries.transcripts([delivery(ONE), delivery(TWO)])
        await summaries.insights([delivery(of(ONE)), delivery(of(TWO))])
        await summaries.conversations([delivery(changed("a", "ended"))])
        assert [await rows(database, table) for table in (debts, talks)] == [1, 0]
        assert await results.erased([("main", each.utterance_id) for each in (ONE, TWO, KEPT)]) == {
            ("main", ONE.utterance_id),
            ("main", TWO.utterance_id),
        }
        waiting = await SqlBus(database, clock).find(Wanted(name=SECRET))
        assert waiting == set()
        if isinstance(mind_store, Path):
            assert list(bytes_of(mind_store.parent)) == []


async def test_a_summary_of_what_was_erased_meanwhile_is_not_published(mind_store: Path | str) -> None:
    clock = FakeClock()
    async with opened(mind_store) as database:
        settings = SummarySettings()
        store = SqlTalks(database, settings)
        summaries = Summaries(store, SideQuestions(), clock, settings)
        await summaries.transcripts([delivery(TWO)])
        await summaries.insights([delivery(of(TWO))])
        clock.advance(3_600)
        [seen] = await store.due(clock.now_ns(), 9)
        _, erase = erasing_answer(database)
        await erase(EraseIntelligence(erasure="e", at_ns=clock.now_ns(), scope=Scope(utterances=(TWO.utterance_id,))))
        clock.advance(1)
        await summaries.transcripts([delivery(KEPT)])
        assert not await store.publish(seen, f"About {SECRET}", "local", clock.now_ns())
        assert await store.publish((await _talk(store, clock)), "Towels.", "local", clock.now_ns())


async def _talk(store: SqlTalks, clock: FakeClock) -> Any:
    clock.advance(3_600)
    [talk] = await store.due(clock.now_ns(), 9)
    return talk


# -- audio ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sql", "redis"])
def open_site(
    request: pytest.FixtureRequest, tmp_path: Path, valkey: Valkey
) -> Callable[[], AbstractAsyncContextManager[Site]]:
    clock = FakeClock()
    if request.param == "sql":
        return lambda: open_sql(tmp_path / "site.sqlite", clock)
    return lambda: open_redis(valkey.url, tmp_path.name, clock)


@pytest.fixture
async def site(open_site: Callable[[], AbstractAsyncContextManager[Site]]) -> AsyncIterator[Site]:
    async with open_site() as made:
        yield made


def erasing(*utterances: str, conversations: tuple[str, ...] = ()) -> EraseAudio:
    return EraseAudio(erasure="e", at_ns=NOW, scope=Scope(conversations=conversations, utterances=utterances))


async def test_an_utterance_of_a_live_conversation_loses_its_words_and_keeps_its_number(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    for start in (512, 1_024, 2_048):
        await site.store.publish(progress(stored, start), utterance(stored, start, SECRET if start < 2_000 else "soap"))
    await answer(site, stored, 512)
    erased = utterance(stored, 512).utterance_id
    found = await site.store.erase(erasing(erased))
    assert found["logged events"] == 2
    assert (await site.store.erase(erasing(erased)))["logged events"] == 0
    events = await site.store.events("main", "c-1", 0)
    assert [event.seq for event in events] == [1, 2, 3, 4]
    texts = {event.utterance_id: event.text for event in events if isinstance(event, Utterance)}
    assert texts == {erased: "", "c-1:0:1024": SECRET, "c-1:0:2048": "soap"}
    assert all(not event.insights for event in events if isinstance(event, Insights))
    assert await answer(site, stored, 512, revision=2) is None, "insights that come late"
    assert await site.store.publish(progress(stored, 2_048), utterance(stored, 512, SECRET)) is None, "after a restart"
    assert await answer(site, stored, 1_024) is not None, "the others go on"
    contents = await site.store.contents(CompareAudio(after=FIRST, items=True))
    assert {item.id for item in contents.items["transcripts"]} == {"c-1:0:1024", "c-1:0:2048"}
    assert contents.faults == []
    again = await site.store.open(request(), TOKEN)
    assert erased not in again.unanswered


async def test_a_live_conversation_ends_and_nothing_more_is_taken_of_it(site: Site) -> None:
    stored = await site.store.open(request(), TOKEN)
    other = await site.store.open(request("c-2"), TOKEN)
    await site.store.publish(progress(stored, 512), utterance(stored, 512, SECRET))
    found = await site.store.erase(erasing(conversations=("c-1", "never")))
    assert (found["logged events"], found["live conversations"]) == (1, 1)
    assert not any((await site.store.erase(erasing(conversations=("c-1", "never")))).values())
    with pytest.raises(FencedError):
        await site.store.publish(progress(stored, 1_024), utterance(stored, 1_024, SECRET))
    assert await site.store.save([progress(stored, 1_024), progress(other, 512)]) == [("main", "c-1")]
    assert await site.store.events("main", "c-1", 0) == []
    told = [msgspec.json.decode(payload, type=ConversationChanged) for payload in await site.told(CONVERSATIONS)]
    assert [(each.state, each.reason) for each in told if each.conversation_id == "c-1"][-1] == ("ended", "erased")
    assert await site.store.add_insights(insights(stored, 512)) is None
    again = await site.store.open(request(), TOKEN)
    assert again.state == "ended", "who comes again is told that it has ended"
    assert await site.store.add_insights(insights(stored, 512, 2)) is None


async def test_the_sound_goes(tmp_path: Path) -> None:
    recorder = FlacRecorder(Folder(tmp_path))
    for name in ("a:0:0", "a:0:512", "b:0:0", "b:1:512"):
        await recorder.record("main", name, np.zeros(160, np.int16))
    scope = Scope(conversations=("a", "none"), utterances=("b:0:0", "b:0:9"))
    assert await recorder.erase(scope) == 3
    assert await recorder.erase(scope) == 0
    assert names_in(tmp_path) == ["1-512.flac"]


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sql", "redis"])
async def bus(request: pytest.FixtureRequest, tmp_path: Path, valkey: Valkey) -> AsyncIterator[SqlBus | RedisBus]:
    if request.param == "redis":
        redis = RedisBus(valkey.url, SystemClock(), prefix=tmp_path.name)
        yield redis
        await redis.aclose()
        return
    database = Database(tmp_path / "bus.sqlite")
    database.open()
    sql = SqlBus(database, SystemClock())
    sql.migrate()
    yield sql
    await database.aclose()


async def until_buried(bus: SqlBus | RedisBus) -> None:
    async with asyncio.timeout(20):
        while not await bus.dead_letters():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.02)


async def test_messages_and_dead_letters_go_whoever_waits_for_them(bus: SqlBus | RedisBus) -> None:
    handled = asyncio.Event()
    seen: list[Delivery] = []

    async def refuse(_batch: Any) -> None:
        raise RejectedError("No.")

    task = asyncio.create_task(bus.subscribe(TRANSCRIPTS, "refuses", refuse))
    await bus.publish(TRANSCRIPTS, "a", msgspec.json.encode(ONE))
    await until_buried(bus)
    task.cancel()
    await bus.publish(TRANSCRIPTS, "b", msgspec.json.encode(TWO))
    await bus.publish(TRANSCRIPTS, "b", msgspec.json.encode(KEPT))
    await bus.publish(INSIGHTS, "a", msgspec.json.encode(of(ONE)))
    await bus.publish(CONVERSATIONS, "a", msgspec.json.encode(changed("a", "ended")))
    assert await bus.find(Wanted(name=SECRET)) == {ONE.utterance_id, TWO.utterance_id}

    async def take(batch: Any) -> None:
        seen.extend(batch)
        if any(b"towels" in each.payload for each in batch):
            handled.set()

    scope = Scope(conversations=("a",), utterances=(TWO.utterance_id,))
    found = counts(await bus.erase(scope))
    assert found["dead letters"] == 1
    assert found["messages"] >= 2
    assert counts(await bus.erase(scope)) == {}
    assert await bus.dead_letters() == []
    task = asyncio.create_task(bus.subscribe(TRANSCRIPTS, "takes", take))
    async with asyncio.timeout(20):
        await handled.wait()
    task.cancel()
    assert [each.key for each in seen] == ["b"]
    assert SECRET.encode() not in b"".join(each.payload for each in seen)


async def test_the_file_of_a_store_has_none_of_it(tmp_path: Path) -> None:
    """A stream keeps the bytes of a deleted message: the file must be written as commands."""
    server = Valkey(tmp_path / "valkey", aof_use_rdb_preamble="no")
    server.start()
    try:
        async with open_redis(server.url, "quickcomm", FakeClock()) as site:
            stored = await site.store.open(request(), TOKEN)
            for start in range(512, 20 * 512, 512):
                text = SECRET if start == 512 else "soap"
                await site.store.publish(progress(stored, start), utterance(stored, start, text))
            bus = RedisBus(server.url, SystemClock())
            await bus.register(TRANSCRIPTS, "late")
            assert list(bytes_of(tmp_path))
            erased = erasing(utterance(stored, 512).utterance_id)
            await site.store.erase(erased)
            lines = await bus.erase(erased.scope)
            assert counts(lines) == {"messages": 1}
            assert {line.gone for line in lines} == {""}
            await bus.aclose()
        assert list(bytes_of(tmp_path)) == []
    finally:
        server.stop()
