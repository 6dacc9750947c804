"""Log-mel features for Whisper: samples in, float32[80, frames] out; feeds the encoder.

The same numbers as OpenAI's `log_mel_spectrogram` on zero-padded samples (Radford et al. 2022, section 2.2), but frames
that hear only the padding are filled with their known value instead of being transformed.
"""

import numpy as np
import numpy.typing as npt
from faster_whisper.feature_extractor import FeatureExtractor

Features = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
HOP = 160
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
_N_FFT = 400
_FLOOR = 1e-10
_DYNAMIC_RANGE = 8.0
"""Decades of log10 power below the loudest frame that are kept."""


class LogMel:
    """Thread-safe: holds only constants."""

    def __init__(self, n_mels: int = 80) -> None:
        self.n_mels = n_mels
        filters = FeatureExtractor.get_mel_filters(SAMPLE_RATE, _N_FFT, n_mels).astype(np.float32)
        self._filters: Features = np.ascontiguousarray(filters)
        self._window = np.hanning(_N_FFT + 1)[:-1].astype(np.float32)

    def __call__(self, samples: npt.NDArray[np.int16], frames: int) -> Features:
        """Features of the clip padded with zero samples to `frames` frames. samples: int16[n], 16 kHz mono."""
        half = _N_FFT // 2
        # A frame at or past this one hears nothing but padding.
        heard = min(frames, (len(samples) + half - 1) // HOP + 1)
        padded = np.zeros((heard - 1) * HOP + _N_FFT + half, dtype=np.float32)
        sound = samples[: len(padded) - half]
        padded[half : half + len(sound)] = sound
        padded *= np.float32(1 / 32768)
        # The first frames see the sound mirrored at its start, as the reference does.
        padded[:half] = padded[2 * half : half : -1]
        cut = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::HOP][:heard]
        spectrum = np.fft.rfft(cut * self._window, axis=-1)
        power = spectrum.real**2 + spectrum.imag**2
        mel = np.log10(np.maximum(self._filters @ power.T.astype(np.float32, copy=False), _FLOOR))
        loudest = max(float(mel.max()), float(np.log10(_FLOOR)) if heard < frames else -np.inf)
        lowest = max(loudest - _DYNAMIC_RANGE, float(np.log10(_FLOOR)))
        out = np.full((self.n_mels, frames), (lowest + 4.0) / 4.0, dtype=np.float32)
        out[:, :heard] = (np.maximum(mel, lowest) + 4.0) / 4.0
        return out
