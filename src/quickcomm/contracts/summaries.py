"""Stream `summaries.v1`: intelligence → dashboard. What a conversation was about so far."""

import msgspec

from quickcomm.contracts.insight import Source

SUMMARIES = "summaries.v1"
MAX_SUMMARY = 400


class ConversationSummarized(msgspec.Struct, frozen=True, kw_only=True):
    """`revision` counts from 1 in each conversation; a higher one replaces a lower one."""

    site: str
    conversation_id: str
    channel: str
    revision: int
    text: str
    """At most `MAX_SUMMARY` characters."""
    source: Source
    utterances: int
    """How many it covers."""
    at_ns: int
