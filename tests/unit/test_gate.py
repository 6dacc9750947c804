"""The energy gate: noise is learnt, speech goes through."""

import numpy as np

from quickcomm.audio.model.gate import HANG_FRAMES, INITIAL_FLOOR, Floats, gate, learn

NOISE = np.float32(1e-5)


def frames_through(seconds: float, probability: float) -> int:
    """How many frames of steady noise go to the voice activity model, which answers each with `probability`."""
    floor, hang = np.array([INITIAL_FLOOR]), np.zeros(1, np.int32)
    through = 0
    chance = np.random.default_rng(1)
    for _ in range(round(seconds / 0.032)):
        energy: Floats = (NOISE * chance.normal(1, 0.08, 1)).astype(np.float32)
        opened, floor, hang = gate(energy, floor, hang)
        if opened[0]:
            through += 1
            floor = learn(energy, floor, np.array([probability], np.float32))
    return through


def test_noise_that_is_surely_no_voice_is_learnt_in_two_seconds() -> None:
    assert frames_through(20, 0.001) * 0.032 < 2.5 + HANG_FRAMES * 0.032


def test_what_may_be_voice_is_not_learnt_as_noise() -> None:
    assert frames_through(20, 0.2) > 1.8 * frames_through(20, 0.001)
    loud, floor = np.array([1e-3], np.float32), np.array([1e-6], np.float32)
    assert learn(loud, floor, np.array([0.5], np.float32)) == floor


def test_learning_never_lowers_a_floor_nor_shuts_out_what_is_louder_than_the_noise() -> None:
    energy, floor = np.full(3, NOISE), np.array([1e-7, 4e-6, 1e-4], np.float32)
    for _ in range(1_000):
        floor_after = learn(energy, floor, np.zeros(3, np.float32))
        assert (floor_after >= floor).all()
        floor = floor_after
    opened, _, _ = gate(np.full(3, 2 * NOISE, np.float32), floor, np.zeros(3, np.int32))
    assert opened.tolist() == [True, True, False]


def test_the_floor_of_a_sound_that_has_stopped_is_forgotten() -> None:
    """A paging tone is learnt as noise; the words glued to it are far below it."""
    tone, words = np.array([0.12], np.float32), np.array([0.004], np.float32)
    floor, hang = np.array([INITIAL_FLOOR]), np.zeros(1, np.int32)
    for _ in range(120):
        opened, floor, hang = gate(tone, floor, hang)
        floor = learn(tone, floor, np.zeros(1, np.float32)) if opened[0] else floor
    assert not opened[0]
    for _ in range(2):
        opened, floor, hang = gate(words, floor, hang)
    assert opened[0]


def test_a_dip_of_the_noise_does_not_open_the_gate() -> None:
    floor, hang = np.array([0.4 * NOISE], np.float32), np.zeros(1, np.int32)
    for energy in (1.0, 0.3, 1.0, 0.2, 1.0):
        opened, floor, hang = gate(np.array([energy * NOISE], np.float32), floor, hang)
        assert not opened[0]
