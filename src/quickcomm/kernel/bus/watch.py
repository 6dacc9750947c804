"""Looks after the server behind a bus, so that people are told when it is away."""

from typing import Final

from quickcomm.kernel.bus.redis import RedisBus
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError

LOOK_EVERY_S: Final = 1.0
ANSWER_WITHIN_S: Final = 2.0
"""Sooner than a call gives up: people must be told within seconds."""


class ServerWatch:
    def __init__(self, bus: RedisBus, clock: Clock, consequence: str) -> None:
        """`consequence`: what that means, in a sentence for operators."""
        self._bus = bus
        self._clock = clock
        self._consequence = consequence
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing is handled now, in words for an operator."""
        return self._trouble

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self._clock.timeout(ANSWER_WITHIN_S):
                    await self._bus.open()
            except TimeoutError:
                self._trouble = f"The store takes too long to answer. {self._consequence}"
            except QuickCommError as error:
                self._trouble = f"{error} {self._consequence}"
            else:
                self._trouble = None
            await self._clock.sleep(LOOK_EVERY_S)
