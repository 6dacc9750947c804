"""What an engine is given of a talker's stream: its recordings, none longer than an engine takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.talkers import RATE, Int16, Talk

LONGEST: Final = 28 * RATE


@dataclass(frozen=True, slots=True)
class Piece:
    """What is decoded at once; `recording`: whose text it belongs to, `start`: where in its stream."""

    samples: Int16
    recording: int
    start: int


def pieces(talks: Sequence[Talk]) -> list[Piece]:
    """The recordings of all talks; those too long for the engine are cut where they are quietest."""
    found: list[Piece] = []
    said = [(talk.samples, start, end) for talk in talks for start, end, _ in talk.said]
    for number, (samples, start, end) in enumerate(said):
        while end - start > LONGEST:
            half = start + LONGEST // 2
            loud = np.abs(samples[half : start + LONGEST].astype(np.float32)).reshape(-1, RATE // 10).mean(axis=1)
            cut = half + int(loud.argmin()) * (RATE // 10) + RATE // 20
            found.append(Piece(samples[start:cut], number, start))
            start = cut  # noqa: PLW2901 - goes on with the rest
        found.append(Piece(samples[start:end], number, start))
    return found


def speech_seconds(talks: Sequence[Talk]) -> float:
    return sum(end - start for one in talks for start, end, _ in one.said) / RATE


def stream_seconds(talks: Sequence[Talk]) -> float:
    """Up to the end of the last recording that is whole: the rest is not decoded."""
    return sum(one.said[-1][1] for one in talks if one.said) / RATE
