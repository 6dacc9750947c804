"""What the server says, parsed at the edge. Unknown fields and unknown event types are tolerated."""

from typing import Any, Final

import msgspec

from quickcomm.client.errors import ProtocolError
from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import Word
from quickcomm.kernel.errors import MALFORMED


class ServerEvent(msgspec.Struct, frozen=True, tag_field="type"):
    """Base of everything that comes over the socket."""


class Ready(ServerEvent, frozen=True, kw_only=True, tag="ready"):
    """The first word of a connection: send from `next_offset`."""

    conversation_id: str
    resume_token: str
    next_offset: int
    last_seq: int | None = None
    """The newest durable event that the server has; None: an older server, which does not say."""
    max_unacked_ms: int = 60_000
    ack_interval_ms: int = 1_000
    now_ms: int | None = None
    """The server's clock, in milliseconds since the epoch; None: it does not take times of the client."""


class Ack(ServerEvent, frozen=True, kw_only=True, tag="ack"):
    """Everything before `offset` (samples per speaker) is accounted for durably."""

    offset: int


class Partial(ServerEvent, frozen=True, kw_only=True, tag="partial"):
    """What is being said now; may change or vanish."""

    speaker: int
    start_offset: int
    text: str
    emergency: bool = False
    """By its words it is one. Its utterance comes later, after what was said before it, and confirms it."""


class Late(ServerEvent, frozen=True, kw_only=True, tag="late"):
    """How long the oldest words wait to be written down; told every few seconds, and 0 once nothing waits any more."""

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


class Insights(ServerEvent, frozen=True, kw_only=True, tag="insights"):
    """Durable: what an utterance asks for; comes again when renewed."""

    seq: int
    utterance_id: str
    insights: tuple[InsightSeen, ...]


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
    """All is final."""

    ledger: Ledger


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a type that this client does not know; a newer server may send such."""

    type: str
    raw: bytes


class Disconnected(msgspec.Struct, frozen=True, kw_only=True):
    """The client's own: the connection is gone and will be tried again in `retry_in_s`."""

    reason: str
    retry_in_s: float


class Continued(msgspec.Struct, frozen=True, kw_only=True):
    """The client's own: the server had ended the conversation of a live source, which goes on in another one."""

    conversation_id: str
    continues: str
    """The one that has ended; `ledger` is its account."""
    ledger: Ledger


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """The client's own: the server has lost `samples` that it had acknowledged, and counts its events from 1 again."""

    samples: int


Event = (
    Ready
    | Ack
    | Partial
    | Late
    | Utterance
    | Insights
    | Receipt
    | Reconnect
    | ErrorReported
    | Ended
    | Unknown
    | Disconnected
    | Continued
    | Forgotten
)

Received = Ready | Ack | Partial | Late | Utterance | Insights | Receipt | Reconnect | ErrorReported | Ended | Unknown

_KNOWN: Final = (Ready, Ack, Partial, Late, Utterance, Insights, Receipt, Reconnect, ErrorReported, Ended)
_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    str(kind.__struct_config__.tag): msgspec.json.Decoder(kind) for kind in _KNOWN
}


class _Header(msgspec.Struct):
    type: str


_HEADER: Final = msgspec.json.Decoder(_Header)


def parse(message: str) -> Received:
    """One text message of the server. Raises `ProtocolError` for what is not an event at all."""
    try:
        raw = message.encode()
        kind = _HEADER.decode(raw).type
        decoder = _DECODERS.get(kind)
        if decoder is None:
            return Unknown(type=kind, raw=raw)
        event: Received = decoder.decode(raw)
    except MALFORMED as error:
        # Not the message itself: it may hold what somebody said.
        raise ProtocolError(f"The server sent a message that is no valid event: {error}") from error
    return event
