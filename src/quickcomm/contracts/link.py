"""The direct link, a WebSocket that the dashboard opens to every instance that hears or understands.

What must be seen at once goes this way, without a queue: captions, utterances as soon as they are durable, and how the
instance is. The dashboard says what somebody looks at, and when a card was pushed. All of it may be lost: what is
durable comes by the streams as well.
"""

from typing import Annotated, Final

import msgspec

from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.health import Alarm, ClassifierHealth
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed

LINK: Final = "/internal/v1/link"
EVERYTHING: Final = "*"
STATUS_EVERY_S: Final = 1.0
FIRST: Final = ""


class Captioned(msgspec.Struct, frozen=True, kw_only=True, tag="caption"):
    """Something is being said where somebody looks."""

    caption: Caption


class FellBehind(msgspec.Struct, frozen=True, kw_only=True, tag="behind"):
    """A conversation is behind, or whole again; every few seconds while it is."""

    behind: Behind


class Committed(msgspec.Struct, frozen=True, kw_only=True, tag="final"):
    """An utterance that is durable. The same message comes by `transcripts.v1`.

    `after`: the utterance before it in its conversation, or `FIRST`. Who does not know that one yet leaves this to the
    stream, so that within a conversation nothing overtakes.
    """

    message: UtteranceTranscribed
    after: str


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """How the instance is; each second."""

    sessions: int = 0
    stt_backlog_s: float = 0.0
    alarms: tuple[Alarm, ...] = ()
    classifier: ClassifierHealth = ClassifierHealth()
    budget: dict[str, float] = {}
    """Milliseconds that each stage may take, by its name."""
    trace_url: str | None = None


class Watching(msgspec.Struct, frozen=True, kw_only=True, tag="watching"):
    """What somebody looks at now: channels by site, `EVERYTHING` for all. Replaces what was said before."""

    sites: dict[str, tuple[str, ...]] = {}


class Receipt(msgspec.Struct, frozen=True, kw_only=True, tag="receipt"):
    """A card was pushed with all that belongs to it. For the instance that has the conversation; others drop it."""

    site: Annotated[str, msgspec.Meta(max_length=200)]
    conversation_id: Annotated[str, msgspec.Meta(max_length=200)]
    utterance_id: Annotated[str, msgspec.Meta(max_length=300)]
    latency: Latency


class KeepTrace(msgspec.Struct, frozen=True, kw_only=True, tag="keep_trace"):
    """After its receipt: the trace of an utterance is kept for what only the dashboard knows, a slow page."""

    site: Annotated[str, msgspec.Meta(max_length=200)]
    conversation_id: Annotated[str, msgspec.Meta(max_length=200)]
    utterance_id: Annotated[str, msgspec.Meta(max_length=300)]
    why: Annotated[str, msgspec.Meta(max_length=20)]
    painted_ms: float | None = None


FromInstance = Captioned | FellBehind | Committed | InstanceStatus
FromDashboard = Watching | Receipt | KeepTrace
