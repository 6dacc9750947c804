"""A database in a file: one connection writes at a time, a few read beside it.

WAL with `synchronous=NORMAL`: what was committed survives `kill -9` of the process; after a power loss the last moments
may be missing. `BEGIN IMMEDIATE` keeps writers of several processes apart.
"""

import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from quickcomm.kernel.storage.errors import StorageAwayError, StorageError

TAKES_NOTHING: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN}
)
"""Somebody else hangs on to it, or the disk does not do what it should."""

# No values in errors: they may be what people said, or a token.
_OPTIONS: Final[dict[str, Any]] = {"hide_parameters": True, "connect_args": {"check_same_thread": False}}


class Sqlite:
    """Implements `Backend`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.shared = False

    def writer(self) -> Engine:
        # One for the writer thread. What creates tables while it writes has another, and waits for its transaction.
        pool: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 3}
        engine = create_engine(f"sqlite:///{self.path}", **pool, **_OPTIONS)
        _configure(engine, begin="BEGIN IMMEDIATE", query_only=False)
        return engine

    def reader(self, connections: int) -> Engine:
        pool: dict[str, Any] = {"poolclass": QueuePool, "pool_size": connections, "max_overflow": 0}
        engine = create_engine(f"sqlite:///{self.path}", **pool, **_OPTIONS)
        _configure(engine, begin="BEGIN", query_only=True)
        return engine

    def turnstile(self) -> None:
        """Nobody else is there: whoever uses a file has its directory to itself."""

    def in_transaction(self, connection: Connection) -> bool:
        """False once SQLite has taken everything back (a full disk)."""
        driver = connection.connection.driver_connection
        return isinstance(driver, sqlite3.Connection) and driver.in_transaction

    def failure(self, what: str, error: SQLAlchemyError, *, starting: bool = False) -> StorageError:  # noqa: ARG002
        """What the driver says, without the statement: this text goes to clients and into logs."""
        original = getattr(error, "orig", None)
        code = getattr(original, "sqlite_errorcode", 0) & 0xFF  # without what it says more exactly
        kind = StorageAwayError if code in TAKES_NOTHING else StorageError
        failure = kind(f"{what}: {original or type(error).__name__}")
        failure.__cause__ = error
        return failure


def _configure(engine: Engine, *, begin: str, query_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun by us, see _on_begin
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            "busy_timeout=10000",
            "temp_store=MEMORY",
            "secure_delete=ON",
            "cache_size=-16000",
            f"query_only={'ON' if query_only else 'OFF'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
