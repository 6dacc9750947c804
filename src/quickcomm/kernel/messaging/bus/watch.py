"""Looks after the server behind a bus, so that people are told when it is away, or nearly full."""

from typing import Final

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.handling import letters_alarm
from quickcomm.kernel.messaging.bus.port import Alarms
from quickcomm.kernel.messaging.bus.redis import Condition, RedisBus

LOOK_EVERY_S: Final = 1.0
ANSWER_WITHIN_S: Final = 2.0
"""Sooner than a call gives up: people must be told within seconds."""
UNAVAILABLE_ALARM: Final = "bus.unavailable"
MEMORY_ALARM: Final = "bus.memory"
MEMORY_SHARE: Final = 0.9
"""Of what the server may use. Beyond it, at 1, nothing new is taken until something is handled."""


class ServerWatch:
    def __init__(self, bus: RedisBus, clock: Clock, consequence: str) -> None:
        """`consequence`: what that means, in a sentence for operators."""
        self._bus = bus
        self._clock = clock
        self._consequence = consequence
        self._trouble: str | None = None
        self._condition = Condition(letters=0)

    @property
    def trouble(self) -> str | None:
        """Why nothing is handled now, in words for an operator."""
        return self._trouble

    @property
    def alarms(self) -> Alarms:
        """`trouble`, and what else an operator must know of the server."""
        found = [] if self._trouble is None else [(UNAVAILABLE_ALARM, self._trouble)]
        used, most = self._condition.memory_used, self._condition.memory_most
        if most and used >= MEMORY_SHARE * most:
            said = f"The Valkey server has used {used / most:.0%} of its {most >> 20} MB (maxmemory)."
            found.append(
                (MEMORY_ALARM, f"{said} Beyond that no sound is taken. See which backlog grows: quickcomm status")
            )
        if self._condition.letters:
            found.append(letters_alarm(self._condition.letters))
        return tuple(found)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self._clock.timeout(ANSWER_WITHIN_S):
                    self._condition = await self._bus.condition()
            except TimeoutError:
                self._trouble = f"The store takes too long to answer. {self._consequence}"
            except QuickCommError as error:
                self._trouble = f"{error} {self._consequence}"
            else:
                self._trouble = None
            await self._clock.sleep(LOOK_EVERY_S)
