"""Takes an operation from its first turn to where it rests: done, taken back, or parked for an operator."""

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.saga.answering import Transaction
from quickcomm.kernel.saga.progress import Progress
from quickcomm.kernel.saga.running import FIRST_WAIT_S, Local, Runner
from quickcomm.kernel.storage import Database

log = structlog.get_logger(__name__)


class Journal(Protocol):
    """Where it is kept how operations stand."""

    def store_in(self, transaction: Transaction, progress: Progress) -> None:
        """Store it with the effects of its steps; what is stored of a later time stays."""
        ...

    async def store(self, progress: Progress) -> None:
        """As `store_in`, in a transaction of its own."""
        ...

    async def find(self, operation_id: str) -> Progress:
        """Raise `NotFoundError` where there is none."""
        ...

    async def about(self, operation: str, site: str, subject: str) -> Progress | None:
        """Return the newest operation about this."""
        ...

    async def newest(self, limit: int, site: str | None = None, subject: str | None = None) -> Sequence[Progress]:
        """Return the newest first, of one site or about one subject."""
        ...

    async def unfinished(self) -> Sequence[Progress]:
        """Return those that are at work, and those that are parked."""
        ...


class Executor(Protocol):
    """Both kinds pass the same suite: `tests/contract/test_saga_executors.py`."""

    async def start(self, progress: Progress) -> None:
        """Begin, or go on. Raises what the first step raises where nothing has happened, and nothing is kept."""
        ...

    async def rest(self, operation_id: str, within_s: float) -> Progress:
        """Return how it stands when it rests, or after so many seconds."""
        ...


class InTransaction:
    """An `Executor` for operations whose steps are all transactions of one database of this process: it is one, too.

    A kill at any instruction leaves all or nothing, with the record of it.
    """

    def __init__(
        self, runner: Runner, journal: Journal, database: Database, clock: Clock, patience_s: float = 5.0
    ) -> None:
        """`patience_s`: how long a caller waits for what may still succeed."""
        self._runner = runner
        self._journal = journal
        self._database = database
        self._clock = clock
        self._patience_s = patience_s

    def takes(self, progress: Progress) -> list[Local] | None:
        """Return the steps, or None where not all of them can be in one transaction."""
        operation = self._runner.operation(progress)
        group = self._runner.local(operation, self._database)
        return group if len(group) == len(operation.steps) and not progress.results else None

    async def start(self, progress: Progress) -> None:
        group = self.takes(progress)
        assert group is not None, "asked before"  # noqa: S101 - a programming error
        wait_s, until_s = FIRST_WAIT_S, self._clock.monotonic() + self._patience_s
        while True:
            try:
                await self._runner.together(progress, group, self._journal.store_in)
            except QuickCommError as error:
                if not error.retryable or self._clock.monotonic() + wait_s > until_s:
                    raise
                log.info("saga.again", operation_id=progress.id, wait_s=wait_s, error=str(error)[:200])
                await self._clock.sleep(wait_s)
                wait_s *= 2
            else:
                return

    async def rest(self, operation_id: str, within_s: float) -> Progress:  # noqa: ARG002 - it does so at once
        return await self._journal.find(operation_id)


Told = Callable[[Progress], None]
"""Called with how an operation stands after each turn."""


def ignore(_progress: Progress) -> None:
    """Do nothing."""
