"""Token buckets by name, in bounded memory: the name unused for longest is forgotten first."""

from collections import OrderedDict

from quickcomm.kernel.clock import Clock


class TokenBuckets:
    """Each name may take `burst` at once and `rate` a second after that."""

    def __init__(self, clock: Clock, rate: float, burst: float, max_names: int = 4096) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._max_names = max_names
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """0 if a token was there, else the seconds until there is one."""
        now = self._clock.monotonic()
        tokens, since = self._buckets.pop(name, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[name] = (tokens - 1 if wait == 0 else tokens, now)
        if len(self._buckets) > self._max_names:
            self._buckets.popitem(last=False)
        return wait
