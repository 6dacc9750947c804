"""Tombstones in SQL: ids of what was erased, so that a late or repeated message of it has no effect.

Each module has a table of its own beside its others. A row without an utterance stands for a whole conversation, and
for all that is still said in it. Rows are never deleted: they are ids and times, without a word of what was said.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.erasing import Erase, Scope, conversation_of
from quickcomm.kernel.storage.columns import text

WHOLE: Final = ""
"""Stands for the whole conversation in the place of an utterance."""
KEY: Final = ("site", "conversation_id", "utterance_id")


def tombstone_columns() -> list[sa.Column[Any]]:
    """Return the columns of a table of tombstones, for its migration."""
    return [
        sa.Column("site", text(64), primary_key=True),
        sa.Column("conversation_id", text(128), primary_key=True),
        sa.Column("utterance_id", text(200), primary_key=True),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("erasure", text(64), nullable=False),
    ]


def tombstones_table(name: str) -> sa.Table:
    """Return the table of a module's tombstones, which a migration of the module makes."""
    return sa.Table(name, sa.MetaData(), *tombstone_columns())


def is_of(table: sa.Table, scope: Scope) -> sa.ColumnElement[bool]:
    """Return the condition for rows about utterances of a scope, in a table that has `site` and `utterance_id`."""
    which = [table.c.utterance_id.in_(scope.utterances)]
    # All utterances of a conversation have its id and a colon before the rest; behind a colon comes a semicolon.
    which += [table.c.utterance_id.between(f"{each}:", f"{each};") for each in scope.conversations]
    return sa.and_(table.c.site == scope.site, sa.or_(*which))


def bury(connection: Connection, table: sa.Table, request: Erase) -> bool:
    """Store the tombstones of an erasure; return True if any of them is new. A later time replaces an earlier one."""
    scope = request.scope
    names = [(each, WHOLE) for each in scope.conversations]
    names += [(conversation_of(each), each) for each in scope.utterances]
    return add(
        connection,
        table,
        [
            {"site": scope.site, "conversation_id": conversation, "utterance_id": utterance}
            | {"at_ns": request.at_ns, "erasure": request.erasure}
            for conversation, utterance in names
        ],
    )


def add(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Store tombstones; return True if any of them is new."""
    row, fresh = table.c, []
    for each in rows:
        here = sa.and_(*(row[name] == each[name] for name in KEY))
        at_ns = connection.execute(sa.select(row.at_ns).where(here)).scalar()
        if at_ns is None:
            fresh.append(dict(each))
        elif at_ns < each["at_ns"]:
            connection.execute(table.update().where(here).values(at_ns=each["at_ns"]))
    if fresh:
        connection.execute(table.insert(), fresh)
    return bool(fresh)


class Tombstones:
    """What is erased, as one transaction sees it. Costs one short look where nothing ever was erased."""

    def __init__(self, connection: Connection, table: sa.Table) -> None:
        self._connection = connection
        self._table = table
        self._is_empty: bool | None = None
        self._known: dict[tuple[str, str], dict[str, int]] = {}

    def hides(self, site: str, utterance_id: str) -> bool:
        """Return True if the utterance, or its whole conversation, was erased."""
        found = self._of(site, conversation_of(utterance_id))
        return bool(found) and (WHOLE in found or utterance_id in found)

    def hides_all(self, site: str, conversation_id: str) -> bool:
        """Return True if the whole conversation was erased."""
        return WHOLE in self._of(site, conversation_id)

    def hides_summary(self, site: str, conversation_id: str, at_ns: int) -> bool:
        """Return True if what was made of a conversation at that time may have words that were erased."""
        found = self._of(site, conversation_id)
        return bool(found) and (WHOLE in found or at_ns <= max(found.values()))

    def _of(self, site: str, conversation_id: str) -> Mapping[str, int]:
        if self._is_empty is None:
            self._is_empty = self._connection.execute(sa.select(self._table.c.site).limit(1)).first() is None
        if self._is_empty:
            return {}
        key = (site, conversation_id)
        if key not in self._known:
            of = self._table.c
            query = sa.select(of.utterance_id, of.at_ns).where(of.site == site, of.conversation_id == conversation_id)
            self._known[key] = {row.utterance_id: row.at_ns for row in self._connection.execute(query)}
        return self._known[key]
