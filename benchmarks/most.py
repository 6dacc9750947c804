"""The most that a side can bear, found by measurements that are noisy.

Upwards in steps to the first number that fails, then between the last good one and that. A number is measured twice;
where the two do not agree, a third time, and two of three count. Two other figures say how far the noise goes: up to
where nothing ever failed, and up to where something once went well.
"""

from collections import defaultdict
from collections.abc import Callable


class Search:
    """`next` says what to measure; `note` what came of it."""

    def __init__(self, first: int, step: int, finest: int, runs: int = 2, most_runs: int = 24) -> None:
        """`finest`: so near together need the last good and the first bad number be. `runs`: of each, 1 or 2."""
        self._first = first
        self._step = step
        self._finest = finest
        self._runs = runs
        self._left = most_runs
        self._noted: defaultdict[int, list[bool]] = defaultdict(list)

    def note(self, number: int, well: bool) -> None:  # noqa: FBT001 - what was measured
        self._left -= 1
        self._noted[number].append(well)

    def next(self) -> int | None:
        """None: it is found, or there have been enough."""
        if self._left <= 0:
            return None
        for number, noted in self._noted.items():
            if noted and self._verdict(number) is None:
                return number
        return self._another()

    @property
    def most(self) -> int:
        """By two of three. 0: none."""
        return self._below(lambda number: self._verdict(number) is True)

    @property
    def surely(self) -> int:
        """Up to here every single measurement went well."""
        return self._below(lambda number: self._verdict(number) is True and all(self._noted[number]))

    @property
    def perhaps(self) -> int:
        """Here a measurement went well, whatever the others did."""
        return max((number for number, noted in self._noted.items() if any(noted)), default=0)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _verdict(self, number: int) -> bool | None:
        noted = self._noted[number]
        well, ill = noted.count(True), noted.count(False)
        if well >= self._runs or ill >= self._runs:
            return well >= self._runs
        return None

    def _below(self, holds: Callable[[int], bool]) -> int:
        """The highest for which it holds, as for all that were measured below it."""
        best = 0
        for number in sorted(self._noted):
            if not holds(number):
                break
            best = number
        return best

    def _another(self) -> int | None:
        decided = {number: self._verdict(number) for number in self._noted}
        bad = min((number for number, well in decided.items() if well is False), default=None)
        good = max((number for number, well in decided.items() if well and (bad is None or number < bad)), default=None)
        if bad is None:
            return self._first if good is None else good + self._step
        if good is None:
            lower = max(0, bad - self._step)
            return lower or (bad // 2 if bad > self._finest else None) or None
        if bad - good <= self._finest:
            return None
        half = (bad - good) // 2
        return good + max(self._finest, half - half % self._finest)
