"""Sound files of any format and rate → PCM that the wire carries; decoded beside the event loop, piece by piece."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import av
import av.error

from quickcomm.client.errors import SourceError
from quickcomm.client.sources import Chunk
from quickcomm.contracts.audio_socket import SAMPLE_RATES, AudioFormat

_PIECE_MS: Final = 500


class FileSource:
    """Mixed to mono, unless the two channels of a stereo file are two speakers. Raises `SourceError` when made."""

    def __init__(self, path: Path, *, speakers: int = 1) -> None:
        self._path = path
        rate, channels = _look(path)
        if speakers > 1 and channels != speakers:
            raise SourceError(f"{path} has {channels} channel(s), and {speakers} speakers need one each.")
        self._format = AudioFormat(sample_rate=wire_rate(rate), speakers=speakers)

    @property
    def format(self) -> AudioFormat:
        return self._format

    @property
    def live(self) -> bool:
        return False

    async def chunks(self) -> AsyncIterator[Chunk]:
        pieces = _pieces(self._path, self._format)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece


def _look(path: Path) -> tuple[int, int]:
    """Sample rate and channels of a file's first audio stream."""
    if not path.is_file():
        raise SourceError(f"There is no file {path}.")
    try:
        with _opened(path) as container:
            if not container.streams.audio:
                raise SourceError(f"{path} has no sound in it.")
            context: av.AudioCodecContext | None = container.streams.audio[0].codec_context
            if context is None:
                raise SourceError(f"{path} is coded in a way that nobody knows.")
            return context.sample_rate, context.channels
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(f"{path} cannot be read as a sound file: {error}") from error


def _opened(path: Path) -> av.container.InputContainer:
    """Titles and comments are in whatever code their writer had; nobody reads them here."""
    return av.open(str(path), metadata_errors="replace")


def wire_rate(rate: int) -> int:
    """Return the rate to send sound of any rate at: its own where the wire has it, else the nearest useful one."""
    if rate in SAMPLE_RATES:
        return rate
    return 16_000 if rate > 16_000 else 8_000  # noqa: PLR2004 - speech needs no more than 16 kHz


def _pieces(path: Path, fmt: AudioFormat) -> Iterator[bytes]:
    least = fmt.samples(_PIECE_MS) * fmt.block_bytes
    gathered = bytearray()
    try:
        for pcm in _decoded(path, fmt):
            gathered += pcm
            if len(gathered) >= least:
                yield bytes(gathered)
                gathered.clear()
    except (av.error.FFmpegError, OSError) as error:
        if gathered:
            yield bytes(gathered)
        raise SourceError(f"{path} is broken from here on: {error}") from error
    if gathered:
        yield bytes(gathered)


def _decoded(path: Path, fmt: AudioFormat) -> Iterator[bytes]:
    layout = "mono" if fmt.speakers == 1 else "stereo"
    resampler = av.AudioResampler(format="s16", layout=layout, rate=fmt.sample_rate)
    with _opened(path) as container:
        for frame in container.decode(audio=0):
            frame.pts = None  # Gaps in time stamps are no silence: only what was recorded is sent.
            for part in resampler.resample(frame):
                yield _bytes(part, fmt)
        for part in resampler.resample(None):
            yield _bytes(part, fmt)


def _bytes(frame: av.AudioFrame, fmt: AudioFormat) -> bytes:
    # The plane may be longer than the samples in it.
    return bytes(frame.planes[0])[: frame.samples * fmt.block_bytes]
