"""The memory of a relay process: unacknowledged sound of all its clients together."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from quickcomm.relay.metrics import HELD


class Held:
    """Bytes in all. `room` holds a client back that has too much."""

    def __init__(self, most: int, most_each: int) -> None:
        self.total = 0
        self._most = most
        self._most_each = most_each
        self._waiting: set[asyncio.Event] = set()

    @property
    def full(self) -> bool:
        """Return True if all clients together have as much as they may."""
        return self.total >= self._most

    def has_room(self, own: int, least: int) -> bool:
        """Return True if a client that has `own` bytes may send more; `least` it may have however full it is."""
        return own < self._most_each and (own < least or not self.full)

    def change(self, by: int) -> None:
        """Count bytes of one client; wake the others where there is room again."""
        was_full = self.full
        self.total += by
        HELD.set(self.total)
        if was_full and not self.full:
            for each in self._waiting:
                each.set()

    @contextmanager
    def woken(self, event: asyncio.Event) -> Iterator[None]:
        """Have `event` set when there is room again."""
        self._waiting.add(event)
        try:
            yield
        finally:
            self._waiting.discard(event)
