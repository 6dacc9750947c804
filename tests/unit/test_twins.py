"""Two tracks with one sound are told; silence, bleeding and a second speaker are not."""

import numpy as np
import pytest

from quickcomm.audio.model.formats import Int16
from quickcomm.audio.model.twins import ENOUGH_S, Twins

RATE = 16_000
BLOCK = 1_600


def noise(seed: int, peak: int = 8_000) -> Int16:
    return np.random.default_rng(seed).integers(-peak, peak, int((ENOUGH_S + 1) * RATE), dtype=np.int16)


def told(left: Int16, right: Int16, *, speakers: int = 2) -> tuple[int, bool]:
    """How often it was told, and what holds at the end."""
    twins = Twins(RATE, speakers)
    blocks = range(0, len(left), BLOCK)
    tracks = [left, right][:speakers]
    return sum(twins.compare([track[at : at + BLOCK] for track in tracks]) for at in blocks), twins.same


def test_the_same_sound_is_told_once() -> None:
    assert told(noise(1), noise(1)) == (1, True)


def test_a_codec_may_change_a_little() -> None:
    changed = noise(1) + np.random.default_rng(2).integers(-60, 60, len(noise(1)), dtype=np.int16)
    assert told(noise(1), changed) == (1, True)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (noise(1), noise(2)),
        (noise(1), noise(1) // 4),
        (noise(1), np.roll(noise(1), 640)),
        (noise(1), np.zeros_like(noise(1))),
        (noise(1, 100), noise(1, 100)),
    ],
    ids=["two speakers", "bleeding", "later", "one silent", "both silent"],
)
def test_other_tracks_are_not(left: Int16, right: Int16) -> None:
    assert told(left, right) == (0, False)


def test_a_second_speaker_later_on_ends_it() -> None:
    twins = Twins(RATE, 2)
    for at in range(0, len(noise(1)), BLOCK):
        twins.compare([noise(1)[at : at + BLOCK]] * 2)
    assert twins.same
    twins.compare([noise(1)[:BLOCK], noise(2)[:BLOCK]])
    assert not twins.same


def test_one_speaker_is_never_compared() -> None:
    assert told(noise(1), noise(1), speakers=1) == (0, False)


def test_an_empty_block_is_no_news() -> None:
    assert not Twins(RATE, 2).compare([noise(1)[:0], noise(1)[:0]])
