"""The audio WebSocket, as server and client share it: formats, control messages, events, close codes.

Each message is a struct tagged by its `type`; unknown fields are passed over. Offsets are samples per speaker at the
client's rate, from the start of the conversation. `Utterance` and `Insights` are durable: they carry a `seq` and are
kept as the JSON of these structs. Their fields may only be added to, and another durable event must be read by one
release before the next one writes it.
"""

import re
from enum import IntEnum
from typing import Any, Final, Generic, Literal, TypeVar, get_args

import msgspec

from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import Word

PATH: Final = "/v1/conversations/{conversation_id}/audio"
TWILIO_PATH: Final = "/v1/ingest/twilio"
"""Of calls from Twilio Media Streams, whose messages are Twilio's."""
RELAYED: Final = "x-quickcomm-relayed"
"""Of a call that the session relay passes on: host and path of its request, which Twilio has signed. The edge lets none
in from outside."""
DEFAULT_CHANNEL: Final = "main"
"""Of clients that name none."""
CONVERSATION_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")
LEAST_TOKEN_CHARS: Final = 22
"""Of a resume token: 128 bit."""
Encoding = Literal["linear16", "mulaw", "alaw"]
ENCODINGS: Final[tuple[Encoding, ...]] = get_args(Encoding)
SAMPLE_RATES: Final = (8_000, 16_000, 24_000, 32_000, 48_000)
FRAME_MS: Final = 32
MAX_MESSAGE_MS: Final = 1_000
HELD_BACK_BYTES_S: Final = 500_000
"""Least rate, in bytes a second, at which a client that is too far ahead is read while there is memory: its ping waits
behind up to 6 MB of sound in buffers, and most clients give up after 20 s without an answer."""


class AudioFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Raw audio, interleaved where there are two speakers. Raises `ValueError` for what the server does not take."""

    encoding: Encoding = "linear16"
    sample_rate: int = 16_000
    speakers: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}.")
        if self.sample_rate not in SAMPLE_RATES:
            raise ValueError(f"sample_rate must be one of {', '.join(map(str, SAMPLE_RATES))}.")
        if self.speakers not in (1, 2):
            raise ValueError("speakers must be 1, or 2 for two speakers, interleaved.")

    @property
    def block_bytes(self) -> int:
        """Bytes of one sample of every speaker."""
        return (2 if self.encoding == "linear16" else 1) * self.speakers

    @property
    def frame(self) -> int:
        """Samples of one 32 ms frame."""
        return self.samples(FRAME_MS)

    def samples(self, milliseconds: float) -> int:
        return int(self.sample_rate * milliseconds / 1_000)

    def seconds(self, samples: int) -> float:
        return samples / self.sample_rate


class CloseCode(IntEnum):
    """How the server closes the socket (RFC 6455, section 7.4)."""

    NORMAL = 1000
    """After `ended`: everything is final."""
    GOING_AWAY = 1001
    """The conversation was ended in a pause, because it cannot be handed over: begin a new one."""
    UNSUPPORTED = 1003
    INVALID = 1007
    POLICY = 1008
    TOO_BIG = 1009
    FAILED = 1011
    RESTART = 1012
    """Connect again: the conversation goes on, maybe in another process."""
    TRY_LATER = 1013


# -- client to server, beside binary messages of raw audio ----------------------------------------------------------


class Control(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of the client's control messages."""


class Skip(Control, frozen=True, kw_only=True, tag="skip"):
    """Declare a gap: audio that the client does not have any more."""

    samples: int = 0


class Flush(Control, frozen=True, kw_only=True, tag="flush"):
    """The speaker let go of the key after `offset` samples."""

    offset: int = -1


class Captured(Control, frozen=True, kw_only=True, tag="captured"):
    """When the sample at `offset` was captured, in milliseconds since the epoch of the server's clock."""

    offset: int = -1
    at_ms: int = 0


class End(Control, frozen=True, kw_only=True, tag="end"):
    """No more audio will come."""


ClientControl = Skip | Flush | Captured | End


# -- server to client -----------------------------------------------------------------------------------------------


class ServerEvent(msgspec.Struct, frozen=True, tag_field="type"):
    """Base of everything that the server sends."""


class Ready(ServerEvent, frozen=True, kw_only=True, tag="ready"):
    """The first event of a connection: send from `next_offset`."""

    conversation_id: str
    resume_token: str
    next_offset: int
    last_seq: int | None = None
    """The newest durable event that the server has; None from a server that does not tell."""
    max_unacked_ms: int = 60_000
    ack_interval_ms: int = 1_000
    now_ms: int | None = None
    """The server's clock, in milliseconds since the epoch; None from a server that does not take `captured`."""


class Ack(ServerEvent, frozen=True, kw_only=True, tag="ack"):
    """Everything before `offset` is accounted for durably."""

    offset: int


