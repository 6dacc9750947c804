"""What intelligence had in the database of a monolith: copied into a database of its own, before it begins.

Prompts and who deployed them, costs, answers of the model, results, the reclassification backlog, conversations; and
the messages that were not sent yet.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.intelligence.adapters.sql_cache import answers
from quickcomm.intelligence.adapters.sql_prompts import audit, deployments, prompts
from quickcomm.intelligence.adapters.sql_results import debts, erased, results
from quickcomm.intelligence.adapters.sql_talks import talks
from quickcomm.intelligence.adapters.sql_usage import conversations, days
from quickcomm.kernel.copier.copier import CopiedTable, Copier, Source, Values
from quickcomm.kernel.copier.sql import (
    SqlSource,
    SqlTarget,
    insert_new,
    is_stale,
    lacks_copy,
    marks_table,
    note_begun,
)
from quickcomm.kernel.erasing.tombstones import Tombstones
from quickcomm.kernel.messaging.bus.sql_tables import append, messages
from quickcomm.kernel.storage import Database

RENUMBERED: Final = (audit, messages)
"""The target gives them ids of its own, in the order of the rows."""
TABLES: Final = tuple(
    CopiedTable(table.name, table, tuple(table.primary_key.columns.keys()), repeatable=table not in RENUMBERED)
    for table in (prompts, deployments, audit, answers, days, conversations, results, debts, talks, messages)
)
WARM: Final = tuple(table for table in TABLES if table.rows is not messages)
"""What a side begins with while the other one goes on."""
MARKS: Final = marks_table("intelligence_copied")


async def take_over(database: Database, site: Database) -> int:
    """Return how many rows were copied; 0 where they were before. Both have their tables. Raises `QuickCommError`.

    `site`: the monolith's database, which is not written to meanwhile.
    """
    copied = await Copier(SqlSource(site, TABLES), SqlTarget(database, MARKS, write), TABLES, sleep=None).run()
    if copied:
        await site.write(lambda connection: connection.execute(messages.delete()))  # they are sent from here
    return sum(copied.values())


def begin_anew(connection: Connection) -> bool:
    """Empty the tables where they are stale, once; return True where a copy is still to be made."""
    if is_stale(connection, MARKS):
        for table in WARM:
            connection.execute(sa.delete(table.rows))  # type: ignore[arg-type]
        note_begun(connection, MARKS)
    return lacks_copy(connection, MARKS)


async def begin_warm(database: Database, source: Source) -> dict[str, int]:
    """Copy once what the other side has, while it goes on; return the rows of each table.

    Waits while the source is unavailable. Raises `CopyError` where a page is damaged, or of another version.
    """
    return await Copier(source, SqlTarget(database, MARKS, write), WARM, live=True).run()


def write(connection: Connection, name: str, rows: list[Values]) -> None:
    """Write a page within a transaction: rows that are not there yet, without what was erased here."""
    table: sa.Table = {each.name: each.rows for each in TABLES}[name]  # type: ignore[assignment]
    if table is messages:
        for row in rows:
            append(connection, row["stream"], row["key"], row["payload"])
    elif table is audit:
        connection.execute(audit.insert(), [{key: row[key] for key in row if key != "id"} for row in rows])
    else:
        tombstones = Tombstones(connection, erased)
        kept = [row for row in rows if not _is_erased(tombstones, row)]
        insert_new(connection, table, table.primary_key.columns.keys(), kept)


def _is_erased(tombstones: Tombstones, row: Values) -> bool:
    """Return True for a row of what was erased here after it was read there."""
    if "utterance_id" in row:
        return tombstones.hides(row["site"], row["utterance_id"])
    return "talk" in row and tombstones.hides_summary(row["site"], row["conversation_id"], row["at_ns"])
