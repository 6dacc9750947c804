"""What the page and REST clients see. Times are RFC 3339 UTC, offsets are samples at the client's rate."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from quickcomm.contracts.conversations import ConversationState, Ledger
from quickcomm.contracts.dispatching import TaskNotice
from quickcomm.contracts.insight import Insight, Source, Urgency
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import Status, Word
from quickcomm.dashboard.model.projections import latency_of
from quickcomm.dashboard.model.records import ConversationRecord, Corrected, TaskRecord, TaskStatus, UtteranceRecord
from quickcomm.kernel.telemetry import trace_id_in


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody must do."""

    task_id: str
    utterance_id: str
    insight_index: int
    status: TaskStatus
    channel: str
    intent: str
    department: str
    urgency: Urgency
    rooms: tuple[str, ...]
    summary: str
    assignee: str | None
    created_at: str
    acknowledged_at: str | None
    completed_at: str | None
    completed_by: str | None
    completed_by_utterance: str | None
    version: int
    """Counts what people and closings by voice did to it; sent back with an edit, it must still be the same."""


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """What an utterance has to do with another one. `copy`: the same transmission, whose tasks the other one has."""

    kind: Literal["copy"] = "copy"
    utterance_id: str


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """The same transmission as a second receiver or track heard it, and which one that was."""

    utterance_id: str
    conversation_id: str
    channel: str
    speaker: int
    spoken_at: str


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """Who has corrected the text of an utterance, when, and what it was before: as it was heard."""

    by: str
    at: str
    heard: str


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance with what it asks for and what became of it. `insights` is empty until it is classified.

    Where `status` is not `ok`, the text is a guess, or empty: a person must listen. A text that a person has
    `corrected` is `ok`, and has no `words`: when each was said is not known.
    """

    utterance_id: str
    conversation_id: str
    channel: str
    speaker: int
    start_offset: int
    end_offset: int
    sample_rate: int
    text: str
    confidence: float
    unintelligible: bool
    status: Status
    seq: int
    spoken_at: str
    words: tuple[Word, ...]
    insights: tuple[Insight, ...]
    tasks: tuple[Task, ...]
    latency_ms: Latency
    trace_id: str | None = None
    """Of its trace, which is kept where it is in the sample, was slow or failed."""
    relates_to: Relation | None = None
    """The utterance of which this is a copy; it has no tasks then."""
    copies: tuple[Copy, ...] = ()
    """The same transmission through other receivers or tracks, as they were heard."""
    corrected: Correction | None = None
    change: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the conversation was about so far, in at most 400 characters, and who wrote it."""

    text: str
    source: Source
    revision: int
    at: str


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """`ledger` sums the speakers: received = speech + silence + gap.

    `unreachable_since`: since when the client is away, or was when the conversation expired. `continues`: the
    conversation before it of the same source. `archived_at`, `archived_by`: when and by whom it was closed.
    """

    conversation_id: str
    channel: str
    state: ConversationState
    sample_rate: int
    speakers: int
    started_at: str
    ended_at: str | None
    unreachable_since: str | None
    continues: str | None
    utterances: int
    ledger: Ledger
    ledgers: tuple[Ledger, ...]
    summary: Summary | None
    archived_at: str | None
    archived_by: str | None
    change: int


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A radio channel or line. `live`: conversations that are on now; `open_tasks`: not done."""

    channel: str
    live: int
    conversations: int
    utterances: int
    open_tasks: int
    last_utterance_at: str | None


def rfc3339(ns: int) -> str:
    """Milliseconds, UTC: `2026-05-09T07:35:25.123Z`."""
    seconds, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{rest // 10**6:03d}Z"


def _time(ns: int | None) -> str | None:
    return None if ns is None else rfc3339(ns)


def task_view(task: TaskRecord) -> Task:
    return Task(
        task_id=task.task_id,
        utterance_id=task.utterance_id,
        insight_index=task.insight_index,
        status=task.status,
        channel=task.channel,
        intent=task.intent,
        department=task.department,
        urgency=task.urgency,
        rooms=task.rooms,
        summary=task.summary,
        assignee=task.assignee,
        created_at=rfc3339(task.created_ns),
        acknowledged_at=_time(task.acknowledged_ns),
        completed_at=_time(task.completed_ns),
        completed_by=task.completed_by,
        completed_by_utterance=task.completed_by_utterance,
        version=task.version,
    )


def task_notice(task: TaskRecord, record: UtteranceRecord | None) -> TaskNotice:
    """Return what the receiver of a notice is told. `record`: the utterance; None where it is not there any more."""
    heard = None if record is None else record.heard
    return TaskNotice(
        task_id=task.task_id,
        conversation_id="" if record is None else record.conversation_id,
        utterance_id=task.utterance_id,
        channel=task.channel,
        summary=task.summary,
        text="" if heard is None else heard.text,
        intent=task.intent,
        department=task.department,
        urgency=task.urgency,
        rooms=task.rooms,
        assignee=task.assignee or "",
        spoken_at=rfc3339(task.created_ns),
        version=task.version,
    )


def card_view(record: UtteranceRecord, tasks: tuple[TaskRecord, ...], copies: Sequence[UtteranceRecord] = ()) -> Card:
    """Return the card of an utterance whose transcript is there. `copies`: the utterances whose `copy_of` it is."""
    heard = record.heard
    if heard is None:
        message = f"{record.utterance_id} has no transcript yet"
        raise ValueError(message)
    corrected = record.corrected
    return Card(
        utterance_id=heard.utterance_id,
        conversation_id=heard.conversation_id,
        channel=heard.channel,
        speaker=heard.speaker,
        start_offset=heard.start_offset,
        end_offset=heard.end_offset,
        sample_rate=heard.sample_rate,
        text=record.text,
        confidence=heard.confidence,
        unintelligible=heard.unintelligible and corrected is None,
        status="ok" if corrected else "unintelligible" if heard.unintelligible else heard.status,
        seq=heard.seq,
        spoken_at=rfc3339(heard.spoken_at_ns),
        words=() if corrected else heard.words,
        insights=record.found.insights if record.found else (),
        tasks=tuple(task_view(task) for task in tasks),
        latency_ms=latency_of(record),
        trace_id=trace_id_in(heard.traceparent),
        relates_to=Relation(utterance_id=record.copy_of) if record.copy_of else None,
        copies=_copies(copies),
        corrected=_correction(corrected, heard.text),
        change=record.change,
    )


def _correction(corrected: Corrected | None, heard: str) -> Correction | None:
    return None if corrected is None else Correction(by=corrected.by, at=rfc3339(corrected.at_ns), heard=heard)


def _copies(copies: Sequence[UtteranceRecord]) -> tuple[Copy, ...]:
    heard = sorted(
        (copy.heard for copy in copies if copy.heard), key=lambda heard: (heard.spoken_at_ns, heard.utterance_id)
    )
    return tuple(
        Copy(
            utterance_id=each.utterance_id,
            conversation_id=each.conversation_id,
            channel=each.channel,
            speaker=each.speaker,
            spoken_at=rfc3339(each.spoken_at_ns),
        )
        for each in heard
    )


def conversation_view(record: ConversationRecord) -> Conversation:
    return Conversation(
        conversation_id=record.conversation_id,
        channel=record.channel,
        state=record.state,
        sample_rate=record.sample_rate,
        speakers=record.speakers,
        started_at=rfc3339(record.started_ns),
        ended_at=_time(record.ended_ns),
        unreachable_since=_time(record.away_ns),
        continues=record.continues,
        utterances=record.utterances,
        ledger=sum(record.ledgers, Ledger()),
        ledgers=record.ledgers,
        summary=_summary(record),
        archived_at=_time(record.archived_ns),
        archived_by=record.archived_by,
        change=record.change,
    )


def _summary(record: ConversationRecord) -> Summary | None:
    if not record.summary_revision:
        return None
    return Summary(
        text=record.summary,
        source=record.summary_source,
        revision=record.summary_revision,
        at=rfc3339(record.summary_ns),
    )
