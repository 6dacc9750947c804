"""The database: grouped commits, failures that harm nobody else, refusals that say so, and an end."""

import asyncio
import os
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from tests.support.postgres import PostgresServer

from quickcomm.kernel.errors import BusyError, ConfigurationError, NotFoundError
from quickcomm.kernel.storage import Database, StorageAwayError, StorageError
from quickcomm.kernel.storage.database import touch

thing = sa.Table(
    "thing",
    sa.MetaData(),
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, unique=True),
    sa.Column("blob", sa.LargeBinary),
)


def insert(name: str, size: int = 1) -> Callable[[Connection], str]:
    def run(connection: Connection) -> str:
        connection.execute(thing.insert(), {"name": name, "blob": bytes(size)})
        return name

    return run


def create(connection: Connection) -> None:
    thing.create(connection)


def refuse_writes(connection: Connection) -> None:
    connection.exec_driver_sql("PRAGMA query_only=ON")


async def names(database: Database) -> list[str]:
    return await database.read(lambda c: list(c.execute(sa.select(thing.c.name).order_by(thing.c.place)).scalars()))


async def opened(where: Path | str) -> Database:
    made = Database(where)
    made.open()
    await made.write(create)
    return made


@pytest.fixture
async def database(empty_store: Path | str) -> AsyncIterator[Database]:
    """On both."""
    made = await opened(empty_store)
    yield made
    await made.aclose()


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[Database]:
    """What only SQLite does."""
    made = await opened(tmp_path / "site.sqlite")
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


async def test_who_moves_tables_meanwhile_has_a_transaction_of_its_own(database: Database) -> None:
    """A module that comes back to a process which is at work creates its tables while others are written."""
    inside, go = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        insert("slow")(connection)
        inside.set()
        assert go.wait(30)

    def move() -> None:
        with database.engine.begin() as connection:
            insert("moved")(connection)

    writing = asyncio.ensure_future(database.write(slow))
    assert await asyncio.to_thread(inside.wait, 30)
    moving = asyncio.ensure_future(asyncio.to_thread(move))
    await asyncio.wait({moving}, timeout=0.2)
    go.set()
    await asyncio.gather(writing, moving)
    assert sorted(await names(database)) == ["moved", "slow"]


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


async def test_a_full_disk_loses_nothing_that_was_promised(file: Database) -> None:
    """Whatever SQLite takes back, a write that returned is there, and one that failed is not."""

    def limit(connection: Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    await file.write(lambda connection: limit(connection, 40))
    attempts = [f"n{i}" for i in range(12)]
    results = await asyncio.gather(
        *(file.write(insert(name, 300_000 if i == 5 else 10)) for i, name in enumerate(attempts)),
        return_exceptions=True,
    )
    assert isinstance(results[5], StorageAwayError)
    assert results[5].retryable
    assert await names(file) == [name for name, result in zip(attempts, results, strict=True) if result == name]
    await file.write(lambda connection: limit(connection, 1_000_000))
    assert await file.write(insert("later", 300_000)) == "later"


async def test_a_transaction_that_sqlite_took_back_fails_as_a_whole(file: Database) -> None:
    def rolled_back(connection: Connection) -> None:
        connection.connection.driver_connection.rollback()  # type: ignore[union-attr] # as SQLite does on its own
        connection.execute(sa.text("SELECT * FROM nowhere"))

    results = await asyncio.gather(
        *(file.write(f) for f in (insert("a"), rolled_back, insert("b"))), return_exceptions=True
    )
    kept = await names(file)
    assert kept == [result for result in results if isinstance(result, str)]
    assert await file.write(insert("c")) == "c"


async def test_read_only_is_told(file: Database) -> None:
    await file.write(refuse_writes)
    with pytest.raises(StorageAwayError):
        await file.write(insert("a"))
    driver = file.engine.raw_connection().driver_connection
    assert driver is not None
    driver.execute("PRAGMA query_only=OFF")
    assert await file.write(insert("b")) == "b"


async def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(StorageError, match=r"read-?only"):
        await database.read(insert("a"))


async def test_too_many_writes_are_refused_and_not_piled_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database._waiting, "maxsize", 2)
    results = await asyncio.gather(*(database.write(insert(f"n{i}")) for i in range(50)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BusyError)]
    assert refused
    assert len(await names(database)) == 50 - len(refused)


