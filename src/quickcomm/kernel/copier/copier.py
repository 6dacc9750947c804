"""Copy tables page by page, resumably, and compare both ends.

A source pages rows by a stable key. A target applies a page together with its mark in one transaction, so that a copy
that was cut off anywhere goes on behind the last page that was committed. At the end rows and digests are compared.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec
import sqlalchemy as sa
import structlog

from quickcomm.contracts.backfill import MODULUS, BackfillPage, BackfillTotal, checksum, decoded, digest, written
from quickcomm.kernel.errors import QuickCommError

T = TypeVar("T")
Values = dict[str, Any]
"""A row by the names of its columns."""
ALL: Final = "all"
"""The mark of the whole copy."""
PAGE: Final = 200
"""Rows in a page: so few that a live write waits little for the page before it."""
TOTAL_PAGE: Final = 1000
ATTEMPTS: Final = 3
FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 5.0
WARN_AFTER_S: Final = 60.0
REPORT_EVERY: Final = 10_000

log = structlog.get_logger(__name__)


class CopyError(QuickCommError):
    """What arrived is not what was sent, or not all of it."""

    code = "copy.failed"


class CopySourceUnavailableError(QuickCommError):
    """The process that has the source does not answer."""

    code = "copy.source_unavailable"
    retryable = True


class CopiedTable(NamedTuple):
    """A table, or a query of the source.

    `order`: a unique key of numbers, text or bytes, by which pages follow each other. `repeatable`: applying a page
    twice changes nothing, so that the table can be copied again where rows were deleted at the source meanwhile.
    """

    name: str
    rows: sa.FromClause
    order: tuple[str, ...]
    newest_first: bool = False
    repeatable: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(str(column.name) for column in self.rows.c)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far the copy of a table has come. `digest`: of all rows until here."""

    after: str = ""
    rows: int = 0
    digest: int = 0
    done: bool = False


class Source(Protocol):
    """The side with the rows. `after` is empty at first."""

    async def page(self, table: str, after: str, limit: int) -> BackfillPage: ...
    async def total(self, table: str, after: str, limit: int) -> BackfillTotal: ...


class Target(Protocol):
    """The side that gets the rows."""

    async def mark(self, table: str) -> Mark: ...

    async def apply(self, table: str, rows: list[Values], before: Mark, after: Mark) -> Mark:
        """Write rows and mark in one transaction; return the mark now.

        Nothing is written if the table's mark is not `before` any more: another process was quicker.
        """
        ...


async def _nothing() -> None:
    pass


class Copier:
    def __init__(
        self,
        source: Source,
        target: Target,
        tables: Sequence[CopiedTable],
        *,
        settle: Callable[[], Awaitable[None]] = _nothing,
        sleep: Callable[[float], Awaitable[None]] | None = asyncio.sleep,
        page: int = PAGE,
        live: bool = False,
    ) -> None:
        """Copy tables in their order. `settle`: run once all rows are there, before both sides are compared.

        `sleep`: pauses while either side is unavailable; None raises its error, for a caller that tries again. `live`:
        the source goes on changing, so that each page is checked, and not the whole at the end.
        """
        self._source = source
        self._target = target
        self._tables = tables
        self._settle = settle
        self._sleep = sleep
        self._page = page
        self._live = live

    async def run(self) -> dict[str, int]:
        """Return the rows of each table when everything is there; no tables where the copy was complete before.

        May be cancelled at any moment, and run again. Raises `CopyError` where both sides do not agree.
        """
        if (await self._patiently(lambda: self._target.mark(ALL))).done:
            return {}
        rows = {table.name: (await self._copy(table)).rows for table in self._tables}
        await self._patiently(self._settle)
        if not self._live:
            rows = {table.name: await self._compare(table) for table in self._tables}
        await self._save(ALL, Mark(done=True))
        log.info("copy.finished", **rows)
        return rows

    async def _copy(self, table: CopiedTable) -> Mark:
        mark = await self._patiently(lambda: self._target.mark(table.name))
        while not mark.done:
            before, mark = mark, await self._next(table, mark)
            if mark.rows // REPORT_EVERY > before.rows // REPORT_EVERY:
                log.info("copy.progress", table=table.name, rows=mark.rows)
        return mark

    async def _next(self, table: CopiedTable, before: Mark) -> Mark:
        page = await self._patiently(lambda: self._source.page(table.name, before.after, self._page))
        if (page.table, page.columns) != (table.name, table.columns):
            raise CopyError(f"The source's {table.name} has other columns. Both sides must be of one version.")
        if checksum(page.rows) != page.checksum:
            raise CopyError(f"A page of {table.name} was damaged on its way.")
        rows = decoded(page.rows)
        total = digest(rows, before.digest)
        after = Mark(after=page.after, rows=before.rows + len(rows), digest=total, done=not page.more)
        values = [dict(zip(page.columns, row, strict=True)) for row in rows]
        return await self._patiently(lambda: self._target.apply(table.name, values, before, after))

    async def _compare(self, table: CopiedTable) -> int:
        """Return the rows of both sides; copy again where rows were deleted at the source meanwhile."""
        for _ in range(ATTEMPTS):
            mark = await self._copy(table)
            rows, total = await self._total(table.name)
            if (rows, total) == (mark.rows, mark.digest) or (await self._target.mark(ALL)).done:
                return mark.rows  # or another process has compared them, and goes on with the source
            log.warning("copy.differs", table=table.name, rows=mark.rows, at_source=rows)
            if not table.repeatable:
                break
            await self._save(table.name, Mark())
        raise CopyError(
            f"The source's {table.name} changed while it was copied: {rows} rows with digest {written(total)} there, "
            f"{mark.rows} with {written(mark.digest)} here. Make sure that nothing else writes to it, and start again."
        )

    async def _total(self, table: str) -> tuple[int, int]:
        rows, total, after, more = 0, 0, "", True
        while more:
            part = await self._patiently(lambda after=after: self._source.total(table, after, TOTAL_PAGE))  # type: ignore[misc]
            rows, total = rows + part.rows, (total + int(part.digest, 16)) % MODULUS
            after, more = part.after, part.more
        return rows, total

    async def _save(self, table: str, mark: Mark) -> None:
        before = await self._patiently(lambda: self._target.mark(table))
        await self._patiently(lambda: self._target.apply(table, [], before, mark))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call again while a side is unavailable or busy, with growing pauses."""
        wait, waited = FIRST_WAIT_S, 0.0
        while True:
            try:
                return await call()
            except QuickCommError as error:
                if not error.retryable or self._sleep is None:
                    raise
                # Both sides start at the same time: an absent one is no news for a while.
                report = log.warning if waited >= WARN_AFTER_S else log.debug
                report("copy.waiting", error=str(error), waited_s=round(waited))
            await self._sleep(wait)
            waited += wait
            wait = min(2 * wait, LONGEST_WAIT_S)
