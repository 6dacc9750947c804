"""Bounds by which a gate decides: each holds with the stated confidence, for few samples, too.

Wilson (1927), "Probable inference"; Newcombe (1998), "Interval estimation for the difference between independent
proportions", method 10; order statistics: David and Nagaraja (2003), "Order Statistics", 7.1.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Final

from scipy.special import bdtr

MOST_SAMPLES: Final = 1 << 24
Interval = tuple[float, float]


def z_of(confidence: float) -> float:
    """Return the normal quantile of a one-sided bound: 1.645 for 0.95."""
    return NormalDist().inv_cdf(confidence)


def wilson(n: float, of: float, confidence: float) -> Interval:
    """Return the bounds of a proportion `n / of`, each one-sided with this confidence. Of nothing: 0 and 1."""
    if not of:
        return 0.0, 1.0
    z, p = z_of(confidence), n / of
    middle = p + z * z / (2 * of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def at_most(n: int, of: int, share: float) -> float:
    """Return how probable it is that at most `n` of so many are, where each is with the probability `share`."""
    return sum(math.comb(of, each) * share**each * (1 - share) ** (of - each) for each in range(n + 1))


def difference(ours: tuple[float, float], theirs: tuple[float, float], confidence: float) -> Interval:
    """Return the bounds of a difference of proportions (n, of), the first less the second: Newcombe's hybrid score."""
    (n1, of1), (n2, of2) = ours, theirs
    if not of1 or not of2:
        return -1.0, 1.0
    p1, p2 = n1 / of1, n2 / of2
    low1, high1 = wilson(n1, of1, confidence)
    low2, high2 = wilson(n2, of2, confidence)
    return (
        p1 - p2 - math.hypot(p1 - low1, high2 - p2),
        p1 - p2 + math.hypot(high1 - p1, p2 - low2),
    )


def quantile_bounds(samples: Sequence[float], q: float, confidence: float) -> Interval:
    """Return bounds of the quantile `q` of what the samples are from, whatever its distribution; infinite if too few.

    The k-th smallest of n samples is below the quantile with at least the probability P(Bin(n, q) ≥ k).
    """
    ordered, n = sorted(samples), len(samples)
    if not n:
        return -math.inf, math.inf
    above = _binomial(confidence, n, q) + 1  # smallest k with P(Bin(n, q) < k) ≥ confidence
    below = _binomial(1 - confidence, n, q)  # P(Bin(n, q) ≥ k) ≥ confidence for all k up to this
    low = ordered[below - 1] if below >= 1 else -math.inf
    high = ordered[above - 1] if above <= n else math.inf
    return low, high


def _binomial(confidence: float, n: int, q: float) -> int:
    """Return the smallest k with P(Bin(n, q) ≤ k) ≥ confidence."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if bdtr(middle, n, q) >= confidence else (middle + 1, high)
    return high


def fewest_for_quantile(q: float, confidence: float) -> int:
    """Return the number of samples from which the quantile `q` has an upper bound at all: 59 for 0.95 and 0.95."""
    return math.ceil(math.log(1 - confidence) / math.log(q))


def fewest(passes: Callable[[int], bool], at_least: int = 1) -> int | None:
    """Return about how many samples it takes until `passes`; None where no number does."""
    low = high = max(1, at_least)
    while not passes(high):
        low, high = high, high * 2
        if high > MOST_SAMPLES:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle + 1, high)
    return high