async def test_closing_finishes_what_waits_and_may_be_done_again(database: Database) -> None:
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
            create(connection)

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


def test_what_is_no_database() -> None:
    for where in ("mysql://root:swordfish@db/x", "postgresql://quickcomm:swordfish@db:port/x"):
        with pytest.raises(ConfigurationError) as refused:
            Database(where)
        assert "swordfish" not in str(refused.value)


# -- on a server ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def served(postgres: PostgresServer) -> AsyncIterator[Database]:
    name = postgres.create()
    made = await opened(postgres.url(name))
    yield made
    await made.aclose()
    postgres.drop(name)


async def test_a_server_that_was_killed_is_found_again(served: Database, postgres: PostgresServer) -> None:
    started, killed = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def cut_off(connection: Connection) -> None:
        insert("cut off")(connection)
        loop.call_soon_threadsafe(started.set)
        killed.wait(10)
        insert("too late")(connection)

    assert await served.write(insert("a")) == "a"
    assert await names(served) == ["a"]
    losing = asyncio.gather(*(served.write(f) for f in (insert("b"), cut_off, insert("c"))), return_exceptions=True)
    await started.wait()
    postgres.kill()
    try:
        killed.set()
        results = await losing
        for call in (names(served), served.write(insert("d"))):
            with pytest.raises(StorageError, match="does not answer") as away:
                await call
            assert away.value.retryable
            assert isinstance(away.value, StorageAwayError)
    finally:
        postgres.start()
    kept = [result for result in results if isinstance(result, str)]
    assert all(isinstance(result, str) or (isinstance(result, StorageError) and result.retryable) for result in results)
    assert "cut off" not in kept
    assert await served.write(insert("d")) == "d"
    assert await names(served) == ["a", *kept, "d"]


async def test_who_hangs_within_a_transaction_is_cut_off_and_may_try_again(
    served: Database, postgres: PostgresServer
) -> None:
    def hang(connection: Connection) -> None:
        me = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '1ms'")
        with psycopg.connect(postgres.url(), autocommit=True) as other:
            while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (me,)).fetchone():
                pass
        insert("too late")(connection)

    with pytest.raises(StorageAwayError):
        await served.write(hang)
    assert await served.write(insert("a")) == "a"


