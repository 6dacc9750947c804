"""What is kept: an utterance as its two messages, conversations, tasks, and closings by voice."""

import msgspec

from quickcomm.contracts.conversations import ConversationState, Ledger
from quickcomm.contracts.decisions import TaskStatus
from quickcomm.contracts.insight import Source, Urgency
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed

__all__ = ["Closing", "ConversationRecord", "Corrected", "TaskRecord", "TaskStatus", "UtteranceRecord", "task_id"]


class Corrected(msgspec.Struct, frozen=True, kw_only=True):
    """A correction by a person of the heard text. `number`: that of its decision."""

    number: int
    text: str
    by: str
    at_ns: int


class UtteranceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Both messages as they came, in either order, and the part of the receipt that is stamped here."""

    site: str
    utterance_id: str
    conversation_id: str
    heard: UtteranceTranscribed | None = None
    found: InsightsFound | None = None
    receipt: Latency = Latency()
    copy_of: str | None = None
    """The utterance of which this is the same transmission, by a decision."""
    corrected: Corrected | None = None
    change: int = 0

    @property
    def text(self) -> str:
        """Return what was said: as a person has corrected it, or as it was heard."""
        if self.corrected is not None:
            return self.corrected.text
        return "" if self.heard is None else self.heard.text

    @property
    def complete(self) -> bool:
        return self.heard is not None and self.found is not None


class ConversationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`at_ns` and `state` are of the newest message; 0 while only utterances told of the conversation."""

    site: str
    conversation_id: str
    channel: str
    state: ConversationState = "live"
    sample_rate: int = 0
    speakers: int = 1
    started_ns: int
    ended_ns: int | None = None
    at_ns: int = 0
    utterances: int = 0
    last_spoken_ns: int = 0
    ledgers: tuple[Ledger, ...] = ()
    summary: str = ""
    summary_source: Source = "local"
    summary_revision: int = 0
    summary_ns: int = 0
    continues: str | None = None
    """The conversation before it of the same source."""
    interrupted_ns: int = 0
    live_ns: int = 0
    """When its client was last told to have gone, and to be there."""
    archived_ns: int | None = None
    archived_by: str | None = None
    """Who closed it, by a decision."""
    change: int = 0

    @property
    def away_ns(self) -> int | None:
        """Since when its client is away; of a conversation that expired, since when it was."""
        away = self.state in ("interrupted", "expired") and 0 < self.interrupted_ns >= self.live_ns
        return self.interrupted_ns if away else None


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody must do. `created_ns` is when it was said. A person's edits are never overwritten."""

    site: str
    task_id: str
    utterance_id: str
    insight_index: int
    channel: str
    status: TaskStatus = "open"
    intent: str = ""
    department: str
    urgency: Urgency
    rooms: tuple[str, ...]
    summary: str
    assignee: str | None = None
    created_ns: int
    acknowledged_ns: int | None = None
    completed_ns: int | None = None
    completed_by: str | None = None
    completed_by_utterance: str | None = None
    reopened_ns: int | None = None
    version: int = 0
    """Of the newest decision about it; 0 while there was none."""

    @property
    def order(self) -> tuple[int, str, int]:
        return (self.created_ns, self.utterance_id, self.insight_index)

    @property
    def touched(self) -> bool:
        """A person did something with it, so that it stays whatever later revisions say."""
        edits = (self.assignee, self.acknowledged_ns, self.completed_by, self.reopened_ns)
        return any(edit is not None for edit in edits)


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody said that a job is finished. `pinned`: decided for good, because a person has acted since."""

    site: str
    utterance_id: str
    insight_index: int
    channel: str
    department: str
    rooms: tuple[str, ...]
    at_ns: int
    task_id: str | None = None
    pinned: bool = False

    @property
    def order(self) -> tuple[int, str, int]:
        return (self.at_ns, self.utterance_id, self.insight_index)


def task_id(utterance_id: str, insight_index: int) -> str:
    return f"{utterance_id}:{insight_index}"
