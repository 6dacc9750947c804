"""What intelligence kept in a site's SQLite file comes over into a database of its own, once: before it begins.

Prompts and who deployed them, what it has cost, answers of the model, results, debts, conversations; and the messages
that were not sent yet. One transaction takes all of it or nothing. The file stays as it is, but for those messages.
"""

from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa
import structlog
from sqlalchemy import Connection

from quickcomm.intelligence.adapters.sql_cache import answers
from quickcomm.intelligence.adapters.sql_prompts import audit, deployments, prompts
from quickcomm.intelligence.adapters.sql_results import debts, results
from quickcomm.intelligence.adapters.sql_talks import talks
from quickcomm.intelligence.adapters.sql_usage import conversations, days
from quickcomm.kernel.bus.sql import append, messages
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.storage import Database

TOGETHER: Final = 500
TABLES: Final = (prompts, deployments, audit, answers, days, conversations, results, debts, talks)
NUMBERED: Final = (audit,)
"""Their ids are given by the database: in the order of the rows."""
WHAT: Final = "site"
inherited: Final = sa.Table(
    "intelligence_inherited",
    sa.MetaData(),
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("at_ns", sa.BigInteger),
)

log = structlog.get_logger(__name__)


async def inherit(database: Database, site: Database, clock: Clock) -> int:
    """How many rows came over; 0 where they came before. Both have their tables. Raises `StorageError`.

    `site`: the file; nobody writes to it meanwhile.
    """

    def run(connection: Connection) -> int | None:
        if connection.execute(sa.select(inherited)).first() is not None:
            return None
        connection.execute(inherited.insert().values(what=WHAT, at_ns=clock.now_ns()))
        with site.engine.connect() as old:
            return sum(_copy(old, connection, table) for table in TABLES) + _send_on(old, connection)

    rows = await database.write(run)
    if rows is None:
        return 0
    await site.write(lambda connection: connection.execute(messages.delete()))
    log.info("intelligence.inherited", rows=rows)
    return rows


def _copy(old: Connection, new: Connection, table: sa.Table) -> int:
    count = 0
    for rows in _pages(old, sa.select(table).order_by(*table.primary_key.columns)):
        if table in NUMBERED:
            rows = [{name: value for name, value in row.items() if name != "id"} for row in rows]  # noqa: PLW2901
        new.execute(table.insert(), rows)
        count += len(rows)
    return count


def _send_on(old: Connection, new: Connection) -> int:
    count = 0
    for rows in _pages(old, sa.select(messages).order_by(messages.c.id)):
        for row in rows:
            append(new, row["stream"], row["key"], row["payload"])
        count += len(rows)
    return count


def _pages(connection: Connection, query: sa.Select[Any]) -> Iterator[list[dict[str, Any]]]:
    for page in connection.execute(query).mappings().partitions(TOGETHER):
        yield [{str(name): value for name, value in row.items()} for row in page]
