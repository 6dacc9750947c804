"""Tokens and money in a real database: added up, capped, and still there after a restart."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.intelligence_store import allow_writes, opened, refuse_writes

from quickcomm.intelligence.adapters import sql_usage
from quickcomm.intelligence.adapters.sql_usage import SqlUsage
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.intelligence.ports import ModelAnswer
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.storage import Database, StorageError

NOON_NS = int(datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()) * 10**9
HOUR_S = 3_600
SETTINGS = UsageSettings(prompt_price=1.0, completion_price=4.0, daily_tokens=1_000, time_zone="UTC", currency="EUR")


def answer(prompt: int, completion: int = 0) -> ModelAnswer:
    return ModelAnswer(text="{}", prompt_tokens=prompt, completion_tokens=completion)


@pytest.fixture
async def database(mind_store: Path | str) -> AsyncIterator[Database]:
    async with opened(mind_store) as database:
        yield database


async def test_sums_by_day_and_by_conversation(database: Database) -> None:
    clock = FakeClock(NOON_NS)
    usage = SqlUsage(database, clock, SETTINGS)
    usage.record("main", "a", answer(100, 10))
    usage.record("main", "a", answer(100, 10))
    clock.advance(1)
    usage.record("main", "b", answer(50))
    usage.record("elsewhere", "a", answer(7))
    await usage.flush()
    clock.advance(24 * HOUR_S)
    usage.record("main", "a", answer(1))
    report = await usage.report("main", None, 10)
    assert [(day.day, day.calls, day.prompt_tokens, day.completion_tokens) for day in report.days] == [
        ("2026-07-02", 1, 1, 0),
        ("2026-07-01", 3, 250, 20),
    ]
    assert report.days[1].cost == pytest.approx((250 * 1.0 + 20 * 4.0) / 1e6)
    assert [(item.conversation_id, item.calls, item.prompt_tokens) for item in report.conversations] == [
        ("a", 3, 201),
        ("b", 1, 50),
    ]
    assert report.conversations[0].last_call_at == "2026-07-02T12:00:01Z"
    assert (report.currency, report.time_zone, report.today.calls) == ("EUR", "UTC", 1)
    only = await usage.report("main", "b", 10)
    assert [item.conversation_id for item in only.conversations] == ["b"]
    assert len((await usage.report("main", None, 1)).conversations) == 1


async def test_the_cap_holds_until_midnight_and_across_restarts(database: Database) -> None:
    clock = FakeClock(NOON_NS)
    usage = SqlUsage(database, clock, SETTINGS)
    usage.record("main", "a", answer(400, 400))
    states = [usage.exhausted]
    assert (await usage.report("main", None, 1)).state == "near"
    usage.record("elsewhere", "x", answer(200))
    assert [*states, usage.exhausted] == [False, True]
    await usage.flush()
    again = SqlUsage(database, clock, SETTINGS)
    again.restore()
    states = [again.exhausted]
    report = await again.report("main", None, 1)
    assert (report.state, report.cap.tokens, report.cap.resets_at) == ("reached", 1_000, "2026-07-02T00:00:00Z")
    assert report.today.prompt_tokens + report.today.completion_tokens == 1_000
    clock.advance(12 * HOUR_S - 1)
    states.append(again.exhausted)
    clock.advance(1)
    states.append(again.exhausted)
    assert states == [True, True, False]
    assert again.today().day == "2026-07-02"


async def test_raising_the_cap_is_enough(database: Database) -> None:
    clock = FakeClock(NOON_NS)
    usage = SqlUsage(database, clock, SETTINGS)
    usage.record("main", "a", answer(1_000))
    await usage.flush()
    generous = SqlUsage(database, clock, UsageSettings(daily_tokens=2_000, time_zone="UTC"))
    generous.restore()
    assert not generous.exhausted


async def test_without_a_cap_nothing_is_ever_exhausted(database: Database) -> None:
    usage = SqlUsage(database, FakeClock(NOON_NS), UsageSettings(time_zone="UTC"))
    usage.record("main", "a", answer(10**12))
    assert not usage.exhausted


async def test_a_disk_that_refuses_loses_nothing_and_counts_nothing_twice(database: Database) -> None:
    usage = SqlUsage(database, FakeClock(NOON_NS), SETTINGS)

    usage.record("main", "a", answer(10))
    await refuse_writes(database, "intelligence_usage_days")
    with pytest.raises(StorageError):
        await usage.flush()
    usage.record("main", "a", answer(5))
    await allow_writes(database)
    await usage.flush()
    await usage.flush()
    report = await usage.report("main", None, 10)
    assert [(day.calls, day.prompt_tokens) for day in report.days] == [(2, 15)]
    assert [(item.calls, item.prompt_tokens) for item in report.conversations] == [(2, 15)]


async def test_what_waits_for_a_disk_is_bounded_but_the_day_is_whole(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_usage, "MAX_WAITING", 3)
    usage = SqlUsage(database, FakeClock(NOON_NS), SETTINGS)
    for number in range(10):
        usage.record("main", str(number), answer(1))
    report = await usage.report("main", None, 50)
    assert len(report.conversations) == 3
    assert report.days[0].calls == 10


async def test_old_conversations_are_forgotten_and_days_stay(database: Database) -> None:
    clock = FakeClock(NOON_NS)
    usage = SqlUsage(database, clock, SETTINGS)
    usage.record("main", "old", answer(1))
    clock.advance(60)
    usage.record("main", "new", answer(1))
    await usage.flush()
    await usage.purge(NOON_NS + 10**9)
    report = await usage.report("main", None, 10)
    assert [item.conversation_id for item in report.conversations] == ["new"]
    assert report.days[0].calls == 2


async def test_the_cap_counts_what_all_processes_spend(shared_store: str) -> None:
    clock = FakeClock(NOON_NS)
    async with opened(shared_store) as mine, opened(shared_store) as theirs:
        one, two = SqlUsage(mine, clock, SETTINGS), SqlUsage(theirs, clock, SETTINGS)
        one.restore()
        two.restore()
        one.record("main", "a", answer(600))
        await one.flush()
        two.record("main", "b", answer(300))
        assert not two.exhausted
        await two.learn()
        assert (two.today().prompt_tokens, two.exhausted) == (900, False)
        one.record("main", "a", answer(100))
        await one.flush()
        await two.learn()
        assert (two.today().prompt_tokens, two.exhausted) == (1_000, True)
        await two.flush()
        await one.learn()
        assert (one.today(), one.exhausted) == (two.today(), True)
        report = await one.report("main", None, 10)
        assert {(item.conversation_id, item.prompt_tokens) for item in report.conversations} == {("a", 700), ("b", 300)}


async def test_what_others_spend_is_learnt_by_itself(shared_store: str) -> None:
    clock = FakeClock(NOON_NS)
    async with opened(shared_store) as mine, opened(shared_store) as theirs:
        one, two = SqlUsage(mine, clock, SETTINGS), SqlUsage(theirs, clock, SETTINGS)
        async with asyncio.TaskGroup() as group, asyncio.timeout(30):
            tasks = [group.create_task(each.run()) for each in (one, two)]
            one.record("main", "a", answer(1_000))
            while not two.exhausted:  # noqa: ASYNC110 - only the table knows
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
