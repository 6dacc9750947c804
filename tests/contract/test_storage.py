"""The database: grouped commits, failures that harm nobody else, refusals that say so, and an end."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.kernel.errors import BusyError, NotFoundError
from quickcomm.kernel.storage import Database, StorageError
from quickcomm.kernel.storage.database import touch

TABLE = sa.text("CREATE TABLE thing (name TEXT UNIQUE, blob BLOB)")
INSERT = sa.text("INSERT INTO thing VALUES (:name, zeroblob(:size))")


def insert(name: str, size: int = 1) -> Callable[[Connection], str]:
    def run(connection: Connection) -> str:
        connection.execute(INSERT, {"name": name, "size": size})
        return name

    return run


def create(connection: Connection) -> None:
    connection.execute(TABLE)


def refuse_writes(connection: Connection) -> None:
    connection.exec_driver_sql("PRAGMA query_only=ON")


async def names(database: Database) -> list[str]:
    return await database.read(lambda c: list(c.execute(sa.text("SELECT name FROM thing ORDER BY rowid")).scalars()))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(tmp_path / "site.sqlite")
    made.open()
    await made.write(create)
    yield made
    await made.aclose()


async def test_writes_return_after_their_commit_in_order(database: Database) -> None:
    wanted = [f"n{i}" for i in range(200)]
    assert await asyncio.gather(*(database.write(insert(name)) for name in wanted)) == wanted
    assert await names(database) == wanted


async def test_many_writes_are_few_commits(database: Database) -> None:
    groups: list[set[str]] = []
    database.on_commit(lambda topics: groups.append(set(topics)))

    def run(connection: Connection) -> None:
        touch(connection, "t")

    await asyncio.gather(*(database.write(run) for _ in range(300)))
    assert 0 < len(groups) < 100
    assert groups[0] == {"t"}


async def test_a_failing_function_does_not_harm_its_neighbours(database: Database) -> None:
    def half(connection: Connection) -> None:
        insert("half")(connection)
        raise NotFoundError("half way")

    def broken(connection: Connection) -> None:
        insert("broken")(connection)
        connection.execute(sa.text("SELECT * FROM nowhere"))

    def wrong(_: Connection) -> None:
        raise ZeroDivisionError

    results = await asyncio.gather(
        *(database.write(f) for f in (insert("a"), half, insert("b"), broken, insert("a"), wrong, insert("c"))),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [
        str,
        NotFoundError,
        str,
        StorageError,
        StorageError,
        ZeroDivisionError,
        str,
    ]
    assert await names(database) == ["a", "b", "c"]


async def test_a_full_disk_loses_nothing_that_was_promised(database: Database) -> None:
    """Whatever SQLite takes back, a write that returned is there, and one that failed is not."""

    def limit(connection: Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    await database.write(lambda connection: limit(connection, 40))
    attempts = [f"n{i}" for i in range(12)]
    results = await asyncio.gather(
        *(database.write(insert(name, 300_000 if i == 5 else 10)) for i, name in enumerate(attempts)),
        return_exceptions=True,
    )
    assert isinstance(results[5], StorageError)
    assert results[5].retryable
    assert await names(database) == [name for name, result in zip(attempts, results, strict=True) if result == name]
    await database.write(lambda connection: limit(connection, 1_000_000))
    assert await database.write(insert("later", 300_000)) == "later"


async def test_a_transaction_that_sqlite_took_back_fails_as_a_whole(database: Database) -> None:
    def rolled_back(connection: Connection) -> None:
        connection.connection.driver_connection.rollback()  # type: ignore[union-attr] # as SQLite does on its own
        connection.execute(sa.text("SELECT * FROM nowhere"))

    results = await asyncio.gather(
        *(database.write(f) for f in (insert("a"), rolled_back, insert("b"))), return_exceptions=True
    )
    kept = await names(database)
    assert kept == [result for result in results if isinstance(result, str)]
    assert await database.write(insert("c")) == "c"


async def test_read_only_is_told(database: Database) -> None:
    await database.write(refuse_writes)
    with pytest.raises(StorageError):
        await database.write(insert("a"))
    driver = database.engine.raw_connection().driver_connection
    assert driver is not None
    driver.execute("PRAGMA query_only=OFF")
    assert await database.write(insert("b")) == "b"


async def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(StorageError, match="readonly"):
        await database.read(insert("a"))


async def test_too_many_writes_are_refused_and_not_piled_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database._waiting, "maxsize", 2)
    results = await asyncio.gather(*(database.write(insert(f"n{i}")) for i in range(50)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BusyError)]
    assert refused
    assert len(await names(database)) == 50 - len(refused)


async def test_closing_finishes_what_waits_and_may_be_done_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "site.sqlite")
    database.open()
    await database.write(create)
    waiting = [asyncio.ensure_future(database.write(insert(f"n{i}"))) for i in range(100)]
    await asyncio.sleep(0)
    await database.aclose()
    assert await asyncio.gather(*waiting) == [f"n{i}" for i in range(100)]
    await database.aclose()
    with pytest.raises(StorageError, match="closed"):
        await database.write(insert("late"))
    with pytest.raises(StorageError, match="closed"):
        await names(database)


def test_a_loop_that_is_gone_does_not_end_the_writer(tmp_path: Path) -> None:
    database = Database(tmp_path / "site.sqlite")
    database.open()

    async def leave() -> None:
        started, go = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def slow(connection: Connection) -> None:
            loop.call_soon_threadsafe(started.set)
            go.wait(10)
            connection.execute(TABLE)

        task = asyncio.ensure_future(database.write(slow))
        await started.wait()
        task.cancel()
        leaving.append(go)

    leaving: list[threading.Event] = []
    asyncio.run(leave())
    leaving[0].set()

    async def come() -> list[str]:
        await database.write(insert("a"))
        found = await names(database)
        await database.aclose()
        return found

    assert asyncio.run(come()) == ["a"]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        Database(tmp_path / "missing" / "site.sqlite").open()
    (tmp_path / "text.sqlite").write_text("this is no database, and long enough to see it" * 100)
    with pytest.raises(StorageError, match="cannot be opened"):
        Database(tmp_path / "text.sqlite").open()
    if os.getuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(StorageError, match="cannot be opened"):
            Database(tmp_path / "locked" / "site.sqlite").open()
