"""What was verified just now, in bounded memory: asked again after a second, or, while the store is away, later."""

from collections import OrderedDict
from typing import Final

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.keys.port import Principal

FRESH_S: Final = 1.0
SIZE: Final = 4096


class Answers:
    """By the digest of the secret. `stale_s`: how long one may be used while the store cannot be asked."""

    def __init__(self, clock: Clock, stale_s: float = 0.0) -> None:
        self._clock = clock
        self._stale_s = stale_s
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self.epoch = 0
        """Counts revocations, so that an answer read before one is not remembered after it."""

    def fresh(self, key: bytes) -> Principal | None:
        return self._younger(key, FRESH_S)

    def stale(self, key: bytes) -> Principal | None:
        """For when the store is away."""
        return self._younger(key, self._stale_s)

    def remember(self, key: bytes, principal: Principal, epoch: int) -> Principal:
        """`epoch`: what it was before the store was asked."""
        if epoch == self.epoch:
            self._known.pop(key, None)
            self._known[key] = (self._clock.monotonic(), principal)
            if len(self._known) > SIZE:
                self._known.popitem(last=False)
        return principal

    def forget(self, key: bytes) -> None:
        """It was closed."""
        self.epoch += 1
        self._known.pop(key, None)

    def drop(self, key: bytes) -> None:
        """The store does not know it."""
        self._known.pop(key, None)

    def forget_key(self, key_id: str) -> None:
        """It was revoked, and its sessions with it."""
        self.epoch += 1
        for key in [key for key, (_, principal) in self._known.items() if principal.key_id == key_id]:
            del self._known[key]

    def _younger(self, key: bytes, age_s: float) -> Principal | None:
        entry = self._known.get(key)
        return entry[1] if entry is not None and self._clock.monotonic() < entry[0] + age_s else None
