"""Every contract rate to the engine's 16 kHz, frame by frame, with a state that is nothing but recent samples.

A polyphase FIR (Kaiser window) has a finite memory: the last `history` input samples are its whole state, so that it
travels in a checkpoint and a restarted stream gives the same samples. It delays the sound by about 1 ms.
"""

from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from quickcomm.audio.model.formats import ENGINE_FRAME, ENGINE_RATE, FRAME_MS, RATES, Int16

HALF_TAPS: Final = 16
KAISER_BETA: Final = 6.0


class Resampler:
    """Frames of one rate to frames of 512 samples at 16 kHz, for many streams at once."""

    def __init__(self, rate: int) -> None:
        factor = np.gcd(rate, ENGINE_RATE)
        self._up = int(ENGINE_RATE // factor)
        self._down = int(rate // factor)
        self._half = HALF_TAPS * max(self._up, self._down)
        self.frame = rate * FRAME_MS // 1000
        needed = -(-2 * self._half // self._up)
        self.history = 0 if rate == ENGINE_RATE else -(-needed // self._down) * self._down

    def __call__(self, samples: Int16) -> Int16:
        """int16[n, history + frame] at the client's rate → int16[n, 512] at 16 kHz."""
        if not self.history:
            return samples
        from scipy.signal import upfirdn  # noqa: PLC0415 - takes a second to import, and most sites never need it

        filtered = upfirdn(self._taps, samples.astype(np.float32), self._up, self._down, axis=-1)
        first = self.history * self._up // self._down
        frames = filtered[:, first : first + ENGINE_FRAME]
        return np.clip(np.rint(frames), -32768, 32767).astype(np.int16)

    def warm_up(self) -> None:
        """Load the library and design the filter before somebody waits for it."""
        self(np.zeros((1, self.history + self.frame), np.int16))

    @cached_property
    def _taps(self) -> npt.NDArray[np.float32]:
        from scipy.signal import firwin  # noqa: PLC0415 - see above

        widest = max(self._up, self._down)
        taps = firwin(2 * self._half + 1, 1.0 / widest, window=("kaiser", KAISER_BETA)) * self._up
        return np.asarray(taps, dtype=np.float32)


RESAMPLERS: Final = {rate: Resampler(rate) for rate in RATES}
MAX_HISTORY: Final = max(resampler.history for resampler in RESAMPLERS.values())


def warm_up_resamplers() -> None:
    for resampler in RESAMPLERS.values():
        resampler.warm_up()
