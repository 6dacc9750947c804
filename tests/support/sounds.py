"""Sounds that tests make themselves."""

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
