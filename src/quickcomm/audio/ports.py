"""What audio needs from outside: an engine, a store, and somewhere to show live captions."""

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from quickcomm.audio.model.checkpoint import Checkpoint
from quickcomm.contracts.audio_socket import AudioFormat, DurableEvent
from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.checking import Compare, Contents
from quickcomm.contracts.closing import Finished
from quickcomm.contracts.conversations import ConversationChanged, Ledger
from quickcomm.contracts.erasing import EraseAudio, Scope
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.errors import InvalidInputError, QuickCommError

Samples = npt.NDArray[np.int16]
LIKE_SECONDS: Final = 3.0
"""Clips are alike, and worth decoding together, whose lengths fall into the same step of this size."""


def length_step(seconds: float) -> int:
    """The step of `LIKE_SECONDS` that a clip falls into, from 1."""
    return max(1, math.ceil(seconds / LIKE_SECONDS))


class EngineError(QuickCommError):
    """The engine failed as a whole: not what was said, but the machinery."""

    code = "audio.engine"
    retryable = True


class ClipTooLongError(InvalidInputError):
    """A clip is longer than `SttTraits.max_seconds`; cut it before."""

    code = "audio.clip_too_long"


class Effort(IntEnum):
    """Optional work that an engine may do for a clip; each level leaves out more than the one before."""

    FULL = 0
    ONE_OPINION = 1
    """No second decoding of text that is doubtful."""
    LEAST = 2
    """No word times, but for doubtful texts, where alarms are believed by them; no retry at the full window."""


OptionalWork = Literal["second_opinion", "word_times", "full_window"]


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of speech to transcribe. `samples`: int16[n], 16 kHz mono."""

    samples: Samples
    word_times: bool = True
    effort: Effort = Effort.FULL


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
    """0 to 1; 0 where the engine does not tell."""
    foreign: bool = False
    """True where the engine found another language than its own."""
    shed: tuple[OptionalWork, ...] = ()
    """Work that this clip called for and that its `effort` forbade; a clip with full effort would have it."""


class SttTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do; checked when it is wired."""

    model: str
    sample_rate_hz: int = 16_000
    max_batch: int = 4
    max_seconds: float = 28.0
    language: str = "en"
    workers: int = 2
    """How many threads may call `transcribe` at once."""


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an assembler may choose. `model` is a name, `model_path` a folder that goes before it."""

    model: str = "tiny.en"
    model_path: Path | None = None
    language: str = "en"
    spoken_before: str = ""
    hotwords: tuple[str, ...] = ()
    workers: int = 2


class SpeechToText(Protocol):
    """Called from worker threads, at most `traits.workers` at once."""

    @property
    def traits(self) -> SttTraits: ...

    def transcribe(self, clips: Sequence[Clip]) -> list[Transcript]:
        """One transcript a clip, in order. Raises `EngineError` (the engine failed) or `ClipTooLongError`."""
        ...

    def close(self) -> None: ...


VAD_CONTEXT = 64
VAD_STATE = (2, 128)


class VoiceActivity(Protocol):
    """Judges 32 ms frames of many streams at once; called from one thread at a time."""

    @property
    def rest(self) -> npt.NDArray[np.float32]:
        """The state of a stream in which it was quiet, float32[2, 128]: where the next sound is judged from."""
        ...

    def step(
        self, frames: npt.NDArray[np.float32], state: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Voice probabilities of one frame of n streams, and their new states.

        frames: float32[n, 64 + 512] in -1 … 1 at 16 kHz, the last samples before the frame first;
        state: float32[2, n, 128]. Row i must not depend on the other rows.
        """
        ...


class OpenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A client at the door. `token` is None where it brought none.

    `sent_on`: the channel by which the edge chose the side of this client; empty where it knows none, as of a call.
    """

    site: str
    conversation_id: str
    channel: str
    format: AudioFormat
    token: str | None
    resumes: bool = True
    """Whether the client comes again after `reconnect`, and sends again what is not acknowledged."""
    continues: str | None = None
    """The conversation of the same source that the server had ended; told once, where this one is new."""
    sent_on: str = ""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as the store has it, owned by the caller from now on under `epoch`."""

    site: str
    conversation_id: str
    channel: str
    format: AudioFormat
    epoch: int
    created: bool
    state: str
    checkpoints: tuple[Checkpoint, ...]
    ledgers: tuple[Ledger, ...]
    last_seq: int
    unanswered: tuple[str, ...] = ()
    """Utterances whose insights are not in the event log yet."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a conversation is: what a checkpoint stores."""

    site: str
    conversation_id: str
    epoch: int
    step: int = 0
    """Counts up with each look at it by one owner: what was seen before never replaces what was seen later."""
    checkpoints: tuple[Checkpoint, ...]
    ledgers: tuple[Ledger, ...]


class FencedError(QuickCommError):
    """Somebody else owns the conversation by now; this owner must let go of it."""

    code = "audio.fenced"


Tell = Callable[[str, str, DurableEvent], None]
"""Called with site, conversation id and an event that is in the log."""


