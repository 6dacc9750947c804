"""Real speech for tests: from QUICKCOMM_SPEECH_DATA where it is set."""

import json
import os
from functools import cache
from math import gcd
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from scipy.signal import resample_poly

Int16 = npt.NDArray[np.int16]
ROOT = os.environ.get("QUICKCOMM_SPEECH_DATA")


def require_speech() -> Path:
    """The folder of real speech; without it the test says plainly that it is skipped."""
    if not ROOT:
        pytest.skip("needs real speech: set QUICKCOMM_SPEECH_DATA to a folder with manifest.jsonl")
    return Path(ROOT)


@cache
def recordings() -> list[tuple[str, str]]:
    """(file, reference text) of every recording."""
    lines = (require_speech() / "manifest.jsonl").read_text().splitlines()
    return [(row["file"], row["text"]) for row in map(json.loads, lines)]


@cache
def load(file: str, rate: int = 16_000) -> Int16:
    """int16[n], mono at `rate`."""
    samples, own = soundfile.read(require_speech() / file, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if own != rate:
        factor = gcd(rate, own)
        mono = resample_poly(mono, rate // factor, own // factor)
    whole: Int16 = np.clip(np.rint(mono * 32767), -32768, 32767).astype(np.int16)
    return whole


def talk(rate: int = 16_000, seconds: float | None = None) -> Int16:
    """All recordings one after the other with short pauses, optionally cut."""
    pause = np.zeros(int(0.9 * rate), np.int16)
    parts = [part for file, _ in recordings() for part in (load(file, rate), pause)]
    whole = np.concatenate(parts)
    return whole if seconds is None else whole[: int(seconds * rate)]
