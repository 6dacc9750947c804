"""Stream `conversations.v1`: audio → dashboard. The life of a conversation and its ledger."""

from typing import Annotated, ClassVar, Literal

import msgspec

from quickcomm.contracts.messaging import Request

CONVERSATIONS = "conversations.v1"

ConversationState = Literal["live", "interrupted", "ended", "expired"]


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Samples at the client's rate. Always: received = speech + silence + gap."""

    received: int = 0
    speech: int = 0
    silence: int = 0
    gap: int = 0

    @property
    def balanced(self) -> bool:
        return self.received == self.speech + self.silence + self.gap

    def __add__(self, other: "Ledger") -> "Ledger":
        return Ledger(
            received=self.received + other.received,
            speech=self.speech + other.speech,
            silence=self.silence + other.silence,
            gap=self.gap + other.gap,
        )


class ConversationChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation came, went quiet, or ended. `ledgers` has one entry a speaker, durable up to the last ack."""

    site: str
    conversation_id: str
    channel: str
    state: ConversationState
    sample_rate: int
    speakers: int
    ledgers: tuple[Ledger, ...]
    at_ns: int
    reason: str | None = None
    continues: str | None = None
    """The conversation before it of the same source, told as it begins."""
    side: str | msgspec.UnsetType = msgspec.UNSET
    """The side whose audio made it, during a migration."""
    began_ns: int | msgspec.UnsetType = msgspec.UNSET
    live_ns: int | msgspec.UnsetType = msgspec.UNSET
    interrupted_ns: int | msgspec.UnsetType = msgspec.UNSET
    """When the conversation began, was last live and was last interrupted (0: never): a store may have replaced the
    changes that told it."""


class Ledgers(msgspec.Struct, frozen=True, kw_only=True):
    """By conversation: the ledger of each speaker, durable up to the last ack."""

    ledgers: dict[str, tuple[Ledger, ...]]


class GetLiveLedgers(Request[Ledgers], frozen=True, kw_only=True, tag="ledgers.live"):
    """Asks for the ledgers of conversations of a site as of now; the stream has them at changes of state only."""

    module: ClassVar = "audio"
    callers: ClassVar = ("dashboard",)
    within_s: ClassVar = 1.0
    about: ClassVar = "how far live conversations are"

    site: str
    conversation_ids: Annotated[list[str], msgspec.Meta(max_length=1_000)]
