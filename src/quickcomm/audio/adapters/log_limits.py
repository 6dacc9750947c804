"""How much of the log of an open conversation a session store keeps."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from quickcomm.audio.model.checkpoint import Checkpoint

_PLACE: Final = re.compile(r":(\d+):(\d+)$")


class LogLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The last one to two `seconds` are kept, at most about `events`.

    A client that comes back has missed moments, and one that stays away ends its conversation. Kept beyond that is
    what may be published again: utterances that begin less than `margin` samples before the stored checkpoint.
    """

    seconds: int = 3_600
    events: int = 1_000
    margin: int = 48_000

    def arguments(self) -> tuple[int, int, int]:
        """Return them as the scripts take them."""
        return self.seconds * 1_000_000_000, self.events, self.margin


def settled(utterance_id: str, checkpoints: Sequence[Checkpoint], margin: int) -> bool:
    """Return whether the checkpoint is so far behind the utterance's start that no restart brings it again."""
    place = _PLACE.search(utterance_id)
    if place is None or int(place[1]) >= len(checkpoints):
        return False
    return int(place[2]) + margin < checkpoints[int(place[1])].offset
