"""One process at a time: a lock inside PostgreSQL that ends with its transaction, or with whoever has it.

It is not the lock of those who write: inside, others may go on writing.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

LOCK: Final = "SELECT pg_advisory_xact_lock(20834, 2)"
TERMS: Final = ("SET LOCAL lock_timeout = '10s'", "SET LOCAL idle_in_transaction_session_timeout = '8s'")
"""How long who waits is patient, and after how long who hangs inside is put out."""


class Turnstile:
    """`enter` and `leave` by turns, by one task. `aclose()` after the last use."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, "storage-turnstile")
        self._inside: Connection | None = None

    async def enter(self) -> None:
        """Raises what the driver says."""
        entering = asyncio.get_running_loop().run_in_executor(self._thread, self._enter)
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The thread cannot be called back: it comes in, and goes out again at once.
            self._thread.submit(self._leave)
            raise

    async def leave(self) -> None:
        """Does nothing where it is not inside."""
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._leave))

    async def aclose(self) -> None:
        """May be called again."""
        await asyncio.to_thread(self._thread.shutdown)
        self._engine.dispose()

    def _enter(self) -> None:
        connection = self._engine.connect()
        try:
            for term in TERMS:
                connection.exec_driver_sql(term)
            connection.exec_driver_sql(LOCK)
        except BaseException:
            connection.close()
            raise
        self._inside = connection

    def _leave(self) -> None:
        connection, self._inside = self._inside, None
        if connection is None:
            return
        try:
            connection.commit()
        except SQLAlchemyError:  # it was put out, or the server is gone: then the lock is, too
            connection.invalidate()
        finally:
            connection.close()
