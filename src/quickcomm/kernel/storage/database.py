"""A SQLite database with one writer thread that commits in groups, and a few readers beside it.

Writers queue functions; the thread runs each one inside a savepoint and commits many at once, so that a busy site
pays for few commits and one failing function does not harm its neighbours. WAL with `synchronous=NORMAL`: what was
committed survives `kill -9` of the process; after a power loss the last moments may be missing.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

from quickcomm.kernel.errors import BusyError, QuickCommError
from quickcomm.kernel.telemetry import tracing

T = TypeVar("T")
CommitListener = Callable[[set[str]], None]

MAX_GROUP = 64
MAX_WAITING = 4096
READERS = 4
TOUCHED = "quickcomm.touched"


class StorageError(QuickCommError):
    """The database refused (disk full, read-only, damaged). The same write may succeed later."""

    code = "storage.failed"
    retryable = True


class _Write:
    __slots__ = ("error", "function", "future", "loop", "result")

    def __init__(self, function: Callable[[Connection], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: Exception | None = None

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def touch(connection: Connection, topic: str) -> None:
    """Have commit listeners told about `topic` once the present transaction is committed."""
    connection.info.setdefault(TOUCHED, set()).add(topic)


def _in_transaction(connection: Connection) -> bool:
    driver = connection.connection.driver_connection
    return isinstance(driver, sqlite3.Connection) and driver.in_transaction


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
            "cache_size=-16000",
            f"query_only={'ON' if query_only else 'OFF'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


class Database:
    """Open with `open()`, close with `aclose()`. Functions given to `write` and `read` run in other threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        url = f"sqlite:///{path}"
        # No values in errors: they may be what people said, or a token.
        options: dict[str, Any] = {"hide_parameters": True, "connect_args": {"check_same_thread": False}}
        self.engine = create_engine(url, poolclass=StaticPool, **options)
        _configure(self.engine, begin="BEGIN IMMEDIATE", query_only=False)
        self._reader = create_engine(url, poolclass=QueuePool, pool_size=READERS, max_overflow=0, **options)
        _configure(self._reader, begin="BEGIN", query_only=True)
        self._waiting: queue.Queue[_Write | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._readers = ThreadPoolExecutor(READERS, "storage-reader")
        self._listeners: list[CommitListener] = []
        self._closed = False

    def open(self) -> None:
        """Create the file if need be and start the writer thread. Raises `StorageError` if the file is unusable."""
        try:
            with self.engine.begin() as connection:
                connection.exec_driver_sql("SELECT 1")
        except SQLAlchemyError as error:
            raise StorageError(f"The database {self.path} cannot be opened: {_reason(error)}") from error
        self._thread.start()

    def on_commit(self, listener: CommitListener) -> None:
        """Call `listener` in the event loop with the topics that a committed group touched."""
        self._listeners.append(listener)

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Run `function` in the writer's next transaction; returns after the commit, raises what it raised."""
        if self._closed:
            raise StorageError("The database is closed.")
        item = _Write(function, asyncio.get_running_loop())
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            raise BusyError("Too many writes are waiting for the disk; try again in a moment.") from None
        with tracing().call("db.write") as call:
            call.note(code__function__name=_name(function))
            result: T = await item.future
        return result

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Run `function` on a read-only snapshot."""

        def run() -> T:
            with self._reader.connect() as connection:
                return function(connection)

        if self._closed:
            raise StorageError("The database is closed.")
        try:
            with tracing().call("db.read") as call:
                call.note(code__function__name=_name(function))
                return await asyncio.get_running_loop().run_in_executor(self._readers, run)
        except SQLAlchemyError as error:
            raise StorageError(f"Reading the database failed: {_reason(error)}") from error

    async def aclose(self) -> None:
        """Finish what is waiting, then close. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive():
            await asyncio.to_thread(self._waiting.put, None)
            await asyncio.to_thread(self._thread.join)
        self._readers.shutdown(wait=True)
        self._reader.dispose()
        self.engine.dispose()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            group: list[_Write] = []
            item = self._waiting.get()
            while item is not None:
                group.append(item)
                if len(group) == MAX_GROUP:
                    break
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
            stopping = item is None
            if group:
                self._commit(group)

    def _commit(self, group: list[_Write]) -> None:
        touched: set[str] = set()
        try:
            with self.engine.begin() as connection:
                connection.info[TOUCHED] = touched
                for item in group:
                    self._run_one(connection, item)
        except SQLAlchemyError as error:
            failure = StorageError(f"Writing to {self.path.name} failed: {_reason(error)}")
            failure.__cause__ = error
            for item in group:
                item.error = failure
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits for the answers
            group[0].loop.call_soon_threadsafe(self._settle, group, touched)

    @staticmethod
    def _run_one(connection: Connection, item: _Write) -> None:
        try:
            with connection.begin_nested():
                item.result = item.function(connection)
        except QuickCommError as error:
            item.error = error
        except SQLAlchemyError as error:
            if not _in_transaction(connection):
                raise  # SQLite has taken everything back (a full disk): the group must fail as a whole
            item.error = StorageError(f"A write failed: {_reason(error)}")
            item.error.__cause__ = error
        except Exception as error:  # noqa: BLE001 - the caller gets it; the writer thread must live on
            item.error = error

    def _settle(self, group: list[_Write], touched: set[str]) -> None:
        if touched:
            for listener in self._listeners:
                listener(touched)
        for item in group:
            item.settle()


def _name(function: Callable[[Connection], Any]) -> str:
    """Where it was written; a partial has no name of its own."""
    return str(getattr(function, "__qualname__", type(function).__name__))


def _reason(error: SQLAlchemyError) -> str:
    """What the driver says, without the statement: this text goes to clients and into logs."""
    return str(getattr(error, "orig", None) or type(error).__name__)
