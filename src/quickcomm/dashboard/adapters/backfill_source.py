"""Reads the earlier database of the dashboard in pages. It is only read, and may be in use."""

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
from quickcomm.dashboard.adapters.backfill_tables import PARTS, Part
from quickcomm.kernel.errors import InvalidInputError, NotFoundError
from quickcomm.kernel.storage import Database

MAX_BYTES: Final = 4_000_000
"""A page ends behind the row that goes beyond it."""


class SqlBackfillSource:
    """Implements `Source`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, table: str, after: str, limit: int) -> BackfillPage:
        part = _part(table)
        rows, more = await self._database.read(lambda connection: _read(connection, part, after, limit))
        size = 0
        for place, row in enumerate(rows):
            size += sum(len(value) for value in row if isinstance(value, str | bytes))
            if size > MAX_BYTES and place + 1 < len(rows):
                rows, more = rows[: place + 1], True
                break
        packed = encoded(rows)
        return BackfillPage(
            table=table,
            columns=part.columns,
            rows=packed,
            checksum=checksum(packed),
            after=_position(part, rows[-1]) if rows else after,
            more=more,
        )

    async def total(self, table: str, after: str, limit: int) -> BackfillTotal:
        part = _part(table)

        def load(connection: Connection) -> BackfillTotal:
            rows, more = _read(connection, part, after, limit)
            return BackfillTotal(
                table=table,
                rows=len(rows),
                digest=written(digest(rows)),
                after=_position(part, rows[-1]) if rows else after,
                more=more,
            )

        return await self._database.read(load)


def _part(table: str) -> Part:
    try:
        return PARTS[table]
    except KeyError:
        raise NotFoundError(f"There is no table {table!r} to come over.") from None


def _read(connection: Connection, part: Part, after: str, limit: int) -> tuple[list[Row], bool]:
    limit = max(1, min(limit, MAX_PAGE))
    columns = [part.table.c[name] for name in part.order]
    query = sa.select(part.table).limit(limit + 1)
    query = query.order_by(*(column.desc() if part.newest_first else column for column in columns))
    if after:
        here = sa.tuple_(*columns)
        there = sa.tuple_(*(sa.literal(v, c.type) for v, c in zip(_values(part, after), columns, strict=True)))
        query = query.where(here < there if part.newest_first else here > there)
    rows = [tuple(row) for row in connection.execute(query)]
    return rows[:limit], len(rows) > limit


def _position(part: Part, row: Row) -> str:
    values = dict(zip(part.columns, row, strict=True))
    return msgspec.json.encode([values[name] for name in part.order]).decode()


def _values(part: Part, after: str) -> list[Any]:
    kinds = [part.table.c[name].type.python_type for name in part.order]
    try:
        values = msgspec.json.decode(after, type=list[int | str])
    except ValueError:
        values = []
    if [type(value) for value in values] != kinds:
        raise InvalidInputError("`after` must be from an earlier page of the same table.")
    return list(values)
