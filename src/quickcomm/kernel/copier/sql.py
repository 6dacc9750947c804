"""Both ends of a copy in SQL: pages of a database that may be in use, and the transaction that applies one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.backfill import (
    MAX_PAGE,
    BackfillPage,
    BackfillTotal,
    Row,
    checksum,
    digest,
    encoded,
    written,
)
from quickcomm.kernel.copier.copier import ALL, CopiedTable, CopyError, Mark, Values
from quickcomm.kernel.errors import InvalidInputError, NotFoundError
from quickcomm.kernel.storage.database import Database, Reads
from quickcomm.kernel.storage.upsert import saving

MAX_BYTES: Final = 4_000_000
"""A page ends behind the row that goes beyond it."""
RUNNING: Final = "running"
DONE: Final = "done"
STALE: Final = "stale"
Write = Callable[[Connection, str, list[Values]], None]
"""Writes rows of a table, by its name, within the transaction."""


class SqlSource:
    """A `Source`. The database is only read."""

    def __init__(self, database: Reads, tables: Iterable[CopiedTable]) -> None:
        self._database = database
        self._tables = {table.name: table for table in tables}

    async def page(self, table: str, after: str, limit: int) -> BackfillPage:
        rows, more, here = await self._read(table, after, limit)
        packed = encoded(rows)
        return BackfillPage(
            table=table,
            columns=self._tables[table].columns,
            rows=packed,
            checksum=checksum(packed),
            after=here,
            more=more,
        )

    async def total(self, table: str, after: str, limit: int) -> BackfillTotal:
        rows, more, here = await self._read(table, after, limit)
        return BackfillTotal(table=table, rows=len(rows), digest=written(digest(rows)), after=here, more=more)

    async def _read(self, name: str, after: str, limit: int) -> tuple[list[Row], bool, str]:
        """Return rows behind a position, whether there are more, and the position of the last one."""
        table = self._tables.get(name)
        if table is None:
            raise NotFoundError(f"There is no table {name!r} to be copied.")
        query = _query(table, after, limit := max(1, min(limit, MAX_PAGE)))
        found = await self._database.read(lambda connection: [tuple(row) for row in connection.execute(query)])
        rows = _within(found[:limit])
        return rows, len(found) > len(rows), _position(table, rows[-1]) if rows else after


def _query(table: CopiedTable, after: str, limit: int) -> sa.Select[Any]:
    columns = [table.rows.c[name] for name in table.order]
    query = sa.select(table.rows).limit(limit + 1)
    query = query.order_by(*(column.desc() if table.newest_first else column for column in columns))
    if not after:
        return query
    kinds = tuple(column.type.python_type for column in columns)
    try:
        values = msgspec.json.decode(after, type=tuple[kinds])  # type: ignore[valid-type]
    except ValueError:
        raise InvalidInputError("`after` must be from an earlier page of the same table.") from None
    here = sa.tuple_(*columns)
    there = sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(values, columns, strict=True)))
    return query.where(here < there if table.newest_first else here > there)


def _position(table: CopiedTable, row: Row) -> str:
    values = dict(zip(table.columns, row, strict=True))
    return msgspec.json.encode([values[name] for name in table.order]).decode()


def _within(rows: list[Row]) -> list[Row]:
    """Return the first rows, as many as are no more than `MAX_BYTES` and one row."""
    size = 0
    for place, row in enumerate(rows, start=1):
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if size > MAX_BYTES:
            return rows[:place]
    return rows


def marks_table(name: str) -> sa.Table:
    """Return the table of a target's marks, which a migration of its module makes; `table_name` is its key."""
    return sa.Table(name, sa.MetaData(), *map(sa.Column, ("table_name", "after", "row_count", "digest", "state")))


def note_stale(connection: Connection, marks: sa.Table) -> None:
    """Have the whole copy made anew: the other side goes on without this one."""
    connection.execute(marks.delete())
    connection.execute(marks.insert().values(table_name=ALL, after="", row_count=0, digest=written(0), state=STALE))


def is_stale(connection: Connection, marks: sa.Table) -> bool:
    """Return True after `note_stale`, until `note_begun`."""
    return _state(connection, marks) == STALE


def note_begun(connection: Connection, marks: sa.Table) -> None:
    """Note that what was stale has been dealt with, and that the copy is still to be made."""
    connection.execute(marks.update().where(marks.c.table_name == ALL).values(state=RUNNING))


def lacks_copy(connection: Connection, marks: sa.Table) -> bool:
    """Return True where a copy is to be made, and has not come to its end."""
    return _state(connection, marks) not in {None, DONE}


def _state(connection: Connection, marks: sa.Table) -> str | None:
    found: str | None = connection.execute(sa.select(marks.c.state).where(marks.c.table_name == ALL)).scalar()
    return found


class SqlTarget:
    """A `Target`. `marks`: see `marks_table`."""

    def __init__(self, database: Database, marks: sa.Table, write: Write) -> None:
        self._database = database
        self._marks = marks
        self._write = write
        self._saving = saving(marks, ("table_name",), ("after", "row_count", "digest", "state"))

    async def mark(self, table: str) -> Mark:
        return await self._database.read(lambda connection: self._mark(connection, table))

    async def apply(self, table: str, rows: list[Values], before: Mark, after: Mark) -> Mark:
        def run(connection: Connection) -> Mark:
            present = self._mark(connection, table)
            if present != before:
                return present
            if rows:
                self._write(connection, table, rows)
            values = {"after": after.after, "row_count": after.rows, "digest": written(after.digest)}
            values |= {"table_name": table, "state": DONE if after.done else RUNNING}
            connection.execute(self._saving.on(connection), values)
            return after

        return await self._database.write(run)

    def _mark(self, connection: Connection, table: str) -> Mark:
        row = connection.execute(sa.select(self._marks).where(self._marks.c.table_name == table)).one_or_none()
        if row is None:
            return Mark()
        return Mark(after=row.after, rows=row.row_count, digest=int(row.digest, 16), done=row.state == DONE)


def matching(connection: Connection, table: sa.Table, key: Sequence[str], rows: list[Values]) -> Iterator[sa.Row[Any]]:
    """Yield the rows of the table that have the keys of these."""
    *leading, last = key
    first: Callable[[Values], Any] = itemgetter(*leading) if leading else lambda _row: 0
    # One query for each value of the leading columns: SQLite reads a whole table to find tuples in it.
    for _, each in groupby(sorted(rows, key=first), first):
        group = list(each)
        same = [table.c[name] == group[0][name] for name in leading]
        yield from connection.execute(sa.select(table).where(*same, table.c[last].in_([row[last] for row in group])))


def insert_new(
    connection: Connection, table: sa.Table, key: Sequence[str], rows: list[Values]
) -> tuple[list[Values], list[Values]]:
    """Store rows whose key is not there yet, and read them back; return them, and the others.

    Raises `CopyError` where what is read back is not the same.
    """
    place = itemgetter(*key)
    there = {place(row._asdict()) for row in matching(connection, table, key, rows)}
    fresh, known = [row for row in rows if place(row) not in there], [row for row in rows if place(row) in there]
    if fresh:
        connection.execute(table.insert(), fresh)
        values = itemgetter(*fresh[0])
        back = (row._asdict() for row in matching(connection, table, key, fresh))
        if digest(map(values, back)) != digest(map(values, fresh)):
            raise CopyError(f"The database did not give back {table.name} as it was stored.")
    return fresh, known
