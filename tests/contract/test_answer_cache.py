"""The cache of the model's answers: bounded, with a time to live, warm after a restart and after `kill -9`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.support.intelligence_store import allow_writes, opened, refuse_writes

from quickcomm.intelligence.adapters.sql_cache import SqlCache, answers
from quickcomm.intelligence.adapters.write_behind import EVERY_S
from quickcomm.intelligence.model.cache import CacheSettings
from quickcomm.intelligence.ports import Cached, Draft
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.storage import Database, StorageError

HOUR_S = 3_600.0


def answer(summary: str) -> Cached:
    return Cached(
        drafts=(Draft(intent="repair", department="engineering", urgency="high", rooms=("412",), summary=summary),)
    )


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


async def stored(database: Database) -> list[bytes]:
    query = sa.select(answers.c.key).order_by(answers.c.used_ns)
    return await database.read(lambda connection: list(connection.execute(query).scalars()))


@pytest.fixture
async def database(mind_store: Path | str) -> AsyncIterator[Database]:
    async with opened(mind_store) as database:
        yield database


def make(database: Database, clock: FakeClock, *, entries: int = 100, ttl_hours: float = 24) -> SqlCache:
    return SqlCache(database, clock, CacheSettings(entries=entries, ttl_hours=ttl_hours))


async def test_what_was_put_is_found_until_it_is_too_old(database: Database) -> None:
    clock = FakeClock()
    cache = make(database, clock, ttl_hours=1)
    assert await cache.get(key(1)) is None
    await cache.put(key(1), answer("leak"))
    assert await cache.get(key(1)) == answer("leak")
    clock.advance(HOUR_S - 1)
    assert await cache.get(key(1)) == answer("leak")
    clock.advance(1)
    assert await cache.get(key(1)) is None
    assert cache.hit_rate == 0.5


async def test_memory_and_table_are_bounded_and_keep_what_is_used(database: Database) -> None:
    clock = FakeClock()
    cache = make(database, clock, entries=10)
    await cache.load()
    for number in range(30):
        clock.advance(HOUR_S / 5)
        await cache.put(key(number), answer(str(number)))
        assert await cache.get(key(0)) is not None
        await cache.flush()
    assert len(cache) == 10
    kept = await stored(database)
    assert len(kept) <= 11
    assert key(0) in kept
    assert key(29) in kept


async def test_a_restart_finds_all_that_was_written_and_the_newest_first(database: Database) -> None:
    clock = FakeClock()
    cache = make(database, clock, entries=2_000)
    for number in range(1_200):
        clock.advance(1)
        await cache.put(key(number), answer(str(number)))
    await cache.flush()
    again = make(database, clock, entries=2_000)
    await again.load()
    assert len(again) == 1_200
    assert await again.get(key(7)) == answer("7")
    smaller = make(database, clock, entries=600)
    await smaller.load()
    assert len(smaller) == 600
    assert await smaller.get(key(1_199)) == answer("1199")
    assert (await smaller.get(key(0)) is not None) == database.shared, "what is not in memory may be in the table"
    await smaller.purge()
    assert len(await stored(database)) == 600


async def test_it_is_warm_before_it_has_loaded(database: Database) -> None:
    clock = FakeClock()
    cache = make(database, clock)
    await cache.put(key(1), answer("leak"))
    await cache.flush()
    assert await make(database, clock).get(key(1)) == answer("leak")


async def test_what_is_put_while_it_loads_is_not_overwritten(database: Database) -> None:
    clock = FakeClock()
    cache = make(database, clock)
    await cache.put(key(1), answer("old"))
    await cache.flush()
    again = make(database, clock)
    await again.put(key(1), answer("new"))
    await again.load()
    assert await again.get(key(1)) == answer("new")


async def test_it_writes_by_itself(database: Database) -> None:
    cache = make(database, FakeClock())
    async with asyncio.TaskGroup() as group, asyncio.timeout(30):
        task = group.create_task(cache.run())
        await cache.put(key(1), answer("leak"))
        while not await stored(database):  # noqa: ASYNC110 - only the table knows
            await asyncio.sleep(0)
        task.cancel()
    assert EVERY_S < 1


async def test_a_disk_that_refuses_loses_nothing(database: Database) -> None:
    cache = make(database, FakeClock())

    await cache.put(key(1), answer("leak"))
    await refuse_writes(database, "intelligence_cache")
    with pytest.raises(StorageError):
        await cache.flush()
    assert await cache.get(key(1)) is not None
    await allow_writes(database)
    await cache.flush()
    assert await stored(database) == [key(1)]


async def test_what_another_version_wrote_is_a_miss(database: Database) -> None:
    clock = FakeClock()
    row = {"key": key(1), "answer": b'{"drafts":[{"intent":1}]}', "at_ns": clock.now_ns(), "used_ns": clock.now_ns()}
    await database.write(lambda connection: connection.execute(answers.insert(), row))
    cache = make(database, clock)
    await cache.load()
    assert await cache.get(key(1)) is None
    await cache.put(key(1), answer("leak"))
    assert await cache.get(key(1)) == answer("leak")


async def test_what_another_process_was_answered_is_found(shared_store: str) -> None:
    clock = FakeClock()
    async with opened(shared_store) as mine, opened(shared_store) as theirs:
        one, two = make(mine, clock), make(theirs, clock, entries=2)
        await two.load()
        assert await two.get(key(1)) is None
        await one.put(key(1), answer("leak"))
        await one.flush()
        for number in (2, 3):
            await two.put(key(number), answer(str(number)))
        assert await two.get(key(1)) == answer("leak")
        assert len(two) == 2
