"""Time, injected: what time it is, pauses and time limits.

`Clock.now_ns` never jumps: the wall clock is read once and advanced by the monotonic one.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int:
        """Nanoseconds since the epoch, never going back while the process lives."""
        ...

    def monotonic(self) -> float:
        """Seconds of a monotonic clock, for deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pause this task, as `asyncio.sleep` does."""
        ...

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Limit the time of a block, as `asyncio.timeout` does; None: no limit."""
        ...


class _Waiting:
    """Pauses and time limits, in real time. `pauses`, `limits`: their length as a share of what is asked for."""

    def __init__(self, pauses: float, limits: float) -> None:
        self.pauses = pauses
        self.limits = limits

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.pauses)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        return asyncio.timeout(None if seconds is None else seconds * self.limits)


class SystemClock(_Waiting):
    """The machine's clock. Tests that must not wait pass `pauses` or `limits` below 1."""

    def __init__(self, *, pauses: float = 1.0, limits: float = 1.0) -> None:
        super().__init__(pauses, limits)
        self._anchor = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        return self._anchor + time.monotonic_ns()

    def monotonic(self) -> float:
        return time.monotonic()


class FakeClock(_Waiting):
    """A clock that tests move by hand. Pauses and time limits do not follow it."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000, *, pauses: float = 1.0, limits: float = 1.0) -> None:
        super().__init__(pauses, limits)
        self._ns = start_ns

    def now_ns(self) -> int:
        return self._ns

    def monotonic(self) -> float:
        return self._ns / 1e9

    def advance(self, seconds: float) -> None:
        self._ns += int(seconds * 1e9)
