"""Live captions: audio → dashboard, pushed directly, never queued. They may change or vanish."""

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
