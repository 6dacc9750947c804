"""The controller's state and audit in a SQLite file of its own: each change of state with its audit, or neither."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.migration import Figure, MigrationEntry
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.storage import Database, migrate
from quickcomm.traffic.model.machine import resumed
from quickcomm.traffic.model.state import Entry, SiteState

MIGRATIONS: Final = Path(__file__).with_name("migrations")
ONLY: Final = 1
"""The id of the row with the state."""

_meta = sa.MetaData()
state_table = sa.Table(
    "traffic_state",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.BigInteger),
    sa.Column("state", sa.LargeBinary),
)
audit_table = sa.Table(
    "traffic_audit",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at_ns", sa.BigInteger),
    sa.Column("who", sa.String),
    sa.Column("module", sa.String),
    sa.Column("action", sa.String),
    sa.Column("before", sa.String),
    sa.Column("after", sa.String),
    sa.Column("version", sa.BigInteger),
    sa.Column("why", sa.Text),
    sa.Column("evidence", sa.LargeBinary),
)
_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_states: Final = msgspec.json.Decoder(SiteState)
_figures: Final = msgspec.json.Decoder(tuple[Figure, ...])


class SqlJournal:
    """Implements `Journal`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def migrate(self) -> None:
        """Make the tables, in an open database."""
        migrate(self._database.engine, "traffic", MIGRATIONS)

    async def begin(self) -> tuple[SiteState, int]:
        def raise_epoch(connection: Connection) -> tuple[SiteState, int]:
            row = connection.execute(sa.select(state_table)).first()
            if row is None:
                connection.execute(state_table.insert().values(id=ONLY, epoch=1, state=_encode(SiteState())))
                return SiteState(), 1
            site, epoch = resumed(_states.decode(row.state)), row.epoch + 1
            connection.execute(state_table.update().values(epoch=epoch, state=_encode(site)))
            return site, epoch

        return await self._database.write(raise_epoch)

    async def store(self, site: SiteState, entries: Sequence[Entry]) -> None:
        def write(connection: Connection) -> None:
            connection.execute(state_table.update().values(state=_encode(site)))
            for entry in entries:
                connection.execute(audit_table.insert().values(**self._row(entry, site.version)))

        await self._database.write(write)

    async def audit(self, limit: int, name: str | None = None) -> list[MigrationEntry]:
        def read(connection: Connection) -> list[MigrationEntry]:
            query = sa.select(audit_table).order_by(audit_table.c.id.desc()).limit(limit)
            if name is not None:
                query = query.where(audit_table.c.module == name)
            return [_entry(row) for row in connection.execute(query)]

        return await self._database.read(read)

    def _row(self, entry: Entry, version: int) -> dict[str, object]:
        return {
            "at_ns": self._clock.now_ns(),
            "who": entry.who,
            "module": entry.name,
            "action": entry.action,
            "before": entry.before,
            "after": entry.after,
            "version": version,
            "why": entry.why,
            "evidence": _encode(entry.evidence),
        }


def _entry(row: sa.Row[tuple[object, ...]]) -> MigrationEntry:
    found = dict(row._mapping)  # noqa: SLF001 - the documented way to the columns of a row
    evidence = _figures.decode(found.pop("evidence"))
    return MigrationEntry(name=found.pop("module"), evidence=evidence, **found)
