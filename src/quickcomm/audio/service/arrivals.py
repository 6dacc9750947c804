"""When samples came in, and when they were said: sound that was held up on its way keeps its own time.

The *origin* of a sample is the time at which sample 0 would have been said, had the stream not paused in between. A
stream in real time has one origin; a pause without sound moves it later, and nothing moves it back. No sample arrives
before it is said, so that an arrival bounds the origin of everything before it: the earliest bound counts. A burst
after a cut is dated by its end in this way, where the stream has caught up with real time.
"""

from bisect import bisect_left
from collections import deque
from typing import Final

import msgspec

NS: Final = 1_000_000_000
MAX_ARRIVALS: Final = 8_192
LATE_NS: Final = 2 * NS
"""Sound that is at most so late came at once, in a message of its length over an ordinary network."""
FINE_NS: Final = NS // 20
STEADY_NS: Final = 30 * NS
"""A stream that kept its origin for so long is taken to send without pauses."""
SETTLED_NS: Final = 60 * NS
OLDEST_NS: Final = 7 * 24 * 3_600 * NS
"""Times that a client tells are not taken where they lie further back."""


class _Stall(msgspec.Struct):
    """A steady stream comes later than before: its sound was held up, or it paused for the first time."""

    offset: int
    began_ns: int
    first: int
    lowest: int
    """Origins that the arrivals since then would have."""


class Arrivals:
    """Bounded, the oldest go first.

    `received`: samples that are here already. `origin_ns`: of a steady stream that another process has heard, else 0.
    """

    def __init__(self, rate: int, now_ns: int, received: int = 0, origin_ns: int = 0) -> None:
        self._rate = rate
        self._offsets: deque[int] = deque(maxlen=MAX_ARRIVALS)
        self._times: deque[int] = deque(maxlen=MAX_ARRIVALS)
        self._starts: list[int] = []
        self._origins: list[int] = []
        self._received = received
        self._told: int | None = None
        self._least = origin_ns or now_ns - self._ns(received)
        """No live sound has an earlier origin. What has is taken for a recording, until it comes in real time."""
        self._base = origin_ns
        self._base_since = now_ns - STEADY_NS if origin_ns else now_ns
        self._lowest, self._period_ns = self._base, self._base_since
        self._last_ns = now_ns
        self._pauses = False
        self._stall: _Stall | None = None

    @property
    def steady_origin(self) -> int:
        """The origin of a stream that sends without pauses; 0 where it is not known to be one."""
        return self._base if not self._pauses and self._last_ns - self._base_since >= STEADY_NS else 0

    def connected(self) -> None:
        """A new connection: its client may be one that tells no times."""
        self._told = None

    def tell(self, offset: int, at_ns: int, now_ns: int) -> None:
        """The client says when the sample at `offset` was said; holds until it says so again."""
        if at_ns > now_ns - OLDEST_NS:
            self._told = min(at_ns, now_ns) - self._ns(offset)

    def add(self, received: int, now_ns: int) -> None:
        """Everything before sample `received` is here."""
        origin = now_ns - self._ns(received)
        if self._told is not None and origin < self._told - LATE_NS:
            self._told = None  # it came before it was said
        if self._told is None:
            self._judge(origin, now_ns)
        else:
            origin = min(origin, self._told)
        self._mark(origin)
        self._received, self._last_ns = received, now_ns
        self._offsets.append(received)
        self._times.append(now_ns)

    def forget(self, before: int) -> None:
        while len(self._offsets) > 1 and self._offsets[1] <= before:
            self._offsets.popleft()
            self._times.popleft()
        passed = bisect_left(self._starts, before) - 1
        if passed > 0:
            del self._starts[:passed], self._origins[:passed]

    def at(self, offset: int, default_ns: int) -> int:
        """When the sample before `offset` came in."""
        index = bisect_left(self._offsets, offset)
        return self._times[index] if index < len(self._times) else default_ns

    def said(self, offset: int, default_ns: int) -> int:
        """When the sample before `offset` was said: never later than it came in, and then only where that was late."""
        came = self.at(offset, default_ns)
        index = bisect_left(self._starts, offset) - 1
        if index < 0:
            return came
        origin, stall = self._origins[index], self._stall
        if stall is not None and offset > stall.offset and stall.first - stall.lowest > NS:
            origin = min(origin, self._base)  # it comes faster than it is spoken, and has not caught up yet
        said = origin + self._ns(offset)
        return said if LATE_NS < came - said < OLDEST_NS else came

    def _ns(self, samples: int) -> int:
        return samples * NS // self._rate

    def _mark(self, origin: int) -> None:
        """Note the origin of what has just come; what came before it has no later one."""
        start = self._received
        if self._told is not None or origin >= self._least - LATE_NS:
            while self._origins and self._origins[-1] >= origin:
                self._origins.pop()
                start = self._starts.pop()
        if self._origins and 0 <= origin - self._origins[-1] <= FINE_NS:
            return
        self._starts.append(start)
        self._origins.append(origin)
        if len(self._starts) > MAX_ARRIVALS:
            del self._starts[0], self._origins[0]

    def _judge(self, origin: int, now_ns: int) -> None:
        """Follow the origin of a stream whose client tells no times."""
        stall = self._stall
        if origin <= self._base + LATE_NS:
            self._stall = None
            if origin < self._base - NS:
                self._base_since = now_ns
            self._base, self._lowest = min(self._base, origin), min(self._lowest, origin)
            if now_ns - self._period_ns >= STEADY_NS:  # the clock of a sound card goes its own way
                self._base, self._lowest, self._period_ns = self._lowest, origin, now_ns
            if now_ns - self._base_since >= STEADY_NS:
                self._least = min(self._least, self._base)
        elif stall is not None:
            stall.lowest = min(stall.lowest, origin)
            if now_ns - stall.began_ns > SETTLED_NS:
                self._paused(origin, now_ns)
        elif self.steady_origin:
            self._stall = _Stall(offset=self._received, began_ns=now_ns, first=origin, lowest=origin)
        else:
            self._paused(origin, now_ns)

    def _paused(self, origin: int, now_ns: int) -> None:
        self._pauses |= self._base > 0
        self._base, self._base_since, self._stall = origin, now_ns, None
        self._lowest, self._period_ns = origin, now_ns
