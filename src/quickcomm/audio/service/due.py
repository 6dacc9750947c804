"""Receipts that are still to come: a conversation that ends waits for the last ones, but not for long."""

import asyncio
from collections.abc import Callable, Container
from typing import Final

from quickcomm.kernel.clock import Clock

RECEIPTS_WITHIN_S: Final = 2.0
MOST: Final = 64
"""Utterances without a receipt that are remembered; of more, the newest."""


class ReceiptsDue:
    """Of utterances that this process has published."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[str, None] = {}
        self._news = asyncio.Event()

    def add(self, identifier: str) -> None:
        self._due[identifier] = None
        if len(self._due) > MOST:
            del self._due[next(iter(self._due))]

    def came(self, identifier: str) -> None:
        self._due.pop(identifier, None)
        self._news.set()

    def stop_waiting(self) -> None:
        """Nobody would hear them any more."""
        self._due.clear()
        self._news.set()

    async def wait(self, unanswered: Container[str], wanted: Callable[[], bool]) -> int:
        """Until they are there, or it takes too long; how many are missing. Without insights there is no receipt."""
        try:
            async with self._clock.timeout(RECEIPTS_WITHIN_S):
                while wanted() and any(identifier not in unanswered for identifier in self._due):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return len(self._due)
        return 0
