"""The dashboard's history: copied from the database of a former monolith into the dashboard's own, while it is in use.

The side that has the old tables calls `prepare_source`, serves `copy_routes(source(database), …)` and calls
`purge_source`. The dashboard service runs `backfill` beside `Dashboard.run`, after `Dashboard.migrate`.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.dashboard.adapters.history import MARKS, TABLES, settle, write
from quickcomm.dashboard.adapters.state import SqlStore
from quickcomm.dashboard.model.records import Closing
from quickcomm.dashboard.ports import Applied
from quickcomm.dashboard.service.deciding import DecidedHere, matching_again
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.copier.copier import Copier, Source
from quickcomm.kernel.copier.sql import SqlSource, SqlTarget
from quickcomm.kernel.storage import Database, migrate

MIGRATIONS: Final = Path(__file__).parent / "adapters" / "migrations"
PURGE_BATCH: Final = 200


def prepare_source(database: Database) -> None:
    """Bring the tables to this version. Harmless where there are none."""
    migrate(database.engine, "dashboard", MIGRATIONS)


def source(database: Database) -> Source:
    return SqlSource(database, TABLES)


async def purge_source(database: Database, before_ns: int) -> int:
    """Delete what the retention deletes; return how many rows it was."""
    store = SqlStore(database)
    total = 0
    while purged := await store.transact(lambda state: state.purge(before_ns, PURGE_BATCH)):
        total += purged
    return total


def _nobody_looks(applied: Applied) -> None:
    """Pages read what a backfill has brought."""


async def _match_here(deciding: DecidedHere, closings: Sequence[Closing]) -> None:
    await deciding.decide(matching_again(closings), _nobody_looks)


async def _leave(_closings: Sequence[Closing]) -> None:
    """Match nothing: the other side does."""


async def backfill(
    database: Database,
    source: Source,
    match_again: Callable[[Sequence[Closing]], Awaitable[None]] | None = None,
    closing_confidence: float = CLOSING_CONFIDENCE,
    *,
    live: bool = False,
) -> dict[str, int]:
    """Return the rows of each table when both sides agree. May be cancelled at any moment, and called again.

    `live`: the source is in use, and decides; what changes there meanwhile comes by the streams. Then nothing is
    matched here, and both sides are compared by `quickcomm check` and not at the end.
    `match_again`: decides closings anew that were said meanwhile; None: in this database.
    `closing_confidence`: that of the dashboard's settings, by which closings are decided.

    Raises:
        CopyError: the rows here are not what the source has; nothing of the present ones is lost.
        StorageError: this database is unavailable or full.

    """
    if live:
        match_again = _leave
    elif match_again is None:
        match_again = partial(_match_here, DecidedHere(SqlStore(database), SystemClock(), closing_confidence))
    target = SqlTarget(database, MARKS, partial(write, closing_confidence=closing_confidence))
    return await Copier(source, target, TABLES, settle=partial(settle, database, match_again), live=live).run()
