"""Tells whether two tracks of a conversation carry the same sound: a mono source sent as two speakers."""

from collections.abc import Sequence
from typing import Final

from quickcomm.audio.model.formats import Int16

ENOUGH_S: Final = 3.0
"""So much sound must be the same before it is told."""
_SOUND: Final = 330
"""The peak of a block that is sound and not silence, which is alike on any two lines: -40 dBFS."""
_CLOSENESS: Final = 64
"""Two tracks are the same where they differ by at most this part of the peak; codecs change a little."""


class Twins:
    """Compares the tracks of one conversation until they differ. For the first two; more are not compared."""

    def __init__(self, sample_rate: int, speakers: int) -> None:
        self._enough = int(ENOUGH_S * sample_rate)
        self._alike = 0
        self._differ = speakers < len("LR")

    @property
    def same(self) -> bool:
        """Whether all sound so far was the same, and there was enough of it."""
        return not self._differ and self._alike >= self._enough

    def compare(self, tracks: Sequence[Int16]) -> bool:
        """Take a block of each track, int16[n]; return True once, where it is now known that they are the same."""
        if self._differ:
            return False
        left, right = (track.astype("i4") for track in tracks[:2])
        peak = int(max(abs(left).max(initial=0), abs(right).max(initial=0)))
        if peak < _SOUND:
            return False
        known = self.same
        self._differ = int(abs(left - right).max(initial=0)) > peak // _CLOSENESS
        self._alike += len(left)
        return self.same and not known
