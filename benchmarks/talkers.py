"""Streams of real speech for load: a talker each, from the recordings of QUICKCOMM_SPEECH_DATA.

A talker says all recordings in an order of its own with short pauses between them, again and again: int16[n], 16 kHz.
Nobody starts at the same word, so that utterances end at all times, as they do in earnest.
"""

import json
import os
from dataclasses import dataclass
from functools import cache
from math import gcd
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soundfile
from scipy.signal import resample_poly

RATE: Final = 16_000
PAUSE_S: Final = (0.7, 1.3)
Int16 = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Recording:
    """One file of the manifest at 16 kHz, with what is said in it."""

    samples: Int16
    text: str


@dataclass(frozen=True, slots=True)
class Talk:
    """A talker's stream, and the recordings in it as (first sample, sample behind the last, text)."""

    samples: Int16
    said: tuple[tuple[int, int, str], ...]

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def speech_folder() -> Path:
    """Raises `SystemExit` with what to do where there is no speech."""
    folder = os.environ.get("QUICKCOMM_SPEECH_DATA")
    if not folder:
        raise SystemExit("skipped: set QUICKCOMM_SPEECH_DATA to a folder of real speech with a manifest.jsonl")
    return Path(folder)


@cache
def recordings() -> tuple[Recording, ...]:
    folder = speech_folder()
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return tuple(Recording(_load(folder / row["file"]), row["text"]) for row in rows)


def talk(talker: int, seconds: float, pause_s: tuple[float, float] = PAUSE_S) -> Talk:
    """The stream of one talker, `seconds` long. The same number gives the same stream.

    `pause_s`: the least and the most between two recordings.
    """
    chance = np.random.default_rng(talker)
    parts: list[Int16] = []
    said: list[tuple[int, int, str]] = []
    at, wanted = 0, round(seconds * RATE)
    while at < wanted:
        for index in chance.permutation(len(recordings())):
            one = recordings()[index]
            pause = np.zeros(round(chance.uniform(*pause_s) * RATE), np.int16)
            said.append((at, at + len(one.samples), one.text))
            parts += [one.samples, pause]
            at += len(one.samples) + len(pause)
    whole = np.concatenate(parts)
    start = int(chance.integers(0, round(2.0 * RATE)))  # a phase of its own
    samples = np.concatenate([np.zeros(start, np.int16), whole])[:wanted]
    inside = [(a + start, b + start, text) for a, b, text in said if b + start <= wanted]
    return Talk(samples, tuple(inside))


def whole(talk: Talk) -> Talk:
    """Silence after the last recording that fits, so that the reference is all that is said."""
    samples = talk.samples.copy()
    samples[talk.said[-1][1] if talk.said else 0 :] = 0
    return Talk(samples, talk.said)


def room_noise(seconds: float, seed: int = 0) -> Int16:
    """A quiet room: brownish noise at about -50 dBFS with a slow swell, as a microphone left open hears it."""
    chance = np.random.default_rng(seed)
    white = chance.standard_normal(round(seconds * RATE))
    spectrum = np.fft.rfft(white)
    frequency = np.fft.rfftfreq(len(white), 1 / RATE)
    spectrum /= np.sqrt(np.maximum(frequency, 80.0) / 80.0)
    wave = np.fft.irfft(spectrum, len(white))
    swell = 1 + 0.3 * np.sin(np.arange(len(wave)) * 2 * np.pi / (7 * RATE))
    wave = wave * swell / np.sqrt(np.mean(wave**2)) * 10 ** (-50 / 20)
    return _int16(wave)


def _load(path: Path) -> Int16:
    sound, own = soundfile.read(path, dtype="float32", always_2d=True)
    mono = sound.mean(axis=1)
    if own != RATE:
        factor = gcd(RATE, own)
        mono = resample_poly(mono, RATE // factor, own // factor)
    return _int16(mono)


def _int16(wave: npt.NDArray[np.floating[Any]]) -> Int16:
    samples: Int16 = np.clip(np.rint(wave * 32767), -32768, 32767).astype(np.int16)
    return samples
