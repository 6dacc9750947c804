"""Load of speech-to-text: the level of what waits, the demand of live conversations, the pace of a burst."""

from typing import Final

from quickcomm.audio.ports import Effort

LIMITS_S: Final = (0.5, 1.0, 5.0)
"""A level is reached when the oldest waiting utterance waits for longer than this."""
CALM_S: Final = 2.0
"""A level is left when the oldest waits for less than half of its limit for so long."""
REFUSING: Final = 3
"""The level at which no further conversation is taken."""
BUSY: Final = 0.6
"""The share of the engine from which on optional work is left out before any speech is late."""
SPARE: Final = 0.4
"""The share below which it is done again; what it costs lies between the two, so that they do not alternate."""
FULL: Final = 0.85
"""The share of the engine from which on no further conversation is taken."""
FULL_BATCH: Final = 3
"""Clips in a batch from which its cost counts: single clips cost more, and are decoded where the engine has time."""
COST_OVER_S: Final = 60.0
SHARE_OVER_S: Final = 5.0
CATCH_UP: Final = 2.0
"""While others wait, a line that sends faster than people speak is served at this many times the pace of speech."""

_EFFORTS: Final = (Effort.FULL, Effort.ONE_OPINION, Effort.LEAST, Effort.LEAST)


class Demand:
    """The share of the engine that live conversations ask for, known before any of their words is late.

    Seconds of work for a second of speech, times the share of present voices that speak, times all that are present:
    one that came just now is taken to speak as much as the others do.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._cost: float | None = None
        self._share = 0.0
        self._looked_at: float | None = None
        self.of_engine = 0.0
        """1.0 is all of it. 0 until a full batch has shown what speech costs."""
        self.busy = False
        """From `BUSY` on, until it is below `SPARE`."""

    def decoded(self, clips: int, speech_s: float, work_s: float) -> None:
        """Take in a batch: seconds of speech, and the seconds one worker took for it."""
        if clips < FULL_BATCH or not speech_s:
            return
        found = work_s / speech_s
        weight = min(1.0, speech_s / COST_OVER_S)
        self._cost = found if self._cost is None else self._cost + weight * (found - self._cost)

    def look(self, speaking: int, present: int, now: float) -> None:
        """Take in how many of the voices present speak at `now`, in monotonic seconds."""
        found = speaking / present if present else 0.0
        passed = SHARE_OVER_S if self._looked_at is None else now - self._looked_at
        self._share += min(1.0, passed / SHARE_OVER_S) * (found - self._share)
        self._looked_at = now
        self.of_engine = (self._cost or 0.0) * self._share * present / self._workers
        self.busy = self.of_engine > (SPARE if self.busy else BUSY)


class Load:
    """A level with hysteresis: it rises at once, and falls step by step."""

    def __init__(self, workers: int = 1) -> None:
        self.level = 0
        self.demand = Demand(workers)
        self._calm_since: float | None = None

    @property
    def effort(self) -> Effort:
        return max(_EFFORTS[self.level], Effort.LEAST if self.demand.busy else Effort.FULL)

    @property
    def calm(self) -> bool:
        """Return True if the engine has time for guesses."""
        return not self.level and not self.demand.busy

    @property
    def refuses(self) -> bool:
        """Whether new conversations are turned away."""
        return self.level >= REFUSING or self.demand.of_engine > FULL

    def look(self, wait_s: float, now: float) -> None:
        """Take in how long the oldest waiting utterance has waited. `now`: monotonic seconds."""
        reached = sum(wait_s > limit for limit in LIMITS_S)
        self.level = max(reached, self.level)
        if not self.level or wait_s >= LIMITS_S[self.level - 1] / 2:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= CALM_S:
            self.level -= 1
            self._calm_since = now if self.level else None


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
