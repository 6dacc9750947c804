"""How operations stand, in SQL: under `serve` in the transaction of their steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.kernel.errors import NotFoundError
from quickcomm.kernel.saga.answering import Transaction
from quickcomm.kernel.saga.progress import Progress
from quickcomm.kernel.storage import Database, migrate
from quickcomm.kernel.storage.upsert import saving

MIGRATIONS: Final = Path(__file__).with_name("migrations")
UNFINISHED: Final = ("running", "compensating", "parked")

journal = sa.Table(
    "operations_journal",
    sa.MetaData(),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String),
    sa.Column("site", sa.String),
    sa.Column("subject", sa.String),
    sa.Column("status", sa.String),
    sa.Column("events", sa.Integer),
    sa.Column("started_ns", sa.BigInteger),
    sa.Column("changed_ns", sa.BigInteger),
    sa.Column("progress", sa.LargeBinary),
)
_SAVE: Final = saving(journal, ["id"], ["status", "events", "changed_ns", "progress"])
_EVENTS: Final = sa.select(journal.c.events).where(journal.c.id == sa.bindparam("id"))
_NEWEST_FIRST: Final = journal.c.started_ns.desc()
_FIND: Final = sa.select(journal.c.progress).where(journal.c.id == sa.bindparam("id"))
_ABOUT: Final = (
    sa.select(journal.c.progress)
    .where(*(journal.c[name] == sa.bindparam(name) for name in ("name", "site", "subject")))
    .order_by(_NEWEST_FIRST)
    .limit(1)
)
_decode: Final = msgspec.json.Decoder(Progress).decode


class SqlJournal:
    """Implements `Journal`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def migrate(self) -> None:
        """Make the table, in an open database."""
        migrate(self._database.engine, "operations", MIGRATIONS)

    def store_in(self, transaction: Transaction, progress: Progress) -> None:
        _store(transaction.connection, progress)

    async def store(self, progress: Progress) -> None:
        await self._database.write(lambda connection: _store(connection, progress))

    async def find(self, operation_id: str) -> Progress:
        found = await self._read(_FIND, {"id": operation_id})
        if not found:
            raise NotFoundError(f"There is no operation {operation_id!r}.")
        return found[0]

    async def about(self, operation: str, site: str, subject: str) -> Progress | None:
        found = await self._read(_ABOUT, {"name": operation, "site": site, "subject": subject})
        return found[0] if found else None

    async def newest(self, limit: int, site: str | None = None, subject: str | None = None) -> Sequence[Progress]:
        query = sa.select(journal.c.progress).order_by(_NEWEST_FIRST).limit(limit)
        query = query if site is None else query.where(journal.c.site == site)
        return await self._read(query if subject is None else query.where(journal.c.subject == subject))

    async def unfinished(self) -> Sequence[Progress]:
        return await self._read(sa.select(journal.c.progress).where(journal.c.status.in_(UNFINISHED)))

    async def purge(self, before_ns: int) -> int:
        """Forget what is over since before then; return how many."""
        old = sa.and_(journal.c.changed_ns < before_ns, journal.c.status.not_in(UNFINISHED))
        return await self._database.write(lambda connection: connection.execute(journal.delete().where(old)).rowcount)

    async def _read(self, query: sa.Select[Any], given: Mapping[str, str] | None = None) -> list[Progress]:
        return await self._database.read(
            lambda connection: [_decode(row) for row in connection.execute(query, given).scalars()]
        )


def _store(connection: Connection, progress: Progress) -> None:
    known = connection.execute(_EVENTS, {"id": progress.id}).scalar()
    if known is not None and known >= progress.events:
        return
    row = {
        "id": progress.id,
        "name": progress.operation,
        "site": progress.site,
        "subject": progress.subject,
        "status": progress.status,
        "events": progress.events,
        "started_ns": progress.history[0].at_ns,
        "changed_ns": progress.history[-1].at_ns,
        "progress": msgspec.json.encode(progress),
    }
    connection.execute(_SAVE.on(connection), row)
