"""Live captions, and how far channels are behind: audio → dashboard, pushed directly, never queued. They may vanish."""

import msgspec


class Caption(msgspec.Struct, frozen=True, kw_only=True):
    """What is being said now. `final` captions carry the utterance id and are followed by the durable transcript."""

    site: str
    conversation_id: str
    channel: str
    speaker: int
    start_offset: int
    text: str
    final: bool = False
    utterance_id: str | None = None
    emergency: bool = False
    """By its words it is one, and its card comes later: not confirmed yet, and shown to all pages of the site."""
    side: str | msgspec.UnsetType = msgspec.UNSET
    """The side whose audio made it, during a migration."""


class Behind(msgspec.Struct, frozen=True, kw_only=True):
    """How long the oldest words of a conversation wait to be written down, in ms; 0 once it is whole again."""

    site: str
    conversation_id: str
    channel: str
    behind_ms: int
