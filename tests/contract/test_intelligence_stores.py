"""Results, debts and prompts in every kind of database; and what several processes of intelligence share."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.intelligence import heard, insight
from tests.support.intelligence_store import opened, prepare

from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.intelligence.adapters.history import WARM, begin_warm, take_over
from quickcomm.intelligence.adapters.sql_cache import SqlCache
from quickcomm.intelligence.adapters.sql_prompts import SqlPrompts
from quickcomm.intelligence.adapters.sql_results import CLAIM_NS, SqlResults, debts
from quickcomm.intelligence.adapters.sql_usage import SqlUsage
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.intelligence.ports import Cached, ModelAnswer, Owed, PromptDeployment, PromptRecord, StoredPrompt
from quickcomm.intelligence.service.prompt_desk import EVALUATED, PUT
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.copier.sql import SqlSource
from quickcomm.kernel.errors import ConflictError
from quickcomm.kernel.messaging.bus.sql_tables import messages
from quickcomm.kernel.storage import Database

EVENT = PromptRecord(at_ns=5, by="ada", action="deployed", prompt_id="a1", weight=100, note="Better.")
PROMPT = StoredPrompt(id="a1", name="plain", note="", source='system = "ä"', added_ns=4, added_by="ada")


@pytest.fixture
async def database(mind_store: Path | str) -> AsyncIterator[Database]:
    async with opened(mind_store) as database:
        yield database


def owed(number: int, at_ns: int = 1_000) -> Owed:
    one = heard(f"fix lamp {number}", number)
    found = InsightsFound(
        site="main",
        conversation_id="c",
        utterance_id=one.utterance_id,
        revision=1,
        insights=(insight(one.text, model="local-1", degraded=True),),
        speech_ended_ns=at_ns,
        published_ns=at_ns,
        latency=Latency(),
    )
    return Owed(found=found, heard=one)


def again(item: Owed, revision: int = 2) -> InsightsFound:
    return msgspec.structs.replace(item.found, revision=revision)


async def published(database: Database) -> list[tuple[str, int]]:
    query = sa.select(messages).where(messages.c.stream == INSIGHTS).order_by(messages.c.id)
    rows = await database.read(lambda connection: connection.execute(query).all())
    found = [msgspec.json.decode(row.payload, type=InsightsFound) for row in rows]
    return [(each.utterance_id, each.revision) for each in found]


# -- results and debts ------------------------------------------------------------------------------------------------


async def test_each_revision_is_published_once_and_none_that_is_older(database: Database) -> None:
    store, one = SqlResults(database), owed(1)
    for revision in (1, 1, 3, 2, 3):
        await store.publish([again(one, revision)])
    assert await published(database) == [("c:0:1", 1), ("c:0:1", 3)]
    assert await store.known([("main", "c:0:1"), ("main", "c:0:2"), ("other", "c:0:1")]) == {("main", "c:0:1")}
    await store.purge(2_000)
    assert await store.known([("main", "c:0:1")]) == set()


async def test_a_debt_is_paid_by_a_higher_revision_or_forgotten(database: Database) -> None:
    clock = FakeClock(start_ns=10_000)
    store = SqlResults(database, clock)
    one, two, three = (owed(number, 1_000 * number) for number in (1, 2, 3))
    await store.publish([each.found for each in (three, one, two)], [three, one, two])
    found = await store.oldest(2, 1_500)
    assert [item.heard.utterance_id for item in found] == ["c:0:2", "c:0:3"]
    await store.release(found)
    await store.publish([again(one)])
    await store.forget(two)
    assert [item.heard for item in await store.oldest(9, 0)] == [three.heard]
    assert await store.forget_before(3_001) == 1
    clock.advance(CLAIM_NS / 10**9)
    assert await store.oldest(9, 0) == []


async def test_a_debt_that_a_later_release_wrote_is_known_here(database: Database) -> None:
    store, one = SqlResults(database, FakeClock()), owed(1)
    await store.publish([one.found], [one])
    written = msgspec.to_builtins(one)
    written["found"]["insights"][0]["of_a_later_release"] = True
    change = debts.update().values(payload=msgspec.json.encode(written))
    await database.write(lambda connection: connection.execute(change))
    assert await store.oldest(9, 0) == [one]


async def test_what_one_process_renews_is_left_alone_by_the_others(shared_store: str) -> None:
    clock = FakeClock()
    async with opened(shared_store) as mine, opened(shared_store) as theirs:
        one, two = SqlResults(mine, clock), SqlResults(theirs, clock)
        items = [owed(number, number) for number in range(1, 7)]
        await one.publish([item.found for item in items], items)
        taken, left = await asyncio.gather(one.oldest(3, 0), two.oldest(3, 0))
        assert {item.heard.utterance_id for item in (*taken, *left)} == {item.heard.utterance_id for item in items}
        assert await one.oldest(9, 0) == []
        await two.release(left[:1])
        assert await one.oldest(9, 0) == left[:1]
        clock.advance(CLAIM_NS / 10**9)  # whoever had them has died
        assert len(await two.oldest(9, 0)) == 6


async def test_of_two_processes_that_answer_the_same_one_counts(shared_store: str) -> None:
    async with opened(shared_store) as mine, opened(shared_store) as theirs:
        stores = [SqlResults(mine), SqlResults(theirs)]
        items = [owed(number) for number in range(50)]
        async with asyncio.TaskGroup() as group:
            for item in items:
                for store in stores:
                    group.create_task(store.publish([item.found]))
        assert sorted(await published(mine)) == sorted((item.heard.utterance_id, 1) for item in items)


# -- prompts ----------------------------------------------------------------------------------------------------------


async def test_prompts_are_kept_with_who_did_what(database: Database) -> None:
    store = SqlPrompts(database)
    assert await store.deployment() is None
    added = PromptRecord(at_ns=4, by="ada", action="added", prompt_id="a1")
    assert await store.add(PROMPT, added)
    assert not await store.add(PROMPT, added)
    assert await store.prompts() == [PROMPT]
    first = PromptDeployment(revision=1, live_id="a1")
    await store.deploy(first, EVENT)
    with pytest.raises(ConflictError):
        await store.deploy(PromptDeployment(revision=1, live_id="b2"), EVENT)
    second = PromptDeployment(revision=2, live_id="a1", canary_id="b2", weight=10, back_to=1)
    await store.deploy(second, msgspec.structs.replace(EVENT, action="canary", prompt_id="b2", forced=True))
    assert (await store.deployment(), await store.deployment_at(1)) == (second, first)
    assert [(record.action, record.forced) for record in await store.records(2)] == [
        ("canary", True),
        ("deployed", False),
    ]
    assert await store.newest("a1", PUT) == EVENT
    assert await store.newest("a1", EVALUATED) is None


# -- from a file to a server ------------------------------------------------------------------------------------------


async def test_what_the_file_had_comes_over_once(shared_store: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path) as site, opened(shared_store) as database:
        debt = owed(1)
        await SqlResults(site).publish([debt.found], [debt])
        prompts = SqlPrompts(site)
        await prompts.add(PROMPT, PromptRecord(at_ns=4, by="ada", action="added", prompt_id="a1"))
        await prompts.deploy(PromptDeployment(revision=1, live_id="a1"), EVENT)
        usage = SqlUsage(site, clock, UsageSettings())
        usage.record("main", "c", ModelAnswer(text="", prompt_tokens=7))
        cache = SqlCache(site, clock)
        await cache.put(b"k", Cached(drafts=()))
        await usage.flush()
        await cache.flush()

        assert await take_over(database, site) > 6
        assert await take_over(database, site) == 0
        assert await SqlPrompts(database).prompts() == [PROMPT]
        assert [record.action for record in await SqlPrompts(database).records(9)] == ["deployed", "added"]
        await SqlPrompts(database).record(EVENT)  # ids go on
        assert await SqlResults(database, clock).oldest(9, 0) == [debt]
        assert (await SqlUsage(database, clock).report("main", None, 9)).conversations[0].prompt_tokens == 7
        assert await SqlCache(database, clock).get(b"k") == Cached(drafts=())
        assert await published(database) == [("c:0:1", 1)]
        assert await published(site) == [], "what was not sent is sent from here"


async def test_a_side_begins_with_what_the_other_one_knows_and_leaves_it_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as site, opened(tmp_path / "own.sqlite") as database:
        debt = owed(1)
        await SqlResults(site).publish([debt.found], [debt])
        await SqlPrompts(site).add(PROMPT, PromptRecord(at_ns=4, by="ada", action="added", prompt_id="a1"))
        source = SqlSource(site, WARM)
        assert sum((await begin_warm(database, source)).values()) > 3
        await SqlPrompts(site).record(EVENT)
        assert await begin_warm(database, source) == {}, "it is done once"
        assert await SqlPrompts(database).prompts() == [PROMPT]
        assert await SqlResults(database).oldest(9, 0) == [debt]
        assert await published(database) == []
        assert await published(site) == [("c:0:1", 1)], "who has it to send, sends it"


async def test_two_processes_that_begin_at_once_copy_it_once(shared_store: str, tmp_path: Path) -> None:
    async with opened(tmp_path) as site, opened(shared_store) as database, opened(shared_store) as other:
        for number in range(3):
            await SqlPrompts(site).record(msgspec.structs.replace(EVENT, at_ns=number))
            await SqlResults(site).publish([owed(number).found], [owed(number)])
        await asyncio.gather(take_over(database, site), take_over(other, site))
        assert [record.at_ns for record in await SqlPrompts(database).records(9)] == [2, 1, 0]
        assert await published(database) == [(f"c:0:{number}", 1) for number in range(3)]
        assert await published(site) == []


async def test_what_the_last_release_has_copied_is_not_copied_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as site, opened(tmp_path / "own.sqlite") as database:
        await SqlPrompts(site).record(EVENT)

        def as_before(connection: sa.Connection) -> None:
            connection.exec_driver_sql("ALTER TABLE intelligence_results DROP COLUMN owner_epoch")
            connection.exec_driver_sql("DROP TABLE intelligence_copied")
            connection.exec_driver_sql("DROP TABLE intelligence_erased")
            connection.exec_driver_sql("CREATE TABLE intelligence_inherited (what TEXT PRIMARY KEY, at_ns BIGINT)")
            connection.exec_driver_sql("INSERT INTO intelligence_inherited VALUES ('site', 1)")
            connection.exec_driver_sql("UPDATE intelligence_schema_version SET version_num = 'intelligence_0005'")

        await database.write(as_before)
        prepare(database)
        assert await take_over(database, site) == 0
        assert await SqlPrompts(database).records(9) == []
