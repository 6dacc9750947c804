"""Stream `transcripts.v1`: audio → intelligence and dashboard. One message an utterance."""

from typing import Literal

import msgspec

from quickcomm.contracts.timing import Latency

TRANSCRIPTS = "transcripts.v1"
Status = Literal["ok", "unintelligible", "not_english", "low_confidence"]
"""How far the words can be relied on. Unless it is `ok`, a person must listen: the text is a guess, or empty.

`unintelligible`: voiced sound without words; `not_english`: another language than the engine was told to write;
`low_confidence`: words of which the engine itself is not sure.
"""


class Word(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A word and where it was said: sample offsets at the client's rate, from the start of the conversation.

    There are thousands in a list of cards, and none can be part of a cycle: the garbage collector need not walk them.
    """

    text: str
    start_offset: int
    end_offset: int
    confidence: float


class UtteranceTranscribed(msgspec.Struct, frozen=True, kw_only=True):
    """A final transcript. Positions are samples at `sample_rate`; times are nanoseconds since the epoch."""

    site: str
    conversation_id: str
    utterance_id: str
    channel: str
    speaker: int
    seq: int
    start_offset: int
    end_offset: int
    sample_rate: int
    text: str
    words: tuple[Word, ...]
    confidence: float
    unintelligible: bool = False
    """True where speech-to-text failed."""
    status: Status = "ok"
    stt_model: str
    spoken_at_ns: int
    """When the first sample of the utterance was said: when it arrived, unless it was held up on its way."""
    speech_ended_ns: int
    """When the last speech sample was said, likewise: the zero of the latency receipt."""
    published_ns: int
    late_ms: float = 0.0
    """How long the last speech sample was held up before it arrived; 0 where it came at once."""
    latency: Latency
    owner: str = "monolith"
    """The side whose intelligence answers it, while that moves (`contracts/routes.py`)."""
    owner_epoch: int = 0
    """Rises with each change of that side in a conversation; 0: intelligence does not move."""
    traceparent: str | None = None
    side: str | msgspec.UnsetType = msgspec.UNSET
    """The side whose audio made it, during a migration."""
    held_up: str | msgspec.UnsetType = msgspec.UNSET
    """Why it could not be published at once, as the store said; unset where it could."""
