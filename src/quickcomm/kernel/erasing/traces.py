"""Removes what a deleted row leaves behind in the files of a database.

SQLite: the file is written anew without free pages (`VACUUM`), and its log is cut to nothing. PostgreSQL: `VACUUM` of
the tables; its own log and its backups are the operator's.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from quickcomm.kernel.storage import Database

COMPACTED_BYTES: Final = 256 << 20
"""A larger file is not written anew: others would wait for too long. Deleted rows are overwritten in it."""
BUSY_S: Final = 30.0
CUT_WITHIN_S: Final = 10.0
LATER: Final = "overwritten in place; to write the file anew, stop the site and run: sqlite3 {path} VACUUM"
NOT_CUT: Final = "in the file's log until the next checkpoint"
WITH_SERVER: Final = "PostgreSQL's own log and its archives keep it as long as they are kept"

log = structlog.get_logger(__name__)


async def remove_traces(database: Database, tables: Sequence[str]) -> str:
    """Return by when the rest is gone, where it is not now. `tables`: those of which rows were deleted."""
    if database.shared:
        await asyncio.to_thread(_vacuum_server, database, tables)
        return WITH_SERVER
    return await asyncio.to_thread(remove_file_traces, database.path)


def remove_file_traces(path: Path) -> str:
    """Do so with a SQLite file that processes may have open."""
    gone = ""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)) as connection:
        _merge_full_text(connection)
        if path.stat().st_size <= COMPACTED_BYTES:
            try:
                connection.execute("VACUUM")
            except sqlite3.OperationalError as error:  # too busy, or no room for a second file
                log.warning("erasure.not_compacted", database=path.name, error=str(error))
                gone = LATER.format(path=path)
        else:
            gone = LATER.format(path=path)
        return gone or ("" if _cut_log(connection) else NOT_CUT)


def _merge_full_text(connection: sqlite3.Connection) -> None:
    """Have full-text indexes forget deleted words: they stay in an index until its parts are merged."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%fts5%'"
    for (name,) in connection.execute(query).fetchall():
        connection.execute(f"INSERT INTO {name}({name}) VALUES ('optimize')")  # noqa: S608 - our own names


def _cut_log(connection: sqlite3.Connection) -> bool:
    """Return True once the write-ahead log is empty: readers must have left what it has."""
    connection.execute("PRAGMA busy_timeout = 1000")
    until = time.monotonic() + CUT_WITHIN_S
    while True:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy or time.monotonic() >= until:
            return not busy
        time.sleep(0.05)


def _vacuum_server(database: Database, tables: Sequence[str]) -> None:
    try:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for name in tables:
                connection.exec_driver_sql(f"VACUUM {name}")
    except SQLAlchemyError as error:
        log.warning("erasure.not_vacuumed", error=type(error).__name__)
