"""Who looks after a database: that it is away is told, and that it hangs, too."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection
from tests.support.postgres import PostgresServer

from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.storage import Database
from quickcomm.kernel.storage.database import READERS
from quickcomm.kernel.storage.watch import PATIENCE_S, DatabaseWatch


@asynccontextmanager
async def opened(where: Path | str) -> AsyncIterator[Database]:
    database = Database(where)
    database.open()
    try:
        yield database
    finally:
        await database.aclose()


async def test_a_database_that_hangs_is_told_of_after_a_while_and_until_it_answers(tmp_path: Path) -> None:
    clock, goes_on, held = FakeClock(), threading.Event(), threading.Semaphore(0)

    def hang(_connection: Connection) -> None:
        held.release()
        assert goes_on.wait(60)

    async with opened(tmp_path / "site.sqlite") as database, asyncio.TaskGroup() as group:
        watch = DatabaseWatch(database, clock)
        reading = []
        for _ in range(READERS):
            reading.append(group.create_task(database.read(hang)))
            await asyncio.to_thread(held.acquire)
        looking = group.create_task(watch.look())
        await asyncio.sleep(0)
        told = [watch.trouble]
        clock.advance(PATIENCE_S)
        told.append(watch.trouble)
        goes_on.set()
        await asyncio.gather(looking, *reading)
        assert [*told, watch.trouble] == [None, "The database does not answer.", None]


async def test_why_a_database_is_away_is_told(postgres: PostgresServer) -> None:
    name = postgres.create()
    async with opened(postgres.url(name)) as database:
        watch = DatabaseWatch(database, FakeClock())
        postgres.kill()
        try:
            await watch.look()
            assert "does not answer" in (watch.trouble or "")
        finally:
            postgres.start()
        await watch.look()
        assert watch.trouble is None
    postgres.drop(name)


async def test_a_file_is_not_looked_after(tmp_path: Path) -> None:
    async with opened(tmp_path / "site.sqlite") as database, asyncio.timeout(30):
        await DatabaseWatch(database, FakeClock()).run()
