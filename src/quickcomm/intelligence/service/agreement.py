"""Has all processes of intelligence agree whether the model is down: the first that finds out says so, one probes.

Without it each of them would find out by itself, with calls that fail, and each would probe a model that is down.
While the others cannot be heard (the store is away), each acts for itself, as one process does.
"""

import asyncio
from typing import Final

import structlog

from quickcomm.intelligence.ports import SharedStand, Stand
from quickcomm.intelligence.service.guard import Guard
from quickcomm.kernel.errors import QuickCommError

EVERY_S: Final = 0.5

log = structlog.get_logger(__name__)


class Agreement:
    """Run `run` beside the guard's `watch`."""

    def __init__(self, guard: Guard, shared: SharedStand) -> None:
        self._guard = guard
        self._shared = shared
        self._number = 0
        self._changed = False
        self._news = asyncio.Event()
        guard.on_change = self._tell

    async def run(self) -> None:
        """Tell and hear, at once where something changes here, until cancelled."""
        alone = False
        while True:
            try:
                await self.exchange()
                alone = False
            except QuickCommError as error:
                self._guard.probes = True
                if not alone:
                    log.warning("llm.acts_alone", error=str(error))
                alone = True
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()

    async def exchange(self) -> None:
        """Once. Raises `QuickCommError` where nobody can be heard."""
        closed, why, since_ns = self._guard.stand
        changed, self._changed = self._changed, False
        mine = Stand(closed=closed, why=why, since_ns=since_ns, number=self._number)
        try:
            stand, probes = await self._shared.exchange(mine, changed=changed)
        except QuickCommError:
            self._changed = self._changed or changed
            raise
        self._number = stand.number
        self._guard.probes = probes
        if not self._changed:  # else something has happened here since, which is told next
            self._guard.agree(closed=stand.closed, why=stand.why, since_ns=stand.since_ns)

    def _tell(self) -> None:
        self._changed = True
        self._news.set()
