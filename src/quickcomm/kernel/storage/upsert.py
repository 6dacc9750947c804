"""INSERTs that say what becomes of a row that is there already, as SQLAlchemy spells them for each database."""

from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

Insert = Callable[[sa.Table], Any]
"""SQLAlchemy's own for one kind of database: its statement has `on_conflict_do_update`, `on_conflict_do_nothing`."""


class Upsert:
    """A statement, made once for each kind of database: to build one takes longer than to run it."""

    def __init__(self, make: Callable[[Insert], Any]) -> None:
        self._make = make
        self._made: dict[str, sa.Executable] = {}

    def on(self, connection: Connection) -> sa.Executable:
        """As this database wants it."""
        name = connection.dialect.name
        statement = self._made.get(name)
        if statement is None:
            statement = self._made[name] = self._make(_insert(name))
        return statement


def saving(table: sa.Table, key: Iterable[str], changed: Iterable[str]) -> Upsert:
    """Insert a row, or change these columns of the one with the same key."""
    key, changed = tuple(key), tuple(changed)

    def make(insert: Insert) -> Any:
        statement = insert(table)
        return statement.on_conflict_do_update(
            index_elements=key, set_={name: statement.excluded[name] for name in changed}
        )

    return Upsert(make)


def _insert(name: str) -> Insert:
    if name == "sqlite":
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415 - each where it is needed

        return sqlite.insert
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert
