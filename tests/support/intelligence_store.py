"""A real database with the tables of intelligence and of the bus."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from quickcomm.intelligence.adapters.sql_results import MIGRATIONS
from quickcomm.kernel.bus.sql import MIGRATIONS as BUS_MIGRATIONS
from quickcomm.kernel.storage import Database, migrate


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = Database(path / "site.sqlite")
    database.open()
    migrate(database.engine, "bus", BUS_MIGRATIONS)
    migrate(database.engine, "intelligence", MIGRATIONS)
    try:
        yield database
    finally:
        await database.aclose()


async def refuse_writes(database: Database, table: str) -> None:
    """Have every new row of the table refused, as a disk would."""
    trigger = f"CREATE TRIGGER refuse BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END"
    await database.write(lambda connection: connection.exec_driver_sql(trigger))


async def allow_writes(database: Database) -> None:
    await database.write(lambda connection: connection.exec_driver_sql("DROP TRIGGER refuse"))
