"""Topics of the live channel: what pages show at once, how instances are, and what dashboards say back.

All of it may be lost: what is durable comes by the streams as well.
"""

from collections.abc import Hashable
from typing import Annotated, ClassVar, Final

import msgspec

from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.health import Alarm, ClassifierHealth
from quickcomm.contracts.messaging import Topic
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed

LINK: Final = "/internal/v1/link"
EVERYTHING: Final = "*"
STATUS_EVERY_S: Final = 1.0
FIRST: Final = ""
AUDIO: Final = ("audio",)
DASHBOARD: Final = ("dashboard",)


class Captioned(Topic, frozen=True, kw_only=True, tag="caption"):
    """Something is being said on a channel that a page shows, or an emergency on any."""

    kind: ClassVar = "state"
    publishers: ClassVar = AUDIO
    subscribers: ClassVar = DASHBOARD

    caption: Caption

    def key(self) -> Hashable:
        said = self.caption
        return said.site, said.conversation_id, said.speaker, said.emergency


class FellBehind(Topic, frozen=True, kw_only=True, tag="behind"):
    """A conversation is behind, or whole again; every few seconds while it is."""

    kind: ClassVar = "state"
    publishers: ClassVar = AUDIO
    subscribers: ClassVar = DASHBOARD

    behind: Behind

    def key(self) -> Hashable:
        return self.behind.site, self.behind.conversation_id


class Committed(Topic, frozen=True, kw_only=True, tag="final"):
    """An utterance that is durable. The same message comes by `transcripts.v1`.

    `after`: the utterance before it in its conversation, or `FIRST`. A subscriber that does not know that one yet
    leaves this to the stream, so that within a conversation nothing overtakes.
    """

    publishers: ClassVar = AUDIO
    subscribers: ClassVar = DASHBOARD

    message: UtteranceTranscribed
    after: str


class InstanceStatus(Topic, frozen=True, kw_only=True, tag="status"):
    """How a module of an instance is; each second."""

    kind: ClassVar = "state"
    replayed: ClassVar = True
    publishers: ClassVar = ("audio", "intelligence", "operations")
    subscribers: ClassVar = DASHBOARD

    module: str = ""
    """Empty: that of the instance; 0.1.0 does not name it."""
    sessions: int = 0
    stt_backlog_s: float = 0.0
    alarms: tuple[Alarm, ...] = ()
    classifier: ClassifierHealth = ClassifierHealth()
    budget: dict[str, float] = msgspec.field(default_factory=dict)
    """Milliseconds that each stage may take, by its name."""
    trace_url: str | None = None

    def key(self) -> Hashable:
        return self.module


class Room(Topic, frozen=True, kw_only=True, tag="room"):
    """How many further conversations an instance of audio can take now. Said all the time while audio moves."""

    kind: ClassVar = "state"
    replayed: ClassVar = True
    publishers: ClassVar = AUDIO
    subscribers: ClassVar = AUDIO

    conversations: int
    stt_backlog_s: float = 0.0


class SoundCopy(Topic, frozen=True, kw_only=True, tag="sound_copy"):
    """A piece of a conversation, for the process `to` of the other side of audio, which hears it in the shadow.

    `number`: of the messages about a conversation, with `ServedText`, from 0 at each beginning. `tracks`: samples of
    each speaker from `offset` on, int16 at `sample_rate`; None is a gap. `flush`: a key was let go there. `settled`:
    what lies before it is written down. `over`: all is.
    """

    kind: ClassVar = "bulk"
    publishers: ClassVar = AUDIO
    subscribers: ClassVar = AUDIO

    to: str
    site: str
    conversation_id: str
    number: int
    sample_rate: int
    offset: int
    samples: int = 0
    tracks: tuple[bytes | None, ...]
    flush: int | None = None
    settled: int = 0
    over: bool = False


class ServedText(Topic, frozen=True, kw_only=True, tag="served_text"):
    """An utterance that was written down of a conversation that is copied: see `SoundCopy`."""

    kind: ClassVar = "bulk"
    publishers: ClassVar = AUDIO
    subscribers: ClassVar = AUDIO

    to: str
    site: str
    conversation_id: str
    number: int
    speaker: int
    start_offset: int
    end_offset: int
    text: str
    settled: int = 0


class Watching(Topic, frozen=True, kw_only=True, tag="watching"):
    """The channels that pages show now, by site; `EVERYTHING` for all. Replaces what was said before."""

    kind: ClassVar = "state"
    replayed: ClassVar = True
    publishers: ClassVar = DASHBOARD
    back: ClassVar = True

    sites: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


class Receipt(Topic, frozen=True, kw_only=True, tag="receipt"):
    """A card was pushed with all that belongs to it. For the instance that has the conversation; others drop it."""

    publishers: ClassVar = DASHBOARD
    back: ClassVar = True

    site: Annotated[str, msgspec.Meta(max_length=200)]
    conversation_id: Annotated[str, msgspec.Meta(max_length=200)]
    utterance_id: Annotated[str, msgspec.Meta(max_length=300)]
    latency: Latency


class KeepTrace(Topic, frozen=True, kw_only=True, tag="keep_trace"):
    """After its receipt: the trace of an utterance is kept for what only the dashboard knows, a slow page."""

    publishers: ClassVar = DASHBOARD
    back: ClassVar = True

    site: Annotated[str, msgspec.Meta(max_length=200)]
    conversation_id: Annotated[str, msgspec.Meta(max_length=200)]
    utterance_id: Annotated[str, msgspec.Meta(max_length=300)]
    why: Annotated[str, msgspec.Meta(max_length=20)]
    painted_ms: float | None = None
