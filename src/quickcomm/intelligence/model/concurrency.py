"""How many calls an endpoint takes at once, learnt from its latency and its refusals. Pure.

The algorithm is `Gradient2Limit` of Netflix's concurrency-limits (github.com/Netflix/concurrency-limits), with the
multiplicative decrease of its `AIMDLimit` for refusals and timeouts: while recent latency stays near the long-term one,
the limit grows by the square root of itself; where it rises, calls are queueing over there, and the limit shrinks.
"""

import math
from typing import Final

TOLERANCE: Final = 1.5
"""Recent latency may be so many times the long-term one before it counts as queueing."""
SMOOTHING: Final = 0.2
SHORT: Final = 10
LONG: Final = 300
"""Samples in the recent and in the long-term mean of latency."""
BACKOFF: Final = 0.75
RECOVERY: Final = 0.95


class Limit:
    """Always between `low` and `high`."""

    def __init__(self, low: int, high: int, initial: int) -> None:
        self._low = low
        self._high = max(low, high)
        self._limit = float(min(max(initial, low), self._high))
        self._short = 0.0
        self._long = 0.0
        self._not_again_before = -math.inf

    @property
    def value(self) -> int:
        return int(self._limit)

    @property
    def latency(self) -> float:
        """Seconds that a call takes lately; 0 while nothing is known."""
        return self._short

    def answered(self, seconds: float, in_flight: int) -> None:
        """A call took `seconds`; `in_flight`, itself included, were under way when it ended."""
        self._short = _mean(self._short, seconds, SHORT)
        self._long = _mean(self._long, seconds, LONG)
        if self._long > 2 * self._short:
            self._long *= RECOVERY  # a slow time is over: do not take ages to forget it
        gradient = max(0.5, min(1.0, TOLERANCE * self._long / max(self._short, 1e-9)))
        if gradient == 1.0 and in_flight * 2 < self._limit:
            return  # what is not used proves nothing
        wanted = self._limit * gradient + math.sqrt(self._limit)
        self._set(self._limit * (1 - SMOOTHING) + wanted * SMOOTHING)

    def refused(self, now_s: float) -> None:
        """The endpoint said that it is too much, or let a call time out. Counts once in the time that a call takes."""
        if now_s >= self._not_again_before:
            self._set(self._limit * BACKOFF)
            self._not_again_before = now_s + self._short

    def _set(self, limit: float) -> None:
        self._limit = min(max(limit, float(self._low)), float(self._high))


def _mean(mean: float, sample: float, samples: int) -> float:
    """Exponential mean over about so many samples; the first sample is the mean."""
    return sample if mean == 0.0 else mean + (sample - mean) * 2 / (samples + 1)