class Partial(ServerEvent, frozen=True, kw_only=True, tag="partial", omit_defaults=True):
    """What is being said now; may change or vanish."""

    speaker: int
    start_offset: int
    text: str
    emergency: bool = False
    """By its words it is one. Its utterance comes later, after what was said before it, and confirms it."""


class Late(ServerEvent, frozen=True, kw_only=True, tag="late"):
    """How long the oldest words wait for their text: every few seconds, and 0 once nothing waits any more."""

    behind_ms: int


class Utterance(ServerEvent, frozen=True, kw_only=True, tag="utterance"):
    """Final, durable. `end_offset` is the end of speech."""

    seq: int
    utterance_id: str
    speaker: int
    start_offset: int
    end_offset: int
    text: str
    words: tuple[Word, ...] = ()
    confidence: float = 0.0
    status: str = "ok"
    """Unless it is `ok`, the text is a guess, or empty."""
    unintelligible: bool = False
    """True where speech-to-text failed."""


class ItemSeen(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    quantity: int = 1


class InsightSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An insight as a client reads it: fields and words that a newer server adds do no harm."""

    index: int
    revision: int = 1
    intent: str
    department: str
    urgency: str
    rooms: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    items: tuple[ItemSeen, ...] = ()
    summary: str
    confidence: float
    source: str = "local"
    degraded: bool = False
    prompt_version: str | None = None
    model: str = ""
    evidence: dict[str, tuple[str, ...]] = {}


I_co = TypeVar("I_co", covariant=True)


class Insights(ServerEvent, Generic[I_co], frozen=True, kw_only=True, tag="insights"):
    """Durable: what an utterance asks for; comes again when renewed.

    The server writes them as `Insight`, keeps them as they are, and a client reads them as `InsightSeen`.
    """

    seq: int
    utterance_id: str
    insights: tuple[I_co, ...]


class Receipt(ServerEvent, frozen=True, kw_only=True, tag="receipt"):
    """Where the time of an utterance went. Not durable: it may be missing after a resume."""

    utterance_id: str
    latency_ms: Latency


class Reconnect(ServerEvent, frozen=True, kw_only=True, tag="reconnect"):
    reason: str = ""
    after_ms: int = 0


class ErrorReported(ServerEvent, frozen=True, kw_only=True, tag="error"):
    code: str
    message: str = ""
    retryable: bool = False


class Ended(ServerEvent, frozen=True, kw_only=True, tag="ended"):
    """All is final. `ledger` is the sum over the speakers, `speakers` has the ledger of each."""

    ledger: Ledger
    speakers: tuple[Ledger, ...] = ()


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a type that this release does not know; a newer server may send such."""

    type: str
    raw: bytes


DurableEvent = Utterance | Insights[Any]
Received = (
    Ready
    | Ack
    | Partial
    | Late
    | Utterance
    | Insights[InsightSeen]
    | Receipt
    | Reconnect
    | ErrorReported
    | Ended
    | Unknown
)

_KINDS: Final = (Ready, Ack, Partial, Late, Utterance, Receipt, Reconnect, ErrorReported, Ended)
SERVER_EVENTS: Final[tuple[Any, ...]] = (*_KINDS, Insights[InsightSeen])
"""The types of all messages that the server sends."""
CLIENT_CONTROLS: Final[tuple[type[msgspec.Struct], ...]] = get_args(ClientControl)
"""The types of all text messages that a client sends."""
_received: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    str(kind.__struct_config__.tag): msgspec.json.Decoder(kind) for kind in _KINDS
} | {"insights": msgspec.json.Decoder(Insights[InsightSeen])}
_control: Final[msgspec.json.Decoder[ClientControl]] = msgspec.json.Decoder(ClientControl)
_control_types: Final = frozenset(str(kind.__struct_config__.tag) for kind in CLIENT_CONTROLS)
_durable: Final[msgspec.json.Decoder[DurableEvent]] = msgspec.json.Decoder(Utterance | Insights[msgspec.Raw])


class _Header(msgspec.Struct):
    type: str


_header: Final = msgspec.json.Decoder(_Header)


def decode_event(message: str) -> Received:
    """Read a text message of the server. Raises `msgspec.MsgspecError` for what is not an event at all."""
    raw = message.encode()
    kind = _header.decode(raw).type
    decoder = _received.get(kind)
    if decoder is None:
        return Unknown(type=kind, raw=raw)
    event: Received = decoder.decode(raw)
    return event


def decode_control(message: str) -> ClientControl | None:
    """Read a text message of the client; return None for one that is not of this protocol.

    Raises `ValueError` or `RecursionError` for a control message with wrong fields.
    """
    try:
        kind = _header.decode(message).type
    except (ValueError, RecursionError):
        return None
    return _control.decode(message) if kind in _control_types else None


def decode_durable(kept: str | bytes) -> DurableEvent:
    """Read a durable event from the log; its insights stay as they were written. Raises `msgspec.MsgspecError`."""
    return _durable.decode(kept)
