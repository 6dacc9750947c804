"""Radio talk with labels that the demo shift does not have: what `benchmarks.radio` scores. Made by tools/radio_set."""

from functools import cache
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile

FOLDER: Final = Path(__file__).parent
RATE: Final = 16_000
Half = Literal["tuning", "checking"]
Wave = npt.NDArray[np.float64]


class Sentence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`start`, `end`: first and last word in the file, in samples. `text`: as people would write it."""

    text: str
    rooms: tuple[str, ...]
    half: Half
    voice: str
    start: int
    end: int


class RadioSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    licence: str
    attribution: tuple[str, ...]
    sentences: tuple[Sentence, ...]


@cache
def load_set() -> RadioSet:
    return msgspec.json.decode((FOLDER / "labels.json").read_bytes(), type=RadioSet)


@cache
def _sound() -> Wave:
    sound, rate = soundfile.read(FOLDER / "clean.opus", dtype="float64")
    assert rate == RATE, "libsndfile gives Opus back at the rate it was written with"
    return np.asarray(sound)


def speech(sentence: Sentence) -> Wave:
    """Return the sentence as spoken, without noise and without silence around it: float64[n], 16 kHz."""
    return _sound()[sentence.start : sentence.end].copy()
