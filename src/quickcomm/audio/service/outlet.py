"""What one connection still has to hear: durable events in order from the log, and the latest of all else."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec

from quickcomm.audio.model import events as wire
from quickcomm.audio.ports import StoredEvent

MAX_NOTES: Final = 64
RECENT: Final = 256
Log = Callable[[int], Awaitable[list[StoredEvent]]]


class Recent:
    """The newest durable events of a conversation, so that a connected client costs no reading."""

    def __init__(self) -> None:
        self._events: deque[StoredEvent] = deque(maxlen=RECENT)

    def add(self, event: StoredEvent) -> None:
        self._events.append(event)

    def has(self, utterance_id: str) -> bool:
        return any(event.utterance_id == utterance_id for event in reversed(self._events))

    def after(self, seq: int) -> list[StoredEvent] | None:
        """Events behind `seq` without a hole; None where only the store can tell."""
        found = sorted((event for event in self._events if event.seq > seq), key=lambda event: event.seq)
        if [event.seq for event in found] != list(range(seq + 1, seq + 1 + len(found))):
            return None
        return found


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """How the connection ends: a last message, then the WebSocket close code."""

    message: wire.Json | None
    code: int


class Outlet:
    """Bounded: acks and partials replace each other, the log is read as fast as the client takes it."""

    def __init__(self, last_seq: int, log: Log) -> None:
        self._last_seq = last_seq
        self._log = log
        self._ack: int | None = None
        self._notes: deque[wire.Json] = deque(maxlen=MAX_NOTES)
        self._closing: Closing | None = None
        self._signal = asyncio.Event()
        self._signal.set()

    @property
    def closing(self) -> bool:
        """Whether the connection is on its way out."""
        return self._closing is not None

    def wake(self) -> None:
        """There are new durable events."""
        self._signal.set()

    def ack(self, offset: int) -> None:
        self._ack = offset
        self._signal.set()

    def note(self, event: wire.Json) -> None:
        """A message that may be lost; the oldest goes first."""
        self._notes.append(event)
        self._signal.set()

    def close(self, code: int, message: wire.Json | None = None) -> None:
        """Say what is left in the log, then `message`, then close. The first call counts."""
        if self._closing is None:
            self._closing = Closing(message=message, code=code)
            self._signal.set()

    async def messages(self) -> AsyncIterator[str | int]:
        """Texts to send, in order; at last the close code."""
        while True:
            await self._signal.wait()
            self._signal.clear()
            while page := await self._log(self._last_seq):
                for event in page:
                    yield event.payload
                    self._last_seq = event.seq
            if self._ack is not None:
                offset, self._ack = self._ack, None
                yield _text(wire.ack(offset))
            while self._notes:
                yield _text(self._notes.popleft())
            if self._closing is not None:
                if self._closing.message is not None:
                    yield _text(self._closing.message)
                yield self._closing.code
                return


def _text(event: wire.Json) -> str:
    return msgspec.json.encode(event).decode()
