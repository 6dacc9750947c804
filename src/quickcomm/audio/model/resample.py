"""Every contract rate to the engine's 16 kHz, frame by frame, with a state that is nothing but recent samples.

A polyphase FIR (Kaiser window) has a finite memory: the last `history` input samples are its whole state, so that it
travels in a checkpoint and a restarted stream gives the same samples. It delays the sound by about 1 ms.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.signal import firwin, upfirdn

from quickcomm.audio.model.formats import ENGINE_FRAME, ENGINE_RATE, FRAME_MS, RATES, Int16

HALF_TAPS: Final = 16
KAISER_BETA: Final = 6.0


class Resampler:
    """Frames of one rate to frames of 512 samples at 16 kHz, for many streams at once."""

    def __init__(self, rate: int) -> None:
        factor = np.gcd(rate, ENGINE_RATE)
        self._up = int(ENGINE_RATE // factor)
        self._down = int(rate // factor)
        self.frame = rate * FRAME_MS // 1000
        self.history = 0
        self._taps: npt.NDArray[np.float32] | None = None
        if rate != ENGINE_RATE:
            widest = max(self._up, self._down)
            taps = firwin(2 * HALF_TAPS * widest + 1, 1.0 / widest, window=("kaiser", KAISER_BETA)) * self._up
            self._taps = np.asarray(taps, dtype=np.float32)
            needed = -(-(len(self._taps) - 1) // self._up)
            self.history = -(-needed // self._down) * self._down

    def __call__(self, samples: Int16) -> Int16:
        """int16[n, history + frame] at the client's rate → int16[n, 512] at 16 kHz."""
        if self._taps is None:
            return samples
        filtered = upfirdn(self._taps, samples.astype(np.float32), self._up, self._down, axis=-1)
        first = self.history * self._up // self._down
        frames = filtered[:, first : first + ENGINE_FRAME]
        return np.clip(np.rint(frames), -32768, 32767).astype(np.int16)


RESAMPLERS: Final = {rate: Resampler(rate) for rate in RATES}
MAX_HISTORY: Final = max(resampler.history for resampler in RESAMPLERS.values())
