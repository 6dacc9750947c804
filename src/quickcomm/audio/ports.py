"""What audio needs from outside: an engine, a store, and somewhere to show live captions."""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from quickcomm.kernel.errors import InvalidInputError, QuickCommError

Samples = npt.NDArray[np.int16]


class EngineError(QuickCommError):
    """The engine failed as a whole: not what was said, but the machinery."""

    code = "audio.engine"
    retryable = True


class ClipTooLongError(InvalidInputError):
    """A clip is longer than `SttTraits.max_seconds`; cut it before."""

    code = "audio.clip_too_long"


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of speech to transcribe. `samples`: int16[n], 16 kHz mono."""

    samples: Samples
    word_times: bool = True


class ClipWord(msgspec.Struct, frozen=True, kw_only=True):
    """A word with its place in the clip, in seconds."""

    text: str
    start: float
    end: float
    confidence: float


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """What was said in a clip; `text` is empty where nobody said anything that can be understood."""

    text: str
    words: tuple[ClipWord, ...] = ()
    confidence: float = 0.0


class SttTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do; checked when it is wired."""

    model: str
    sample_rate_hz: int = 16_000
    max_batch: int = 4
    max_seconds: float = 28.0
    workers: int = 2
    """How many threads may call `transcribe` at once."""


class SpeechToText(Protocol):
    """Called from worker threads, at most `traits.workers` at once."""

    @property
    def traits(self) -> SttTraits: ...

    def transcribe(self, clips: Sequence[Clip]) -> list[Transcript]:
        """One transcript a clip, in order. Raises `EngineError` (the engine failed) or `ClipTooLongError`."""
        ...

    def close(self) -> None: ...
