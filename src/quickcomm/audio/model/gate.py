"""Energy gate: a cheap first look at every stream, so that the voice activity model sees only what may be speech.

The noise floor follows dips at once and rises slowly, so that it settles on the quiet between words (a simplified
minimum-statistics tracker after R. Martin, 2001). A floor that was learnt from a sound that has stopped (a paging tone)
is forgotten. All streams are one vector operation.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

INITIAL_FLOOR: Final = np.float32(1e-6)
LOWEST_FLOOR: Final = np.float32(1e-7)
RISE: Final = np.float32(1.006)
FALL: Final = np.float32(0.3)
STOPPED: Final = np.float32(0.25)
"""What falls so far below the floor at once is no dip of the noise: the noise has stopped."""
RATIO: Final = np.float32(4.0)
LEARN: Final = np.float32(0.02)
LEARN_UP_TO: Final = np.float32(0.4)
SURELY_NO_VOICE: Final = np.float32(0.03)
HANG_FRAMES: Final = 12


def energies(frames: Floats) -> Floats:
    """Mean square of each row. frames: float32[n, samples] in -1 … 1."""
    power: Floats = np.einsum("ij,ij->i", frames, frames, dtype=np.float32)
    return power / np.float32(frames.shape[1])


def gate(energy: Floats, floor: Floats, hang: Ints) -> tuple[npt.NDArray[np.bool_], Floats, Ints]:
    """Which streams may hold speech, and the new floors and hang counters. All arrays have shape [n]."""
    loud = energy > np.maximum(floor, LOWEST_FLOOR) * RATIO
    hang = np.where(loud, np.int32(HANG_FRAMES), np.maximum(hang - 1, 0)).astype(np.int32)
    dipped = floor + FALL * (energy - floor)
    dipped = np.where(energy < floor * STOPPED, np.minimum(dipped, INITIAL_FLOOR), dipped)
    floor = np.where(energy < floor, dipped, floor * RISE).astype(np.float32)
    return hang > 0, np.maximum(floor, LOWEST_FLOOR), hang


def learn(energy: Floats, floor: Floats, probability: Floats) -> Floats:
    """New floors where a frame was found to be no voice: noise is known in two seconds, not in ten.

    Left to the slow rise, every new stream would keep the voice activity model busy until its noise is known. It is
    learnt up to where the gate just shuts: the rest is left to the slow rise, so that quiet words come through.
    """
    target = LEARN_UP_TO * energy
    noise = (probability < SURELY_NO_VOICE) & (target > floor)
    return np.where(noise, floor + LEARN * (target - floor), floor).astype(np.float32)
