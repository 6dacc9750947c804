"""Level meter of a source: shows an operator who plugs a radio in whether sound arrives."""

from collections.abc import AsyncIterator, Callable
from typing import Final

import numpy as np

from quickcomm.client.sources import AudioSource, Chunk, OfSource

EVERY_S: Final = 1.0
SILENT_DB: Final = -66.0
"""A line without a radio; the noise of an open one is louder."""
FLOOR_DB: Final = -96.0
"""Of 16 bit."""
BAR: Final = 24

Show = Callable[[float], None]
"""Called each second of sound with its level in dB of full scale (RMS)."""


class Metered(OfSource):
    """A linear16 source whose level is shown as it passes."""

    def __init__(self, source: AudioSource, show: Show) -> None:
        super().__init__(source)
        self._show = show

    async def chunks(self) -> AsyncIterator[Chunk]:
        fmt, gathered = self.format, bytearray()
        second = int(EVERY_S * fmt.sample_rate) * fmt.block_bytes
        async for chunk in self._source.chunks():
            if isinstance(chunk, bytes):
                gathered += chunk
            if len(gathered) >= second:
                self._show(level_db(bytes(gathered[:second])))
                del gathered[:second]
            yield chunk


def level_db(pcm: bytes) -> float:
    """Return the level of linear16 in dB of full scale, RMS; `FLOOR_DB` for digital silence."""
    samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.float64)
    power = float(np.mean(samples**2)) if len(samples) else 0.0
    return max(FLOOR_DB, 10 * float(np.log10(power / 32_768**2))) if power else FLOOR_DB


def bar(level: float) -> str:
    """Return a level as a bar with its number, for one line of a terminal."""
    filled = round((level - FLOOR_DB) / -FLOOR_DB * BAR)
    return f"[{'#' * filled}{'.' * (BAR - filled)}] {level:4.0f} dB{'  nothing comes' if level < SILENT_DB else ''}"
