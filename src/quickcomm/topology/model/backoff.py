"""How long to wait before a process that ended is started again: twice as long each time, until it lives for long."""

from typing import Final

FIRST_S: Final = 0.25
LONGEST_S: Final = 8.0
"""With the start itself shorter than `audio.answer_wait_s`: who is killed often is not away for longer than that."""
LIVED_S: Final = 10.0
"""Who lived for so long is started again at once, the next time, too."""


class Backoff:
    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S, lived_s: float = LIVED_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._lived_s = lived_s
        self._next_s = first_s

    def after(self, lived_s: float) -> float:
        """Seconds to wait, given how long it lived."""
        if lived_s >= self._lived_s:
            self._next_s = self._first_s
        now_s = self._next_s
        self._next_s = min(2 * now_s, self._longest_s)
        return now_s
