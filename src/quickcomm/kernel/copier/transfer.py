"""What a module exports to another site, and how the rows of an export are copied into a site."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.kernel.copier.copier import CopiedTable, Mark, Values
from quickcomm.kernel.copier.sql import SqlTarget, Write
from quickcomm.kernel.storage.columns import text
from quickcomm.kernel.storage.database import Database
from quickcomm.kernel.storage.migrations import migrate

MARKS: Final = sa.Table(
    "transfer_marks",
    sa.MetaData(),
    sa.Column("table_name", text(200), primary_key=True),
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("row_count", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
)
"""How far each import into a database has come. Rows stay: an export is not imported twice."""


def _nothing(_connection: Connection) -> None:
    """Finish nothing."""


class ModuleTables(NamedTuple):
    """The tables of a module that an export has, in the order in which they are written.

    `write`: writes a page of an export within a transaction; `finish` is run in one behind the last page. `kept`: names
    of tables that are not written where the site has rows of its own in them. `copied`: the marks of the module's own
    copy, which must be complete before an export.
    """

    module: str
    migrations: Path
    tables: tuple[CopiedTable, ...]
    write: Write
    finish: Callable[[Connection], None] = _nothing
    kept: frozenset[str] = frozenset()
    copied: sa.Table | None = None

    def prepare(self, database: Database) -> None:
        """Make the tables, or bring them to this version. Raises `ConfigurationError` for those of a newer one."""
        migrate(database.engine, self.module, self.migrations)

    def table(self, name: str) -> CopiedTable:
        return next(table for table in self.tables if table.name == name)


def stored(table: CopiedTable) -> sa.Table:
    """Return the table itself, of one that is exported."""
    return cast("sa.Table", table.rows)


def prepare_marks(database: Database) -> None:
    """Make the table of marks where there is none."""
    MARKS.create(database.engine, checkfirst=True)


class TransferTarget(SqlTarget):
    """A `Target` with marks for each transfer: one that was cut off goes on, and another one begins anew."""

    def __init__(self, database: Database, transfer: str, write: Write) -> None:
        self._prefix = f"{transfer}/"
        super().__init__(database, MARKS, lambda connection, name, rows: write(connection, self._short(name), rows))

    async def mark(self, table: str) -> Mark:
        return await super().mark(f"{self._prefix}{table}")

    async def apply(self, table: str, rows: list[Values], before: Mark, after: Mark) -> Mark:
        return await super().apply(f"{self._prefix}{table}", rows, before, after)

    def _short(self, name: str) -> str:
        return name.removeprefix(self._prefix)
