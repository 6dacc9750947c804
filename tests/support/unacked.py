"""What a client has sent and the server has not acknowledged yet: it may have to be sent again."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

Json = dict[str, Any]
BYTES: Final = {"linear16": 2, "mulaw": 1, "alaw": 1}


def bytes_a_sample(query: dict[str, object]) -> int:
    """Return the size of one sample of all speakers, by the query of the connection."""
    speakers = query.get("speakers", query.get("channels", 1))
    return BYTES.get(str(query.get("encoding", "linear16")), 1) * (2 if str(speakers) == "2" else 1)


class Unacked:
    """Messages in their order, each with its place in the conversation.

    Places are counted in bytes from the first message on; where that is, is known with the first `ready` (`begin`).
    """

    def __init__(self, block: int) -> None:
        """`block`: bytes of a sample of all speakers."""
        self._block = block
        self._items: deque[tuple[int, bytes | Json]] = deque()
        self._begins_at: int | None = None
        self._end = 0
        self._forgotten = 0
        self._next = 0
        """The first item that is not written to the present connection."""

    @property
    def begun(self) -> bool:
        return self._begins_at is not None

    def begin(self, offset: int, before: Unacked | None = None) -> None:
        """Go on at `offset`, as the first `ready` says. `before`: what the client has of its former connection.

        What lies before `offset` and is not acknowledged may still be asked for, by the other side.
        """
        if before is None or not before.begun or before._place(offset) > before._end:
            self._begins_at = offset * self._block
            return
        place = before._place(offset)
        assert before._forgotten <= place, f"The server goes on at {offset}, which it had acknowledged."
        kept = [(start, before._head(message, place - start)) for start, message in before._items if start < place]
        self._items = deque([*kept, *((place + start, message) for start, message in self._items)])
        self._next += len(kept)
        self._end += place
        self._begins_at, self._forgotten = before._begins_at, before._forgotten

    def add(self, message: bytes | Json) -> None:
        self._items.append((self._end, message))
        self._end += self._size(message)

    def take(self) -> bytes | Json | None:
        """Return the next message for the present connection; None where all are written."""
        if self._next == len(self._items):
            return None
        self._next += 1
        return self._items[self._next - 1][1]

    def acknowledged(self, offset: int) -> None:
        """Forget what lies before `offset`: the server has promised never to ask for it again."""
        place = self._place(offset)
        while self._next and self._items[0][0] < place and self._end_of(*self._items[0]) <= place:
            self._items.popleft()
            self._next -= 1
        self._forgotten = max(self._forgotten, min(place, self._end))

    def go_back(self, offset: int) -> None:
        """Begin a connection that continues at `offset`: what lies behind is to be written to it."""
        place = self._place(offset)
        assert self._forgotten <= place <= self._end, f"The server goes on at {offset}: acknowledged, or never sent."
        self._items = deque(each for each in self._items if self._end_of(*each) > place or each[0] >= place)
        if self._items and (start := self._items[0][0]) < place:
            self._items[0] = (place, self._rest(self._items[0][1], place - start))
        self._next = 0

    # -- inside -----------------------------------------------------------------------------------------------------

    def _place(self, offset: int) -> int:
        assert self._begins_at is not None
        return offset * self._block - self._begins_at

    def _end_of(self, start: int, message: bytes | Json) -> int:
        return start + self._size(message)

    def _size(self, message: bytes | Json) -> int:
        if isinstance(message, bytes):
            return len(message)
        samples = message.get("samples") if message.get("type") == "skip" else 0
        return samples * self._block if isinstance(samples, int) else 0

    def _head(self, message: bytes | Json, size: int) -> bytes | Json:
        if size >= self._size(message):
            return message
        if isinstance(message, bytes):
            return message[:size]
        return {**message, "samples": size // self._block}

    def _rest(self, message: bytes | Json, size: int) -> bytes | Json:
        if isinstance(message, bytes):
            return message[size:]
        return {**message, "samples": message["samples"] - size // self._block}
