"""Where sound comes from: a Protocol owned by the client, and sources that need nothing but bytes."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

import msgspec

from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.kernel.clock import Clock, SystemClock

_READ: Final = 16_384
_LATE_S: Final = 1.0
_AHEAD_S: Final = 10.0
"""What a live pipe may have held before it was read."""

Sleep = Callable[[float], Awaitable[None]]


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """Samples that were there and that nobody has any more."""

    samples: int


class KeyReleased(msgspec.Struct, frozen=True):
    """The speaker let go of the key: what comes behind is another transmission."""


Chunk = bytes | Missing | KeyReleased


class AudioSource(Protocol):
    """`chunks` are of any size; a sample may be cut in two."""

    @property
    def format(self) -> AudioFormat: ...

    @property
    def live(self) -> bool:
        """A live source cannot be made to wait. It may turn out later that it can."""
        ...

    def chunks(self) -> AsyncIterator[Chunk]: ...


class PcmSource:
    """Raw audio from any asynchronous iterable."""

    def __init__(self, fmt: AudioFormat, pcm: AsyncIterable[Chunk], *, live: bool = False) -> None:
        self._format = fmt
        self._pcm = pcm
        self._live = live

    @property
    def format(self) -> AudioFormat:
        return self._format

    @property
    def live(self) -> bool:
        return self._live

    async def chunks(self) -> AsyncIterator[Chunk]:
        async for chunk in self._pcm:
            yield chunk


class OfSource:
    """A source that passes another one on: in its format, and live if that is."""

    def __init__(self, source: AudioSource) -> None:
        self._source = source

    @property
    def format(self) -> AudioFormat:
        return self._source.format

    @property
    def live(self) -> bool:
        return self._source.live


class Paced(OfSource):
    """Lets a source that could be read at once pass in real time, as if it were spoken now."""

    def __init__(self, source: AudioSource, *, clock: Clock | None = None, sleep: Sleep = asyncio.sleep) -> None:
        super().__init__(source)
        self._clock = clock or SystemClock()
        self._sleep = sleep

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Pieces of at most 100 ms, each at the moment when its last sample would have been spoken."""
        fmt = self.format
        step = fmt.samples(100) * fmt.block_bytes
        started = self._clock.monotonic()
        passed = 0.0
        async for chunk in self._source.chunks():
            for piece in _cut(chunk, step):
                passed += _samples(piece, fmt) / fmt.sample_rate
                wait = started + passed - self._clock.monotonic()
                if wait > 0:
                    await self._sleep(wait)
                elif wait < -_LATE_S:
                    # Somebody made it wait: go on from now, without a rush to catch up.
                    started -= wait
                yield piece


class StdinSource:
    """Raw audio on standard input. A pipe is live until it gives sound faster than that can be spoken.

    A sound card's program loses sound where nobody reads its pipe; one that prints a file can wait.
    """

    def __init__(self, fmt: AudioFormat, *, descriptor: int | None = None, clock: Clock | None = None) -> None:
        self._format = fmt
        self._descriptor = descriptor
        self._clock = clock or SystemClock()
        self._is_recording = stat.S_ISREG(os.fstat(self._number).st_mode)

    @property
    def format(self) -> AudioFormat:
        return self._format

    @property
    def live(self) -> bool:
        return not self._is_recording

    @property
    def _number(self) -> int:
        return sys.stdin.fileno() if self._descriptor is None else self._descriptor

    async def chunks(self) -> AsyncIterator[Chunk]:
        descriptor = self._number
        if self._is_recording:
            while chunk := await asyncio.to_thread(os.read, descriptor, _READ):
                yield chunk
            return
        reader = asyncio.StreamReader(limit=4 * _READ)
        # A copy of the descriptor: closing the transport must not close standard input itself.
        pipe = os.fdopen(os.dup(descriptor), "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        began, bytes_read = self._clock.monotonic(), 0
        try:
            while chunk := await reader.read(_READ):
                bytes_read += len(chunk)
                spoken_s = bytes_read / self._format.block_bytes / self._format.sample_rate
                self._is_recording |= spoken_s > self._clock.monotonic() - began + _AHEAD_S
                yield chunk
        finally:
            transport.close()


def _cut(chunk: Chunk, step: int) -> list[Chunk]:
    return [chunk[at : at + step] for at in range(0, len(chunk), step)] if isinstance(chunk, bytes) else [chunk]


def _samples(piece: Chunk, fmt: AudioFormat) -> float:
    if isinstance(piece, bytes):
        return len(piece) / fmt.block_bytes
    return piece.samples if isinstance(piece, Missing) else 0
