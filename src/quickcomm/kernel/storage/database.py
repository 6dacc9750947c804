"""The database of a process: one writer thread that commits in groups, and a few readers beside it.

Writers queue functions; the thread runs each one inside a savepoint and commits many at once, so that a busy site
pays for few commits and one failing function does not harm its neighbours. What kind of database that is, `Backend`
knows: a SQLite file, or PostgreSQL by URL.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from prometheus_client import Counter
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from quickcomm.kernel.errors import BusyError, ConfigurationError, QuickCommError
from quickcomm.kernel.storage.errors import StorageError
from quickcomm.kernel.storage.postgres import SCHEMES, Postgres
from quickcomm.kernel.storage.sqlite import Sqlite
from quickcomm.kernel.storage.turnstile import Turnstile
from quickcomm.kernel.telemetry import tracing

__all__ = ["Backend", "CommitListener", "Database", "Reads", "Snapshot", "StorageError", "touch"]

T = TypeVar("T")
CommitListener = Callable[[set[str]], None]

BUSY = Counter("quickcomm_database_writer_seconds", "Time that the one writer of a database was at work")
MAX_GROUP = 64
MAX_WAITING = 4096
READERS = 4
TOUCHED = "quickcomm.touched"


class Backend(Protocol):
    """What differs between kinds of databases."""

    @property
    def name(self) -> str:
        """For people, without a password."""
        ...

    @property
    def shared(self) -> bool:
        """Whether several processes may work on it at the same time."""
        ...

    def writer(self) -> Engine: ...
    def reader(self, connections: int) -> Engine: ...
    def turnstile(self) -> Turnstile | None:
        """Lets one process in at a time; None where there is only one."""
        ...

    def in_transaction(self, connection: Connection) -> bool:
        """Whether the transaction that was begun can go on after an error."""
        ...

    def failure(self, what: str, error: SQLAlchemyError, *, starting: bool = False) -> StorageError:
        """What the driver says, without statement and values: this text goes to clients and into logs.

        `starting`: only the operator sees it, who wants to know which server it is.
        """
        ...


class Reads(Protocol):
    """A database to read from."""

    async def read(self, function: Callable[[Connection], T], /) -> T: ...


class Snapshot:
    """Reads a database as it was at one moment. Made by `Database.snapshot`."""

    def __init__(self, connection: Connection, backend: Backend) -> None:
        self._connection = connection
        self._backend = backend

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Run `function` in another thread. Raises `StorageError`."""
        try:
            return await asyncio.to_thread(function, self._connection)
        except SQLAlchemyError as error:
            failure = self._backend.failure("Reading the database failed", error)
            raise failure from failure.__cause__


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


def _backend(where: Path | str) -> Backend:
    if isinstance(where, Path):
        return Sqlite(where)
    if where.startswith(SCHEMES):
        return Postgres(where)
    if "://" in where:
        raise ConfigurationError("A database is a file, or an address that begins with postgresql://")
    return Sqlite(Path(where))


class Database:
    """Open with `open()`, close with `aclose()`. Functions given to `write` and `read` run in other threads."""

    def __init__(self, where: Path | str) -> None:
        """`where`: a file, or `postgresql://user:password@host/name`. Raises `ConfigurationError`."""
        self._backend = _backend(where)
        self.engine = self._backend.writer()
        self._reader = self._backend.reader(READERS)
        self._turnstile = self._backend.turnstile()
        self._waiting: queue.Queue[_Write | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._readers = ThreadPoolExecutor(READERS, "storage-reader")
        self._listeners: list[CommitListener] = []
        self._closed = False

    @property
    def name(self) -> str:
        """The file, or the address without its password."""
        return self._backend.name

    @property
    def shared(self) -> bool:
        """Whether other processes may work on it at the same time."""
        return self._backend.shared

    @property
    def path(self) -> Path:
        """The file. Raises `ConfigurationError` where there is none."""
        if isinstance(self._backend, Sqlite):
            return self._backend.path
        raise ConfigurationError(f"{self.name} is no file. Back it up with pg_dump.")

    def open(self) -> None:
        """Create the file if need be and start the writer thread. Raises `StorageError` if it is unusable."""
        try:
            with self.engine.begin() as connection:
                connection.exec_driver_sql("SELECT 1")
        except SQLAlchemyError as error:
            failure = self._backend.failure(f"The database {self.name} cannot be opened", error, starting=True)
            raise failure from failure.__cause__
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
            failure = self._backend.failure("Reading the database failed", error)
            raise failure from failure.__cause__

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Give the database as it is now, for many reads that must agree while others write to it."""
        connection = await asyncio.to_thread(self._reader.connect)
        try:
            found = Snapshot(connection, self._backend)
            await found.read(_begin)
            yield found
        finally:
            await asyncio.to_thread(connection.close)

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be the only process inside such a block. Raises `StorageError` where that takes too long.

        Who hangs inside is put out after some seconds; then it is not alone any more, and does not know it.
        """
        if self._turnstile is None:
            yield
            return
        try:
            await self._turnstile.enter()
        except SQLAlchemyError as error:
            failure = self._backend.failure("Waiting for another process failed", error)
            raise failure from failure.__cause__
        try:
            yield
        finally:
            await self._turnstile.leave()

    async def aclose(self) -> None:
        """Finish what is waiting, then close. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive():
            await asyncio.to_thread(self._waiting.put, None)
            await asyncio.to_thread(self._thread.join)
        self._readers.shutdown(wait=True)
        if self._turnstile is not None:
            await self._turnstile.aclose()
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
                began = time.monotonic()
                self._commit(group)
                BUSY.inc(time.monotonic() - began)

    def _commit(self, group: list[_Write]) -> None:
        touched: set[str] = set()
        try:
            with self.engine.begin() as connection:
                connection.info[TOUCHED] = touched
                for item in group:
                    self._run_one(connection, item)
        except SQLAlchemyError as error:
            failure = self._backend.failure("Writing to the database failed", error)
            for item in group:
                item.error = failure
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits for the answers
            group[0].loop.call_soon_threadsafe(self._settle, group, touched)

    def _run_one(self, connection: Connection, item: _Write) -> None:
        first: SQLAlchemyError | None = None
        try:
            with connection.begin_nested():
                try:
                    item.result = item.function(connection)
                except SQLAlchemyError as error:
                    first = error
                    raise
        except QuickCommError as error:
            item.error = error
        except SQLAlchemyError as error:
            if not self._backend.in_transaction(connection):
                # Everything is taken back (a full disk, a lost connection): the group must fail as a whole, for that
                # reason, and not because the savepoint is gone with all the rest.
                raise first or error from None
            item.error = self._backend.failure("A write failed", error)
        except Exception as error:  # noqa: BLE001 - the caller gets it; the writer thread must live on
            item.error = error

    def _settle(self, group: list[_Write], touched: set[str]) -> None:
        if touched:
            for listener in self._listeners:
                listener(touched)
        for item in group:
            item.settle()


def _begin(connection: Connection) -> None:
    """Read something: the snapshot of a transaction is that of its first query."""
    sa.inspect(connection).get_table_names()


def _name(function: Callable[[Connection], Any]) -> str:
    """Where it was written; a partial has no name of its own."""
    return str(getattr(function, "__qualname__", type(function).__name__))
