"""Results in SQL: what is remembered, what is owed and what goes to the bus are one transaction.

A `kill -9` in the middle of a renewal loses nothing and doubles nothing: an answer is published and its debt paid, or
neither.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.reading import reader
from quickcomm.intelligence.ports import Heard, Owed
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.erasing.tombstones import Tombstones, tombstones_table
from quickcomm.kernel.errors import MALFORMED, NotFoundError
from quickcomm.kernel.messaging.bus.sql_tables import append
from quickcomm.kernel.storage import Database
from quickcomm.kernel.storage.upsert import Insert, Upsert

MIGRATIONS: Final = Path(__file__).with_name("migrations")
_meta = sa.MetaData()
results = sa.Table(
    "intelligence_results",
    _meta,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("utterance_id", sa.String, primary_key=True),
    sa.Column("revision", sa.Integer),
    sa.Column("at_ns", sa.BigInteger),
    sa.Column("owner_epoch", sa.BigInteger),
)
debts = sa.Table(
    "intelligence_owed",
    _meta,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("utterance_id", sa.String, primary_key=True),
    sa.Column("at_ns", sa.BigInteger),
    sa.Column("payload", sa.LargeBinary),
    sa.Column("claimed_ns", sa.BigInteger),
)
erased = tombstones_table("intelligence_erased")
CLAIM_NS: Final = 60 * 10**9
"""So long has a process what it took to renew to itself."""
_KNOWN: Final = sa.select(results.c.site, results.c.utterance_id, results.c.owner_epoch).where(
    results.c.site.in_(sa.bindparam("sites", expanding=True)),  # with which the primary key begins
    results.c.utterance_id.in_(sa.bindparam("utterance_ids", expanding=True)),
)


def _remembering(insert: Insert) -> sa.Executable:
    put = insert(results)
    statement: sa.Executable = put.on_conflict_do_update(
        index_elements=["site", "utterance_id"],
        set_={"revision": put.excluded.revision, "owner_epoch": put.excluded.owner_epoch},
        where=sa.tuple_(results.c.owner_epoch, results.c.revision)
        < sa.tuple_(put.excluded.owner_epoch, put.excluded.revision),
    )
    return statement.execution_options(preserve_rowcount=True)  # else it is gone with the cursor on PostgreSQL


_REMEMBER: Final = Upsert(_remembering)
_OWE: Final = Upsert(lambda insert: insert(debts).on_conflict_do_nothing())
_NAME: Final = sa.tuple_(debts.c.site, debts.c.utterance_id)


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An `Owed`, that a process of a later release may have written."""

    found: msgspec.Raw
    heard: Heard


_stored = msgspec.json.Decoder(_Stored)
_found = reader(InsightsFound)


