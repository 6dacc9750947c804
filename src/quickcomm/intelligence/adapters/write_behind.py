"""Has changes written in batches, off the caller's way: within half a second, and again if the disk refuses."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from quickcomm.kernel.errors import QuickCommError

EVERY_S: Final = 0.5

log = structlog.get_logger(__name__)


class WriteBehind:
    """`flush` writes what has changed, and keeps it if it raises."""

    def __init__(self, flush: Callable[[], Awaitable[None]], name: str) -> None:
        self._flush = flush
        self._name = name
        self._changed = asyncio.Event()

    def touch(self) -> None:
        """Something has changed. Never blocks."""
        self._changed.set()

    async def run(self) -> None:
        """Write until cancelled; who cancels it flushes once more."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(EVERY_S)
            self._changed.clear()
            try:
                await self._flush()
            except QuickCommError as error:
                log.warning("write_behind.failed", what=self._name, error=str(error))
                self._changed.set()
