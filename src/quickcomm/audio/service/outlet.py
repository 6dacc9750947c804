"""What one connection still has to hear: durable events in order from the log, and the latest of all else."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from quickcomm.audio.model.ending import EndReason
from quickcomm.contracts.audio_socket import Ack, DurableEvent, ServerEvent

MAX_NOTES: Final = 64
Log = Callable[[int], Awaitable[list[DurableEvent]]]


class Outlet:
    """Bounded: acks and partials replace each other, the log is read as fast as the client takes it."""

    def __init__(self, last_seq: int, log: Log) -> None:
        self._last_seq = last_seq
        self._log = log
        self._ack: int | None = None
        self._notes: deque[ServerEvent] = deque(maxlen=MAX_NOTES)
        self._last: ServerEvent | None = None
        self.ended_by: EndReason | None = None
        """Set once the connection is on its way out."""
        self._signal = asyncio.Event()
        self._signal.set()

    @property
    def closing(self) -> bool:
        """Whether the connection is on its way out."""
        return self.ended_by is not None

    def wake(self) -> None:
        """There are new durable events."""
        self._signal.set()

    def ack(self, offset: int) -> None:
        self._ack = offset
        self._signal.set()

    def note(self, event: ServerEvent) -> None:
        """A message that may be lost; the oldest goes first."""
        self._notes.append(event)
        self._signal.set()

    def close(self, reason: EndReason, last: ServerEvent | None = None) -> None:
        """Send what is left in the log, then `last`, then close. The first call counts."""
        if self.ended_by is None:
            self.ended_by, self._last = reason, last
            self._signal.set()

    async def events(self) -> AsyncIterator[ServerEvent]:
        """Yield what to send, in order, until the connection ends (`ended_by`)."""
        while True:
            await self._signal.wait()
            self._signal.clear()
            while page := await self._log(self._last_seq):
                for event in page:
                    yield event
                    self._last_seq = event.seq
            if self._ack is not None:
                offset, self._ack = self._ack, None
                yield Ack(offset=offset)
            while self._notes:
                yield self._notes.popleft()
            if self.ended_by is not None:
                if self._last is not None:
                    yield self._last
                return