class SqlResults:
    """A `ResultStore` and the `Debts` beside it."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        """`clock`: for claims, where several processes have the database."""
        self._database = database
        self._clock = clock if database.shared else None

    async def known(self, utterances: Sequence[tuple[str, str]], epochs: Sequence[int] = ()) -> set[tuple[str, str]]:
        wanted = dict(zip(utterances, epochs, strict=False))

        def run(connection: Connection) -> set[tuple[str, str]]:
            sites, identifiers = {site for site, _ in utterances}, [identifier for _, identifier in utterances]
            rows = connection.execute(_KNOWN, {"sites": list(sites), "utterance_ids": identifiers})
            found = {(row.site, row.utterance_id): row.owner_epoch for row in rows}
            return {key for key, epoch in found.items() if epoch >= wanted.get(key, 0)}

        return await self._database.read(run)

    async def erased(self, utterances: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        def run(connection: Connection) -> set[tuple[str, str]]:
            tombstones = Tombstones(connection, erased)
            return {key for key in utterances if tombstones.hides(*key)}

        return await self._database.read(run)

    async def publish(self, found: Sequence[InsightsFound], owed: Sequence[Owed] = ()) -> None:
        promised = {(item.found.site, item.found.utterance_id): item for item in owed}

        def run(connection: Connection) -> None:
            for item in _not_erased(connection, found):
                if _remember(connection, item):
                    _settle(connection, item, promised.get((item.site, item.utterance_id)))
                    append(connection, INSIGHTS, item.conversation_id, msgspec.json.encode(item))

        await self._database.write(run)

    def renew_in(self, connection: Connection, item: InsightsFound, debt: Owed | None) -> bool:
        """Publish insights of a corrected text in a transaction that is there already; what was owed is owed no more.

        False, with nothing published, where this revision or a higher one is known. Raises `NotFoundError` for what
        was erased.
        """
        if not _not_erased(connection, [item]):
            raise NotFoundError(f"There is no utterance {item.utterance_id!r}.")
        if not _remember(connection, item):
            return False
        connection.execute(_debt(item))
        _settle(connection, item, debt)
        append(connection, INSIGHTS, item.conversation_id, msgspec.json.encode(item))
        return True

    async def follow(self, found: Sequence[InsightsFound], owed: Sequence[Owed] = ()) -> None:
        """Remember what the other side has published, and what of that is to be renewed."""
        promised = {(item.found.site, item.found.utterance_id): item for item in owed}

        def run(connection: Connection) -> None:
            for item in _not_erased(connection, found):
                if _remember(connection, item):
                    connection.execute(_debt(item))
                    _settle(connection, item, promised.get((item.site, item.utterance_id)))

        await self._database.write(run)

    async def oldest(self, limit: int, since_ns: int) -> list[Owed]:
        query = sa.select(debts).where(debts.c.at_ns >= since_ns).order_by(debts.c.at_ns).limit(limit)
        rows: Sequence[sa.Row[Any]]
        if self._clock is None:
            rows = await self._database.read(lambda connection: connection.execute(query).all())
        else:
            rows = await self._claimed(query, self._clock.now_ns())
        return [item for row in rows if (item := _decoded(row.payload)) is not None]

    async def release(self, owed: Sequence[Owed]) -> None:
        if self._clock is None or not owed:
            return
        names = [(item.found.site, item.found.utterance_id) for item in owed]
        free = debts.update().where(_NAME.in_(names)).values(claimed_ns=0)
        await self._database.write(lambda connection: connection.execute(free))

    async def _claimed(self, query: sa.Select[Any], now_ns: int) -> Sequence[sa.Row[Any]]:
        """What nobody else has in hand; from now on we have."""

        def run(connection: Connection) -> Sequence[sa.Row[Any]]:
            rows = connection.execute(query.where(debts.c.claimed_ns <= now_ns)).all()
            names = [(row.site, row.utterance_id) for row in rows]
            if names:
                connection.execute(debts.update().where(_NAME.in_(names)).values(claimed_ns=now_ns + CLAIM_NS))
            return rows

        return await self._database.write(run)

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
        stored = _stored.decode(payload)
        return Owed(found=_found.decode(bytes(stored.found)), heard=stored.heard)
    except MALFORMED:
        return None


def _not_erased(connection: Connection, found: Sequence[InsightsFound]) -> list[InsightsFound]:
    tombstones = Tombstones(connection, erased)
    return [item for item in found if not tombstones.hides(item.site, item.utterance_id)]


def _remember(connection: Connection, item: InsightsFound) -> bool:
    """Whether it is new: an utterance without insights, or a higher revision of them."""
    row = {
        "site": item.site,
        "utterance_id": item.utterance_id,
        "revision": item.revision,
        "at_ns": item.published_ns,
        "owner_epoch": item.owner_epoch,
    }
    return connection.execute(_REMEMBER.on(connection), row).rowcount > 0


def _settle(connection: Connection, item: InsightsFound, debt: Owed | None) -> None:
    if debt is not None:
        payload = msgspec.json.encode(debt)
        row = {"site": item.site, "utterance_id": item.utterance_id, "at_ns": item.published_ns, "payload": payload}
        connection.execute(_OWE.on(connection), {**row, "claimed_ns": 0})
    elif item.revision > 1:
        connection.execute(_debt(item))


def _debt(item: InsightsFound) -> sa.Delete:
    return debts.delete().where(debts.c.site == item.site, debts.c.utterance_id == item.utterance_id)
