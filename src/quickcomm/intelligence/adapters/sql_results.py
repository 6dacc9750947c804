"""Results in SQL: what is remembered, what is owed and what goes to the bus are one transaction.

A `kill -9` in the middle of a renewal loses nothing and doubles nothing: an answer is published and its debt paid, or
neither.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.intelligence.ports import Owed
from quickcomm.kernel.bus.sql import append
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.storage import Database

MIGRATIONS: Final = Path(__file__).with_name("migrations")
_meta = sa.MetaData()
results = sa.Table(
    "intelligence_results",
    _meta,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("utterance_id", sa.String, primary_key=True),
    sa.Column("revision", sa.Integer),
    sa.Column("at_ns", sa.BigInteger),
)


debts = sa.Table(
    "intelligence_owed",
    _meta,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("utterance_id", sa.String, primary_key=True),
    sa.Column("at_ns", sa.BigInteger),
    sa.Column("payload", sa.LargeBinary),
)
_KNOWN: Final = sa.select(results.c.site, results.c.utterance_id).where(
    results.c.utterance_id.in_(sa.bindparam("utterance_ids", expanding=True))
)
_PUT: Final = insert(results)
_REMEMBER: Final = _PUT.on_conflict_do_update(
    set_={"revision": _PUT.excluded.revision}, where=results.c.revision < _PUT.excluded.revision
)
_decoder = msgspec.json.Decoder(Owed)


class SqlResults:
    """A `ResultStore` and the `Debts` beside it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self, utterances: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        def run(connection: Connection) -> set[tuple[str, str]]:
            rows = connection.execute(_KNOWN, {"utterance_ids": [identifier for _, identifier in utterances]})
            return {(row.site, row.utterance_id) for row in rows}

        return await self._database.read(run)

    async def publish(self, found: Sequence[InsightsFound], owed: Sequence[Owed] = ()) -> None:
        promised = {(item.found.site, item.found.utterance_id): item for item in owed}

        def run(connection: Connection) -> None:
            for item in found:
                if _remember(connection, item):
                    _settle(connection, item, promised.get((item.site, item.utterance_id)))
                    append(connection, INSIGHTS, item.conversation_id, msgspec.json.encode(item))

        await self._database.write(run)

    async def oldest(self, limit: int, since_ns: int) -> list[Owed]:
        query = sa.select(debts.c.payload).where(debts.c.at_ns >= since_ns).order_by(debts.c.at_ns).limit(limit)
        payloads = await self._database.read(lambda connection: connection.execute(query).scalars().all())
        return [item for payload in payloads if (item := _decoded(payload)) is not None]

    async def forget(self, owed: Owed) -> None:
        await self._database.write(lambda connection: connection.execute(_debt(owed.found)))

    async def forget_before(self, before_ns: int) -> int:
        query = debts.delete().where(debts.c.at_ns < before_ns)
        return await self._database.write(lambda connection: connection.execute(query).rowcount)

    async def purge(self, before_ns: int) -> None:
        def run(connection: Connection) -> None:
            connection.execute(results.delete().where(results.c.at_ns < before_ns))
            connection.execute(debts.delete().where(debts.c.at_ns < before_ns))

        await self._database.write(run)


def _decoded(payload: bytes) -> Owed | None:
    """None for what another version wrote and this one cannot read: it stays as it was answered."""
    try:
        return _decoder.decode(payload)
    except MALFORMED:
        return None


def _remember(connection: Connection, item: InsightsFound) -> bool:
    """Whether it is new: an utterance without insights, or a higher revision of them."""
    row = {"site": item.site, "utterance_id": item.utterance_id, "revision": item.revision, "at_ns": item.published_ns}
    return connection.execute(_REMEMBER, row).rowcount > 0


def _settle(connection: Connection, item: InsightsFound, debt: Owed | None) -> None:
    if debt is not None:
        payload = msgspec.json.encode(debt)
        row = {"site": item.site, "utterance_id": item.utterance_id, "at_ns": item.published_ns, "payload": payload}
        connection.execute(insert(debts).values(row).on_conflict_do_nothing())
    elif item.revision > 1:
        connection.execute(_debt(item))


def _debt(item: InsightsFound) -> sa.Delete:
    return debts.delete().where(debts.c.site == item.site, debts.c.utterance_id == item.utterance_id)
