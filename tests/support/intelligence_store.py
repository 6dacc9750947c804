"""A real database with the tables of intelligence and of the bus: a file, or one on a server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from quickcomm.intelligence.adapters.sql_results import MIGRATIONS
from quickcomm.kernel.messaging.bus.sql_tables import MIGRATIONS as BUS_MIGRATIONS
from quickcomm.kernel.storage import Database, migrate

_REFUSE = (
    "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$ LANGUAGE plpgsql",
    "CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()",
)


def prepare(database: Database) -> None:
    migrate(database.engine, "bus", BUS_MIGRATIONS)
    migrate(database.engine, "intelligence", MIGRATIONS)


@asynccontextmanager
async def opened(where: Path | str) -> AsyncIterator[Database]:
    """`where`: a folder, a file that ends in .sqlite, or the address of a database."""
    if isinstance(where, Path) and where.suffix != ".sqlite":
        where /= "site.sqlite"
    database = Database(where)
    database.open()
    prepare(database)
    try:
        yield database
    finally:
        await database.aclose()


async def refuse_writes(database: Database, table: str) -> None:
    """Have every new row of the table refused, as a disk would."""
    if database.shared:
        for statement in _REFUSE:
            await _execute(database, statement.format(table=table))
        return
    await _execute(
        database, f"CREATE TRIGGER refuse BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )


async def allow_writes(database: Database) -> None:
    await _execute(database, "DROP FUNCTION refuse CASCADE" if database.shared else "DROP TRIGGER refuse")


async def _execute(database: Database, statement: str) -> None:
    await database.write(lambda connection: connection.exec_driver_sql(statement))
