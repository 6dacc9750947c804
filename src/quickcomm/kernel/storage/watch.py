"""Looks after a database that is elsewhere, so that people are told when it is away."""

from typing import Final

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.storage.database import Database

LOOK_EVERY_S: Final = 1.0
PATIENCE_S: Final = 3.0
"""A server that hangs refuses nothing: who asks it waits. After so long that is worth saying."""


class DatabaseWatch:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._trouble: str | None = None
        self._asked_at: float | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing can be stored now, in words for an operator."""
        if self._asked_at is not None and self._clock.monotonic() - self._asked_at >= PATIENCE_S:
            return "The database does not answer."
        return self._trouble

    async def run(self) -> None:
        """Until cancelled. Of a file, everything that is written finds out: there it ends at once."""
        while self._database.shared:
            await self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Once."""
        self._asked_at = self._clock.monotonic()
        try:
            await self._database.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
        except QuickCommError as error:
            self._trouble = str(error)
        else:
            self._trouble = None
        finally:
            self._asked_at = None
