"""Sounds that tests make themselves."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import av.audio.stream
import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> Pcm:
    return (8_000 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.int16)


def write(path: Path, rate: int, *channels: Pcm) -> Path:
    """Writes interleaved 16 bit in whatever container and codec the name asks for."""
    codec = {".wav": "pcm_s16le", ".flac": "flac", ".mp3": "libmp3lame", ".ogg": "libopus"}[path.suffix]
    layout = "stereo" if len(channels) == 2 else "mono"
    with av.open(str(path), "w") as container:
        stream = cast("av.audio.stream.AudioStream", container.add_stream(codec, rate=rate, layout=layout))
        data = np.ascontiguousarray(np.stack(channels, axis=1).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(data, format="s16", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size or 1_024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


RATE = 16_000
NOISES = ("white", "pink", "band", "gated", "hum", "tone", "chirp", "clicks", "rumble")
_KEYS = {"1": (697, 1209), "2": (697, 1336), "4": (770, 1209), "#": (941, 1477)}


def nothing(seconds: float) -> Pcm:
    return np.zeros(round(seconds * RATE), np.int16)


def page(long: float = 3.0) -> Pcm:
    """Two-tone paging, at -6 dBFS."""
    return np.concatenate([2 * tone(RATE, 1.0, 853), 2 * tone(RATE, long, 960)])


def keys(pressed: str) -> Pcm:
    """DTMF, 100 ms a key with 60 ms between."""
    tones = (
        [tone(RATE, 0.1, low) + tone(RATE, 0.1, high), nothing(0.06)] for low, high in (_KEYS[key] for key in pressed)
    )
    return np.concatenate([part for key in tones for part in key])


def burst(seconds: float = 0.25, seed: int = 1) -> Pcm:
    """AFSK as of MDC-1200: 1200 and 1800 Hz at 1,200 baud."""
    bits = np.random.default_rng(seed).integers(0, 2, round(seconds * 1_200))
    hertz = np.where(bits[np.arange(round(seconds * RATE)) * 1_200 // RATE] == 0, 1_800, 1_200)
    return (16_000 * np.sin(np.cumsum(2 * np.pi * hertz / RATE))).astype(np.int16)


def noise(kind: str, seconds: float, dbfs: float, seed: int) -> Pcm:
    """One of `NOISES`; its peak is at `dbfs`."""
    chance = np.random.default_rng(seed)
    raw = _noise(kind, round(seconds * RATE), chance)
    scaled: Pcm = (raw / np.abs(raw).max() * 10 ** (dbfs / 20) * 32_767).astype(np.int16)
    return scaled


def noises() -> Iterator[tuple[str, Pcm]]:
    """Ninety: ten of each kind, 0.3 to 6 s, at four levels."""
    lengths, levels = (0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 0.8), (-6, -14, -22, -30)
    for at, kind in enumerate(NOISES):
        for turn, seconds in enumerate(lengths):
            yield kind, noise(kind, seconds, levels[turn % len(levels)], 100 * at + turn)


def _noise(kind: str, samples: int, chance: np.random.Generator) -> npt.NDArray[np.float64]:
    at = np.arange(samples) / RATE
    white = chance.standard_normal(samples)
    if kind in {"pink", "band", "rumble"}:
        hertz = np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 1.0)
        weight = {"pink": hertz**-0.5, "band": (hertz > 300) & (hertz < 3_400), "rumble": hertz < 200}[kind]
        return np.asarray(np.fft.irfft(np.fft.rfft(white) * weight, samples))
    low, high = chance.uniform(200, 800), chance.uniform(1_000, 3_500)
    whole: dict[str, npt.NDArray[np.float64]] = {
        "white": white,
        "gated": white * (np.sin(2 * np.pi * chance.uniform(1, 4) * at) > 0),
        "hum": 0.02 * white + np.stack([np.sin(2 * np.pi * 50 * k * at + k * k) / k for k in range(1, 9)]).sum(0),
        "tone": np.sin(2 * np.pi * low * at),
        "chirp": np.sin(2 * np.pi * at * (low + (high - low) * at / (2 * at[-1]))),
        "clicks": white * np.exp(-((at * 6) % 1) * 40),
    }
    return whole[kind]
