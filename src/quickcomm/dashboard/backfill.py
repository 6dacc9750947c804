"""The dashboard's second face: what an earlier database of it has comes over into the present one.

On the side that has the old tables (whoever has the database of a former monolith), for `create_app`:

    prepare_source(database); routes(database, lambda request: trust.require(request, "dashboard"))

On the side of the dashboard service, as a task beside `Dashboard.run`, after `Dashboard.migrate`:

    source = over_http(lambda: aiohttp.UnixConnector(str(socket())), lambda: trust.headers("intelligence"))
    await backfill(database, source)

It waits for a source that is away, goes on where it was cut off, and returns at once where it was done before.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.dashboard.adapters.backfill_http import Check, Headers, HttpBackfillSource, backfill_routes
from quickcomm.dashboard.adapters.backfill_source import SqlBackfillSource
from quickcomm.dashboard.adapters.backfill_target import SqlBackfillTarget
from quickcomm.dashboard.adapters.state import SqlStore
from quickcomm.dashboard.service.backfill import Backfill, BackfillAwayError, BackfillError, Brought, Source
from quickcomm.kernel.storage import Database, migrate

__all__ = [
    "BackfillAwayError",
    "BackfillError",
    "Brought",
    "Source",
    "backfill",
    "over_http",
    "prepare_source",
    "purge_source",
    "routes",
]
MIGRATIONS: Final = Path(__file__).parent / "adapters" / "migrations"
PURGE_BATCH: Final = 200


def prepare_source(database: Database) -> None:
    """At start-up of the side that has the old tables: bring them to this version. Harmless where there are none."""
    migrate(database.engine, "dashboard", MIGRATIONS)


def routes(database: Database, check: Check) -> Sequence[web.AbstractRouteDef]:
    """For `create_app` of the side that has the old tables. `check` raises where the caller may not ask."""
    return backfill_routes(SqlBackfillSource(database), check)


async def purge_source(database: Database, before_ns: int) -> int:
    """The retention holds for what stays behind, too; how many rows it was."""
    store = SqlStore(database)
    total = 0
    while purged := await store.transact(lambda state: state.purge(before_ns, PURGE_BATCH)):
        total += purged
    return total


def over_http(connector: Callable[[], aiohttp.BaseConnector], headers: Headers) -> Source:
    """`connector` is asked for every page, `headers` too: sockets and tokens change."""
    return HttpBackfillSource(connector, headers)


async def backfill(database: Database, source: Source, closing_confidence: float = CLOSING_CONFIDENCE) -> Brought:
    """Return when all is there and both sides agree. May be cancelled at any moment, and called again.

    `closing_confidence` is that of the dashboard's settings: closings are decided as it decides them.

    Raises:
        BackfillError: what came over is not what the earlier database has; nothing of the present one is lost.
        StorageError: this database is away or full.

    """
    return await Backfill(source, SqlBackfillTarget(database, closing_confidence)).run()
