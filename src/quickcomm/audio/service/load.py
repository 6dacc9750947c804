"""How far speech-to-text is behind as a whole, in four levels, and since when a line's utterances count as said."""

import math
from typing import Final

from quickcomm.audio.ports import Effort

LIMITS_S: Final = (0.5, 1.0, 5.0)
"""A level is reached when the oldest waiting utterance waits for longer than this."""
CALM_S: Final = 2.0
"""A level is left when the oldest waits for less than half of its limit for so long."""
REFUSING: Final = 3
"""The level at which no further conversation is taken."""
REFUSING_AT_WORK: Final = 2
"""The same, where the engine has had no pause: by the time that words wait for long, too many have been let in."""
AT_WORK: Final = 0.95
"""Share of its time that the engine works when it has no pause."""
REMEMBERED_S: Final = 5.0
"""Time constant of that share."""
CATCH_UP: Final = 2.0
"""While others wait, a line that sends faster than people speak is served at this many times the pace of speech."""

_EFFORTS: Final = (Effort.FULL, Effort.ONE_OPINION, Effort.LEAST, Effort.LEAST)


class Load:
    """A level with hysteresis: it rises at once, and falls step by step."""

    def __init__(self) -> None:
        self.level = 0
        self._calm_since: float | None = None
        self._full = False
        self._busy = 0.0
        self._share = 0.0
        self._seen_at: float | None = None

    @property
    def effort(self) -> Effort:
        return _EFFORTS[self.level]

    @property
    def refuses(self) -> bool:
        """Whether new conversations are turned away. They are until nothing waits any more."""
        return self._full

    def works(self, busy: float, now: float) -> None:
        """Take in the share of the engine's workers that are at work from now on. `now`: monotonic seconds."""
        if self._seen_at is not None:
            self._share += (self._busy - self._share) * -math.expm1((self._seen_at - now) / REMEMBERED_S)
        self._busy, self._seen_at = busy, now

    def look(self, wait_s: float, now: float) -> None:
        """Take in how long the oldest waiting utterance has waited. `now`: monotonic seconds."""
        self.works(self._busy, now)
        reached = sum(wait_s > limit for limit in LIMITS_S)
        self.level = max(reached, self.level)
        if not self.level or wait_s >= LIMITS_S[self.level - 1] / 2:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= CALM_S:
            self.level -= 1
            self._calm_since = now if self.level else None
        at_work = self.level >= REFUSING_AT_WORK and self._share >= AT_WORK
        self._full = self.level >= REFUSING or at_work or (self._full and self.level > 0)


class Tempo:
    """When a line's utterances count as said, though they come in a burst: a recording, or a radio that was away.

    Without it a file sent at full speed would have the earliest deadlines of all until it is written down.
    """

    def __init__(self) -> None:
        self._at = 0.0
        self._end_s = 0.0

    def ended_at(self, came_at: float, end_s: float, *, waits: bool) -> float:
        """Return the monotonic second at which an utterance counts as said.

        `came_at`: when its last sample came; `end_s`: the place of that in the stream; `waits`: for one before it.
        """
        if waits:
            came_at = max(came_at, self._at + max(0.0, end_s - self._end_s) / CATCH_UP)
        self._at, self._end_s = came_at, end_s
        return came_at
