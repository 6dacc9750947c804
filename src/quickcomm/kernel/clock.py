"""Time, injected. `Clock.now_ns` never jumps: the wall clock is read once and advanced by the monotonic one."""

import time
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int:
        """Nanoseconds since the epoch, never going back while the process lives."""
        ...

    def monotonic(self) -> float:
        """Seconds of a monotonic clock, for deadlines."""
        ...


class SystemClock:
    def __init__(self) -> None:
        self._anchor = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        return self._anchor + time.monotonic_ns()

    def monotonic(self) -> float:
        return time.monotonic()


class FakeClock:
    """A clock that tests move by hand."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._ns = start_ns

    def now_ns(self) -> int:
        return self._ns

    def monotonic(self) -> float:
        return self._ns / 1e9

    def advance(self, seconds: float) -> None:
        self._ns += int(seconds * 1e9)
