"""Stream `insights.v1`: intelligence → audio (for the client's event log) and dashboard. One message an utterance."""

import msgspec

from quickcomm.contracts.insight import Insight
from quickcomm.contracts.timing import Latency

INSIGHTS = "insights.v1"


class InsightsFound(msgspec.Struct, frozen=True, kw_only=True):
    """All insights of one utterance, in the order spoken. A renewed set has a higher `revision` throughout."""

    site: str
    conversation_id: str
    utterance_id: str
    revision: int
    insights: tuple[Insight, ...]
    opens_tasks: tuple[int, ...] = ()
    """Indexes of the insights that call for somebody to act, by the site pack."""
    speech_ended_ns: int
    published_ns: int
    latency: Latency
    owner: str = "monolith"
    """The side that found them, and the epoch in which it had the conversation: as in the transcript."""
    owner_epoch: int = 0
    traceparent: str | None = None
    text: str | msgspec.UnsetType = msgspec.UNSET
    """The text that they are of, where a person has corrected it."""
