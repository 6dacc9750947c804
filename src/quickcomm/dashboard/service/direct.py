"""Utterances that come past the streams, on their way to the records: bounded, in batches, and never needed."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from quickcomm.contracts.link import Committed
from quickcomm.kernel.errors import QuickCommError

MOST: Final = 1_024
TOGETHER: Final = 64

log = structlog.get_logger(__name__)


class Direct:
    """Beyond `MOST` the oldest are left to the stream."""

    def __init__(self) -> None:
        self._waiting: deque[Committed] = deque(maxlen=MOST)
        self._wake = asyncio.Event()

    def put(self, committed: Committed) -> None:
        self._waiting.append(committed)
        self._wake.set()

    async def run(self, apply: Callable[[Sequence[Committed]], Awaitable[None]]) -> None:
        """Apply them in the order in which they came, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
                try:
                    await apply(batch)
                except QuickCommError as error:  # the stream brings them again, and again until it works
                    log.warning("direct.not_applied", utterances=len(batch), error=str(error))
