"""Brings over what an earlier database of the dashboard has, page by page, while messages arrive and people work.

It may be cut off at any moment and goes on behind the last page that was committed. At the end both sides are compared.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import msgspec
import structlog

from quickcomm.contracts.backfill import MODULUS, TABLES, BackfillPage, BackfillTotal, checksum, written
from quickcomm.kernel.errors import QuickCommError

T = TypeVar("T")
PAGE: Final = 200
"""Rows in a page: so few that a card does not wait long for the page before it."""
TOTAL_PAGE: Final = 1000
ATTEMPTS: Final = 3
NEWS_AFTER_S: Final = 60.0
FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 5.0
TELL_EVERY: Final = 10_000

log = structlog.get_logger(__name__)


class BackfillError(QuickCommError):
    """What came is not what was sent, or is not all of it."""

    code = "backfill.failed"


class BackfillAwayError(QuickCommError):
    """Who has the earlier database does not answer."""

    code = "backfill.away"
    retryable = True


class Source(Protocol):
    """The earlier database. `after` is empty at first."""

    async def page(self, table: str, after: str, limit: int) -> BackfillPage: ...
    async def total(self, table: str, after: str, limit: int) -> BackfillTotal: ...


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a table has come."""

    after: str = ""
    rows: int = 0
    digest: int = 0
    done: bool = False


class Target(Protocol):
    """The new database. Position and rows are written in one transaction."""

    async def finished(self) -> bool: ...
    async def progress(self, table: str) -> Progress: ...
    async def apply(self, page: BackfillPage, before: Progress) -> Progress:
        """Nothing is done where the table is not at `before` any more. Raises `BackfillError`."""
        ...

    async def rewind(self, table: str) -> None: ...
    async def settle(self) -> None:
        """Have what was said meanwhile meet what was said before."""
        ...

    async def finish(self) -> None: ...


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of each table, and how long it took; no rows where it was done before."""

    rows: dict[str, int]
    seconds: float


class Backfill:
    def __init__(
        self, source: Source, target: Target, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._source = source
        self._target = target
        self._sleep = sleep

    async def run(self) -> Brought:
        """Return when all is there. Waits for a source that is away. Raises `BackfillError` where it does not agree."""
        began = time.perf_counter()
        if await self._target.finished():
            return Brought(rows={}, seconds=0.0)
        for table in TABLES:
            await self._bring(table)
        await self._patiently(self._target.settle)
        rows = {table: await self._agree(table) for table in TABLES}
        await self._patiently(self._target.finish)
        brought = Brought(rows=rows, seconds=round(time.perf_counter() - began, 2))
        log.info("backfill.finished", seconds=brought.seconds, **rows)
        return brought

    async def _bring(self, table: str) -> Progress:
        progress = await self._patiently(lambda: self._target.progress(table))
        told = progress.rows
        while not progress.done:
            before = progress
            page = await self._patiently(lambda before=before: self._page(table, before.after))  # type: ignore[misc]
            progress = await self._patiently(lambda before=before, page=page: self._target.apply(page, before))  # type: ignore[misc]
            if progress.rows - told >= TELL_EVERY or progress.done:
                told = progress.rows
                log.info("backfill.progress", table=table, rows=progress.rows, done=progress.done)
        return progress

    async def _page(self, table: str, after: str) -> BackfillPage:
        for _ in range(ATTEMPTS):
            page = await self._source.page(table, after, PAGE)
            if checksum(page.rows) == page.checksum and page.table == table:
                return page
            log.warning("backfill.damaged_page", table=table)
        raise BackfillError(f"A page of {table} was damaged on its way {ATTEMPTS} times.")

    async def _agree(self, table: str) -> int:
        """Compare; where rows were deleted at the source meanwhile, once more from the beginning."""
        for _ in range(ATTEMPTS):
            progress = await self._bring(table)
            rows, digest = await self._total(table)
            if (rows, digest) == (progress.rows, progress.digest):
                return rows
            log.warning("backfill.differs", table=table, rows=progress.rows, at_source=rows)
            if table == TABLES[0]:
                break  # a counter must not be added twice
            await self._patiently(lambda: self._target.rewind(table))
        raise BackfillError(
            f"The earlier database's {table} changed while they came over: {rows} rows with digest {written(digest)} "
            f"there, {progress.rows} with {written(progress.digest)} here. Make sure that nothing else writes to it, "
            "and start again."
        )

    async def _total(self, table: str) -> tuple[int, int]:
        rows, digest, after, more = 0, 0, "", True
        while more:
            part = await self._patiently(lambda after=after: self._source.total(table, after, TOTAL_PAGE))  # type: ignore[misc]
            rows, digest = rows + part.rows, (digest + int(part.digest, 16)) % MODULUS
            after, more = part.after, part.more
        return rows, digest

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Again and again, while whoever is asked is away or busy."""
        wait, waited = FIRST_WAIT_S, 0.0
        while True:
            try:
                return await call()
            except QuickCommError as error:
                if not error.retryable:
                    raise
                # Both start at the same time: that one is not there yet is no news for a while.
                tell = log.warning if waited >= NEWS_AFTER_S else log.debug
                tell("backfill.waiting", error=str(error), waited_s=round(waited))
            await self._sleep(wait)
            waited += wait
            wait = min(2 * wait, LONGEST_WAIT_S)
