"""Whether a client has stopped sending: a push-to-talk gateway sends nothing between transmissions."""

from typing import Final

from quickcomm.kernel.clock import Clock

STOPPED_AFTER_S: Final = 1.0
SLOWEST: Final = 0.8
"""Seconds of sound a second that are still live."""


class Pace:
    """Of one conversation, over the sound since the client last stopped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = self._came = clock.monotonic()
        self._sound_s = self._last_s = 0.0

    def came(self, seconds: float) -> None:
        """So much sound, or declared gap, came in."""
        now = self._clock.monotonic()
        if self.stopped or not self._sound_s:
            self._began, self._sound_s = now, 0.0
        self._came = now
        self._sound_s += seconds
        self._last_s = min(seconds, 1.0)

    @property
    def stopped(self) -> bool:
        """Whether the next message is overdue by a second, from one who sends as people speak.

        One who was faster may be silent for as long as his sound lasts. One who is slower pauses all the time.
        """
        slow = self._came - self._began > self._sound_s / SLOWEST + STOPPED_AFTER_S
        due = max(self._came + self._last_s, self._began + self._sound_s)
        return not slow and self._clock.monotonic() >= due + STOPPED_AFTER_S
