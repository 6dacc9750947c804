"""A recorded shift with labels: what `quickcomm demo` plays, and what its results are scored against."""

from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

from quickcomm.contracts.insight import Item, Urgency


class ExpectedInsight(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing asked, as a person labelled it by the outer contract."""

    intent: str
    department: str
    urgency: Urgency
    rooms: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()


class ShiftUtterance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`start_s`, `end_s`: first and last word, seconds from the start of the file. `text`: as people would write it."""

    start_s: float
    end_s: float
    voice: str
    speaker_name: str
    text: str
    insights: tuple[ExpectedInsight, ...]
    noisy: bool = False


class ShiftChannel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A radio channel: one FLAC file (16 kHz mono), its utterances in the order spoken."""

    channel: str
    file: str
    utterances: tuple[ShiftUtterance, ...]


class Shift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All files start at the same moment and last `duration_s`."""

    title: str
    duration_s: float
    licence: str
    attribution: tuple[str, ...]
    channels: tuple[ShiftChannel, ...]

    @property
    def utterances(self) -> int:
        return sum(len(channel.utterances) for channel in self.channels)


def load_shift() -> Shift:
    return msgspec.json.decode((files(__package__) / "shift.json").read_bytes(), type=Shift)


def audio_file(channel: ShiftChannel) -> Traversable:
    """Where a channel's recording is; `importlib.resources.as_file` gives a path."""
    return files(__package__) / channel.file