class SessionStore(Protocol):
    """Conversations, their checkpoints and their event logs. Every write is conditional on the owner's epoch."""

    @property
    def shared(self) -> bool:
        """Whether other processes may take conversations over."""
        ...

    async def open(self, request: OpenRequest, token: str) -> Stored:
        """Create the conversation, or take it over with its token; `token` is for a new one.

        Raises `ForbiddenError` where it exists and the token is missing or wrong, `InvalidInputError` where the format
        is another one; then nothing has happened to it.
        """
        ...

    async def known(self, site: str, conversation_id: str) -> bool:
        """Return True if there is such a conversation, whatever its state."""
        ...

    async def publish(self, progress: Progress, message: UtteranceTranscribed) -> DurableEvent | None:
        """Utterance, its seq, the checkpoint and the message to the bus: all or nothing.

        None where the utterance was published before. Raises `FencedError`.
        """
        ...

    async def save(self, progress: Sequence[Progress]) -> list[tuple[str, str]]:
        """Store checkpoints; returns the (site, conversation id) pairs that are fenced."""
        ...

    async def fenced(self, progress: Sequence[Progress]) -> list[tuple[str, str]]:
        """Which of them somebody else owns by now, as `save` tells, but without storing anything."""
        ...

    async def change_state(self, progress: Progress, change: ConversationChanged, *, fence: bool = False) -> None:
        """Store a new state with the last checkpoint, and tell the bus. Raises `FencedError`.

        `fence`: this owner gives the conversation up, and no later write of it is taken.
        """
        ...

    async def finish(self, site: str, conversation_id: str, reason: str) -> Finished:
        """End a conversation that no process has, with what is stored; tell how one stands that has ended.

        Raises `NotFoundError`, and `NotOwnerError` where another process has it.
        """
        ...

    async def add_insights(self, found: InsightsFound) -> DurableEvent | None:
        """Append an insights event to the log; None where it is there already or nobody knows the conversation.

        Where another process owns the conversation, that one is told as well (`listen`).
        """
        ...

    async def listen(self, tell: Tell) -> None:
        """Until cancelled: events that other processes have logged for conversations of this one."""
        ...

    async def events(self, site: str, conversation_id: str, after_seq: int) -> list[DurableEvent]:
        """A page of the log in order."""
        ...

    async def adopt(self) -> int:
        """At start-up: what a process that died had live is interrupted now; returns how many."""
        ...

    async def ledgers(self, conversation_id: str | None) -> list[ConversationChanged]:
        """Every conversation's state and ledger up to its last ack."""
        ...

    async def contents(self, request: Compare) -> Contents:
        """Return what the logs and ledgers have in a range; a log forgets its beginning, and what ended long ago."""
        ...

    async def recent(self, since_ns: int, limit: int) -> list[tuple[str, str]]:
        """Return the (site, conversation id) of those that changed since then, at most `limit`, the newest ones."""
        ...

    async def expire(self, before_ns: int, now_ns: int, keep: frozenset[tuple[str, str]]) -> int:
        """End conversations that nobody has touched since, but for those in `keep`; returns how many.

        What a process that is gone for good had live is interrupted now. Of several processes that do this at the same
        time, one ends each conversation.
        """
        ...

    async def turn(self, work: str, for_s: int) -> bool:
        """Whether this process is the one to do some work; for so many seconds, no other one is."""
        ...

    async def purge(self, before_ns: int) -> int:
        """Delete conversations that ended before; returns how many."""
        ...

    async def erase(self, request: EraseAudio) -> dict[str, int]:
        """Erase the words of utterances, and end conversations that go as a whole; return how much of what it was.

        None of it is taken again. Ledgers and numbers of events stay.
        """
        ...

    async def aclose(self) -> None:
        """After the last use. May be called again."""
        ...


class Captions(Protocol):
    """Where it is shown at once what is said. Never blocks, may lose what it gets."""

    @property
    def gives_receipts(self) -> bool:
        """Whether somebody tells how long the way to the page took (`Audio.receipt`)."""
        ...

    def caption(self, caption: Caption) -> None: ...

    def behind(self, behind: Behind) -> None:
        """Show that a conversation is behind, or whole again."""
        ...

    def watched(self, site: str, channel: str) -> bool: ...

    def published(self, message: UtteranceTranscribed, after: str | None) -> None:
        """An utterance is durable; the bus brings it as well.

        `after`: the one before it in its conversation, `FIRST` where there is none, None where only the bus knows.
        """
        ...


class RecordingError(QuickCommError):
    """The sound could not be kept (a full disk, say)."""

    code = "audio.recording"


class Recorder(Protocol):
    """Keeps the sound of utterances."""

    async def record(self, site: str, utterance_id: str, samples: Samples) -> None:
        """samples: int16[n] at 16 kHz. Doing it again changes nothing. Raises `RecordingError`."""
        ...


class Recordings(Protocol):
    """Knows what is kept."""

    async def erase(self, scope: Scope) -> int:
        """Delete the sound of utterances; return how many files it was. Raises `RecordingError`."""
        ...

    async def lacking(self, utterances: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those (site, utterance id) that are not kept, of conversations of which something is."""
        ...