async def test_a_server_that_takes_nothing_is_away(served: Database) -> None:
    """A standby, or one whose disk is full."""

    def only_reads(connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        insert("a")(connection)

    def full(connection: Connection) -> None:
        connection.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$")

    for refused in (only_reads, full):
        with pytest.raises(StorageAwayError):
            await served.write(refused)


async def test_connections_that_the_server_closed_are_made_again(served: Database) -> None:
    await served.write(insert("a"))
    await names(served)

    def close_others(connection: Connection) -> None:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    await served.write(close_others)
    assert await names(served) == ["a"]

    def close_writer(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(StorageError):
        await served.write(close_writer)
    assert await served.write(insert("b")) == "b"


async def test_two_processes_write_one_after_the_other(served: Database, postgres: PostgresServer) -> None:
    """Each reads, adds one and writes: no addition may be lost."""
    name = str(served.engine.url.database)
    other = Database(postgres.url(name))
    other.open()
    await served.write(insert("n", 0))

    def add(connection: Connection) -> None:
        blob = connection.execute(sa.select(thing.c.blob)).scalar_one()
        connection.execute(thing.update().values(blob=blob + b"."))

    both = [database.write(add) for _ in range(100) for database in (served, other)]
    await asyncio.gather(*both)
    blob = await other.read(lambda connection: connection.execute(sa.select(thing.c.blob)).scalar_one())
    await other.aclose()
    assert len(blob) == 200


async def test_errors_repeat_no_values(served: Database) -> None:
    await served.write(insert("swordfish"))

    def broken(connection: Connection) -> None:
        connection.execute(sa.text("SELECT CAST(name AS integer) FROM thing"))

    for function in (insert("swordfish"), broken):
        with pytest.raises(StorageError) as failed:
            await served.write(function)
        assert "swordfish" not in "".join(traceback.format_exception(failed.value))
    with pytest.raises(StorageError, match="UniqueViolation"):
        await served.write(insert("swordfish"))


async def test_a_reader_sees_one_moment(served: Database) -> None:
    await served.write(insert("a"))
    seen, written = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def look(connection: Connection) -> tuple[int, int]:
        count = sa.select(sa.func.count()).select_from(thing)
        before = connection.execute(count).scalar_one()
        loop.call_soon_threadsafe(seen.set)
        written.wait(10)
        return before, connection.execute(count).scalar_one()

    looking = asyncio.ensure_future(served.read(look))
    await seen.wait()
    await served.write(insert("b"))
    written.set()
    assert await looking == (1, 1)


def test_a_server_that_cannot_be_had(postgres: PostgresServer) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"postgresql://quickcomm:swordfish@127.0.0.1:{probe.getsockname()[1]}/x?connect_timeout=2"
    for url, reason in {
        nobody: "refused",
        postgres.url("nowhere", tcp=True, password="swordfish"): "does not exist",
        postgres.url(tcp=True, password="swordfish", query="sslmode=require"): "SSL",
        postgres.url(tcp=True, password="swordfish", query="sslmod=require"): "sslmod",
    }.items():
        with pytest.raises(StorageError, match="cannot be opened") as failed:
            Database(url).open()
        assert reason in str(failed.value)
        assert "***" in str(failed.value)
        assert "swordfish" not in "".join(traceback.format_exception(failed.value))


# -- one process at a time --------------------------------------------------------------------------------------------


async def test_inside_a_turnstile_one_is_alone_and_others_go_on_writing(postgres: PostgresServer) -> None:
    name = postgres.create()
    one, two = await opened(postgres.url(name)), Database(postgres.url(name))
    two.open()
    try:
        inside: list[str] = []

        async def enter(database: Database, who: str) -> None:
            for _ in range(20):
                async with database.alone():
                    assert inside == []
                    inside.append(who)
                    await database.write(insert(f"{who}-{len(await names(database))}"))
                    inside.remove(who)

        async with asyncio.TaskGroup() as group:
            group.create_task(enter(one, "one"))
            group.create_task(enter(two, "two"))
        assert len(await names(one)) == 40
    finally:
        await one.aclose()
        await two.aclose()
        postgres.drop(name)


async def test_who_dies_or_gives_up_at_a_turnstile_keeps_nobody_out(postgres: PostgresServer) -> None:
    name = postgres.create()
    one, two = Database(postgres.url(name)), Database(postgres.url(name))
    one.open()
    two.open()
    try:
        async with one.alone():
            waiting = asyncio.ensure_future(_pass(two))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await _pass(one)
        async with one.alone():
            await two.write(_end_the_other)
            await _pass(two)
        await _pass(one)
    finally:
        await one.aclose()
        await two.aclose()
        postgres.drop(name)


async def test_in_a_file_everybody_is_alone(file: Database) -> None:
    await _pass(file)
    await _pass(file)


async def _pass(database: Database) -> None:
    async with asyncio.timeout(30), database.alone():
        pass


def _end_the_other(connection: Connection) -> None:
    """Whoever is at the turnstile loses its connection."""
    connection.exec_driver_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 20834 AND objid = 2"
    )
