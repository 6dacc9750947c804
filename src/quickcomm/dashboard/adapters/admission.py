"""How many questions are looked up at once: what is asked in great number yields to what is happening."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Counter

from quickcomm.kernel.errors import BusyError

QUERIES = Counter("quickcomm_queries", "Questions that were asked: lists and searches")
REFUSED = Counter("quickcomm_queries_refused_total", "Questions that found no room to wait for their turn")


class Admission:
    """Lets a few in at once and the others in their order.

    Cards and first states of pages are not asked for here. So there is always a reader of the database for them, and
    few threads hold up the one that sends them.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        """`waiting`: so many at most; more are refused."""
        self._places = asyncio.Semaphore(at_once)
        self._room = waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises `BusyError` if too many wait."""
        QUERIES.inc()
        if self._room == 0:
            REFUSED.inc()
            raise BusyError("Too many questions are waiting for their turn; try again in a moment.")
        self._room -= 1
        try:
            await self._places.acquire()
        finally:
            self._room += 1
        try:
            yield
        finally:
            self._places.release()
