"""The table copier: every source to every target, killed anywhere, twice, and where the target has more already."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
import sqlalchemy as sa
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection
from tests.support.examples import examples
from tests.support.memory import MemoryDatabase
from tests.support.postgres import PostgresServer
from tests.support.valkey import Valkey

from quickcomm.contracts.backfill import BackfillPage, BackfillTotal
from quickcomm.kernel.copier.copier import CopiedTable, Copier, CopyError, Mark, Source, Target, Values
from quickcomm.kernel.copier.http import HttpSource, copy_routes
from quickcomm.kernel.copier.sql import MAX_BYTES, SqlSource, SqlTarget, insert_new, marks_table
from quickcomm.kernel.copier.valkey import Command, Moved, ValkeyTarget
from quickcomm.kernel.http import create_app
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.storage import Database, StorageError

ENDS = (
    ("sqlite", "sqlite"),
    ("sqlite", "postgresql"),
    ("postgresql", "sqlite"),
    ("http", "sqlite"),
    ("http", "postgresql"),
    ("sqlite", "valkey"),
    ("postgresql", "valkey"),
)
PAGE = 3
ROWS = 11
Contents = tuple[list[Any], list[Any]]
"""Notes by their key, and lines of the log in their order."""
meta = sa.MetaData()
notes = sa.Table(
    "notes",
    meta,
    sa.Column("site", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("text", sa.Text),
    sa.Column("at_ns", sa.BigInteger),
    sa.Column("spoken", sa.Boolean),
    sa.Column("share", sa.Double),
)
log = sa.Table("log", meta, sa.Column("id", sa.Integer, primary_key=True), sa.Column("line", sa.Text))
marks = marks_table("copy_marks")
NOTES = CopiedTable("notes", notes, ("site", "digest"))
LOUD = sa.select(log).where(log.c.line != "quiet").subquery("loud")
LOG = CopiedTable("log", LOUD, ("id",), newest_first=True, repeatable=False)
TABLES = (NOTES, LOG)


def prepare(engine: sa.Engine) -> None:
    meta.create_all(engine)
    names = ", ".join(f"{name} VARCHAR(400)" for name in ("after", "digest", "state"))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE copy_marks (table_name TEXT PRIMARY KEY, row_count BIGINT, {names})")


def note(number: int, text: str = "as it was") -> Values:
    key = {"site": f"s{number % 2}", "digest": bytes([number, 0, 255])}
    return key | {"text": text, "at_ns": 2**62 + number, "spoken": number % 3 == 0, "share": number / 7}


def line(number: int) -> Values:
    return {"id": number + 1, "line": f"line {number} \r\n\"ä\" 'ö' 🎧"}


def fill(connection: Connection) -> None:
    connection.execute(notes.insert(), [note(number) for number in range(ROWS)])
    connection.execute(log.insert(), [line(number) for number in range(ROWS)])
    connection.execute(log.insert().values(id=ROWS + 1, line="quiet"))


WANTED: Contents = (
    sorted(tuple(note(number).values()) for number in range(ROWS)),
    [line(number)["line"] for number in reversed(range(ROWS))],
)


def write(connection: Connection, table: str, rows: list[Values]) -> None:
    """Notes stay rows; a line that is written twice is there twice."""
    if table == "notes":
        insert_new(connection, notes, ("site", "digest"), rows)
    else:
        connection.execute(log.insert(), [{"line": row["line"]} for row in rows])


def rows_of(connection: Connection) -> Contents:
    lines = connection.execute(sa.select(log.c.line).order_by(log.c.id))
    return sorted(tuple(row) for row in connection.execute(sa.select(notes))), [found for (found,) in lines]


class Ends(NamedTuple):
    """`origin`: the database of the source."""

    origin: Database
    source: Source
    target: Target
    contents: Callable[[], Awaitable[Contents]]


class Maker:
    def __init__(self, request: pytest.FixtureRequest, folder: Path, stack: AsyncExitStack) -> None:
        self._request = request
        self._folder = folder
        self._stack = stack

    async def source(self, kind: str) -> tuple[Database, Source]:
        database = self.database("sqlite" if kind == "http" else kind, "source")
        await database.write(fill)
        source = SqlSource(database, TABLES)
        if kind != "http":
            return database, source
        place = str(self._folder / "s")
        runner = web.AppRunner(create_app(copy_routes(source, lambda _: None), self))
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.UnixSite(runner, place).start()
        return database, HttpSource(lambda: aiohttp.UnixConnector(place), dict, "http://source")

    def require(self, _request: web.Request, *_callers: str) -> str:
        """Let everybody in."""
        return "tester"

    def target(self, kind: str) -> tuple[Target, Callable[[], Awaitable[Contents]]]:
        if kind == "valkey":
            return self._valkey()
        database = self.database(kind, "target")
        return SqlTarget(database, marks, write), lambda: database.read(rows_of)

    def database(self, kind: str, name: str) -> Database:
        where: Path | str = self._folder / f"{name}.sqlite"
        if kind == "postgresql":
            server: PostgresServer = self._request.getfixturevalue("postgres")
            created = server.create()
            self._stack.callback(server.drop, created)
            where = server.url(created)
        database = Database(where)
        database.open()
        self._stack.push_async_callback(database.aclose)
        prepare(database.engine)
        return database

    def _valkey(self) -> tuple[Target, Callable[[], Awaitable[Contents]]]:
        server: Valkey = self._request.getfixturevalue("valkey")
        prefix = self._folder.name
        link = Link(server.url)
        self._stack.push_async_callback(link.aclose)

        def add_notes(rows: list[Values]) -> Iterator[Command]:
            for row in rows:
                place = row["site"].encode() + row["digest"]
                yield "HSETNX", f"{prefix}:notes", place, msgspec.msgpack.encode(list(row.values()))

        def add_lines(rows: list[Values]) -> Iterator[Command]:
            yield "RPUSH", f"{prefix}:log", *(row["line"] for row in rows)

        async def contents() -> Contents:
            found = [tuple(msgspec.msgpack.decode(each)) for each in await link.call("HVALS", f"{prefix}:notes")]
            lines = await link.call("LRANGE", f"{prefix}:log", 0, -1)
            return sorted(found), [each.decode() for each in lines]

        moved = Moved(NOTES, add_notes, notes), Moved(LOG, add_lines, log)
        return ValkeyTarget(link, f"{prefix}:copy", moved), contents


@pytest.fixture(params=ENDS, ids="-to-".join)
async def ends(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ends]:
    async with AsyncExitStack() as stack:
        maker = Maker(request, tmp_path, stack)
        origin, source = await maker.source(request.param[0])
        yield Ends(origin, source, *maker.target(request.param[1]))


class KilledError(BaseException):
    """The process is no more."""


class Killing:
    """Both ends, of a process that is killed at its n-th step: before and after each page is read, and written."""

    def __init__(self, source: Source, target: Target, left: int = 0) -> None:
        self._source = source
        self._target = target
        self.left = left
        self.pages = 0

    def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError

    async def page(self, table: str, after: str, limit: int) -> BackfillPage:
        self._step()
        self.pages += 1
        return await self._source.page(table, after, limit)

    async def total(self, table: str, after: str, limit: int) -> BackfillTotal:
        self._step()
        return await self._source.total(table, after, limit)

    async def mark(self, table: str) -> Mark:
        return await self._target.mark(table)

    async def apply(self, table: str, rows: list[Values], before: Mark, after: Mark) -> Mark:
        self._step()
        mark = await self._target.apply(table, rows, before, after)
        self._step()
        return mark


async def copy(source: Source, target: Target, page: int = PAGE, **options: Any) -> dict[str, int]:
    return await Copier(source, target, TABLES, page=page, **options).run()


async def test_everything_is_copied_as_it_is_and_once(ends: Ends) -> None:
    assert await copy(ends.source, ends.target) == {"notes": ROWS, "log": ROWS}
    assert await ends.contents() == WANTED
    assert await copy(ends.source, ends.target) == {}
    assert await ends.contents() == WANTED


async def test_killed_at_any_step_it_goes_on_behind_the_last_page(ends: Ends) -> None:
    killing, kills = Killing(ends.source, ends.target), 0
    for killing.left in cycle((3, 1, 2, 4, 5)):
        try:
            await copy(killing, killing)
        except KilledError:
            kills += 1
        else:
            break
    assert await ends.contents() == WANTED
    assert kills > 5
    assert killing.pages <= 2 * -(-ROWS // PAGE) + kills, "no page that was written is read again"


async def test_two_that_copy_at_once_write_every_row_once(ends: Ends) -> None:
    await asyncio.gather(copy(ends.source, ends.target), copy(ends.source, ends.target, page=2))
    assert await ends.contents() == WANTED


async def test_a_lost_answer_does_no_harm(ends: Ends) -> None:
    """The page was written, but its target did not answer any more."""
    lost = iter((True, False, True))

    class Losing(Killing):
        async def apply(self, table: str, rows: list[Values], before: Mark, after: Mark) -> Mark:
            mark = await super().apply(table, rows, before, after)
            if next(lost, False):
                raise StorageError("It does not answer.")
            return mark

    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    losing = Losing(ends.source, ends.target)
    await copy(losing, losing, sleep=sleep)
    assert waited == [0.25, 0.25]
    assert await ends.contents() == WANTED
    with pytest.raises(StorageError):
        await copy(losing, Unavailable(ends.source, ends.target), sleep=None)


class Unavailable(Killing):
    async def mark(self, table: str) -> Mark:
        raise StorageError(f"There is no answer for {table}.")


async def test_rows_deleted_at_the_source_meanwhile(ends: Ends) -> None:
    """A table that can be repeated is copied again; one that cannot is refused, rather than written twice."""

    def shorten(table: sa.Table) -> Callable[[Connection], object]:
        return lambda connection: connection.execute(table.delete())

    async def settle() -> None:
        await ends.origin.write(shorten(notes))

    assert (await copy(ends.source, ends.target, settle=settle))["notes"] == 0
    assert (await ends.contents())[1] == WANTED[1]


async def test_a_list_that_changed_at_the_source_is_not_written_twice(ends: Ends) -> None:
    async def settle() -> None:
        await ends.origin.write(lambda connection: connection.execute(log.delete().where(log.c.id == 1)))

    with pytest.raises(CopyError, match="Make sure that nothing else writes to it"):
        await copy(ends.source, ends.target, settle=settle)
    assert await ends.contents() == WANTED


async def test_a_store_that_loses_everything_meanwhile_gets_it_again(
    request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        maker = Maker(request, tmp_path, stack)
        _, source = await maker.source("sqlite")
        target, contents = maker.target("valkey")
        link = Link(valkey.url)
        stack.push_async_callback(link.aclose)

        class Losing(Killing):
            async def apply(self, table: str, rows: list[Values], before: Mark, after: Mark) -> Mark:
                mark = await super().apply(table, rows, before, after)
                if table == "log" and self.left > -40:
                    self.left = -100
                    await link.call("DEL", *[key async for key in link.scan(f"{tmp_path.name}:*")])
                return mark

        losing = Losing(source, target)
        await copy(losing, losing)
        assert await contents() == WANTED
        assert losing.left < -100, "it was lost"


async def test_a_page_has_few_bytes() -> None:
    with MemoryDatabase(prepare) as database:
        long = [note(number, "x" * (MAX_BYTES // 2)) for number in range(5)]
        await database.write(lambda connection: connection.execute(notes.insert(), long))
        page = await SqlSource(database, TABLES).page("notes", "", 100)
        assert (len(msgspec.msgpack.decode(page.rows)), page.more) == (2, True)


@examples(60)
@given(
    page=st.integers(1, ROWS + 1),
    kills=st.lists(st.integers(1, 12), max_size=8),
    known=st.sets(st.integers(0, ROWS + 3)),
    meanwhile=st.sets(st.integers(0, ROWS + 3)),
)
def test_a_target_keeps_what_it_has(page: int, kills: list[int], known: set[int], meanwhile: set[int]) -> None:
    """Any size of pages, killed anywhere, with rows that were there before, and rows that come meanwhile."""
    asyncio.run(_keeps(page, kills, known, meanwhile))


async def _keeps(page: int, kills: list[int], known: set[int], meanwhile: set[int]) -> None:
    with MemoryDatabase(prepare) as origin, MemoryDatabase(prepare) as own:
        await origin.write(fill)
        for number in known:
            await own.write(lambda connection, n=number: connection.execute(notes.insert().values(note(n, "newer"))))
        arriving, here = sorted(meanwhile - known), set(known)

        class Busy(Killing):
            async def page(self, table: str, after: str, limit: int) -> BackfillPage:
                found = await super().page(table, after, limit)
                if arriving and not await own.read(_has(arriving[0])):
                    here.add(arriving[0])
                    newer = notes.insert().values(note(arriving[0], "newer"))
                    await own.write(lambda connection: connection.execute(newer))
                del arriving[:1]
                return found

        busy = Busy(SqlSource(origin, TABLES), SqlTarget(own, marks, write))
        for busy.left in [*kills, 0]:
            try:
                await copy(busy, busy, page)
            except KilledError:
                continue
            break
        kept, lines = await own.read(rows_of)
        newer = [tuple(note(number, "newer").values()) for number in here]
        assert kept == sorted(newer + [tuple(note(n).values()) for n in range(ROWS) if n not in here])
        assert lines == WANTED[1]


def _has(number: int) -> Callable[[Connection], bool]:
    query = sa.select(notes).where(notes.c.digest == note(number)["digest"])
    return lambda connection: connection.execute(query).first() is not None
