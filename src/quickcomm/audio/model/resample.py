"""Every contract rate to the engine's 16 kHz, frame by frame, with a state that is nothing but recent samples.

A polyphase FIR (Kaiser window) has a finite memory: the last `history` input samples are its whole state, so that it
travels in a checkpoint and a restarted stream gives the same samples. It delays the sound by about 1 ms.
"""

from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from quickcomm.audio.model.formats import ENGINE_FRAME, ENGINE_RATE, Int16
from quickcomm.contracts.audio_socket import FRAME_MS, SAMPLE_RATES

HALF_TAPS: Final = 16
KAISER_BETA: Final = 6.0
BLOCK: Final = 32
"""Output samples that are computed together; divides a frame, and is a multiple of every rate's `up`."""


class Resampler:
    """Frames of one rate to frames of 512 samples at 16 kHz, for many streams at once."""

    def __init__(self, rate: int) -> None:
        factor = np.gcd(rate, ENGINE_RATE)
        self._up = int(ENGINE_RATE // factor)
        self._down = int(rate // factor)
        self._half = HALF_TAPS * max(self._up, self._down)
        self.frame = rate * FRAME_MS // 1000
        self._reach = 2 * self._half // self._up
        self.history = 0 if rate == ENGINE_RATE else -(-self._reach // self._down) * self._down

    def __call__(self, samples: Int16) -> Int16:
        """int16[n, history + frame] at the client's rate → int16[n, 512] at 16 kHz."""
        if not self.history:
            return samples
        width, hop = len(self._blocks), BLOCK * self._down // self._up
        used = samples[:, self.history - self._reach :].astype(np.float64)
        blocks = sliding_window_view(used, width, axis=-1)[:, ::hop]
        # One product a stream, so that its samples do not depend on how many streams there are.
        filtered = (np.ascontiguousarray(blocks) @ self._blocks).reshape(len(samples), ENGINE_FRAME)
        return np.clip(np.rint(filtered), -32768, 32767).astype(np.int16)

    @cached_property
    def _blocks(self) -> npt.NDArray[np.float64]:
        """float64[width, BLOCK]: the filter as a banded matrix, `width` input samples to BLOCK output samples.

        All output blocks of a frame are then one matrix product.
        """
        taps, width = self._taps, self._reach + (BLOCK - 1) * self._down // self._up + 1
        at = self._down * np.arange(BLOCK)[None, :] - self._up * (np.arange(width)[:, None] - self._reach)
        return np.where((at >= 0) & (at < len(taps)), taps[np.clip(at, 0, len(taps) - 1)], 0.0)

    @cached_property
    def _taps(self) -> npt.NDArray[np.float64]:
        """float64[2 · half + 1]: a sinc windowed by Kaiser's, with gain `up` at 0 Hz."""
        widest = max(self._up, self._down)
        shape = np.sinc(np.arange(-self._half, self._half + 1) / widest) * np.kaiser(2 * self._half + 1, KAISER_BETA)
        taps: npt.NDArray[np.float64] = shape * (self._up / shape.sum())
        return taps


RESAMPLERS: Final = {rate: Resampler(rate) for rate in SAMPLE_RATES}
MAX_HISTORY: Final = max(resampler.history for resampler in RESAMPLERS.values())
