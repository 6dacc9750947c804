"""How a message changes a record. Seen twice it changes nothing, and the order of messages does not matter."""

from typing import Final

import msgspec

from quickcomm.contracts.conversations import ConversationChanged, ConversationState
from quickcomm.contracts.insight import TASK_DONE, Insight
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.summaries import ConversationSummarized
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.model.records import Closing, ConversationRecord, TaskRecord, UtteranceRecord, task_id

RANK: dict[ConversationState, int] = {"live": 0, "interrupted": 1, "ended": 2, "expired": 3}
_TIMES: Final = tuple(name for name in Latency.__struct_fields__ if name != "sides")
_replace = msgspec.structs.replace


def with_transcript(record: UtteranceRecord | None, message: UtteranceTranscribed) -> UtteranceRecord:
    """The first transcript of an utterance stands."""
    if record is None:
        record = UtteranceRecord(
            site=message.site, utterance_id=message.utterance_id, conversation_id=message.conversation_id
        )
    return record if record.heard is not None else _replace(record, heard=message)


def with_insights(record: UtteranceRecord | None, message: InsightsFound) -> UtteranceRecord:
    """The highest revision stands."""
    if record is None:
        record = UtteranceRecord(
            site=message.site, utterance_id=message.utterance_id, conversation_id=message.conversation_id
        )
    if record.found is not None and record.found.revision >= message.revision:
        return record
    return _replace(record, found=message)


def with_change(record: ConversationRecord | None, message: ConversationChanged) -> ConversationRecord:
    """The newest state stands; of two at the same moment, the one nearer the end."""
    if record is None:
        record = ConversationRecord(
            site=message.site,
            conversation_id=message.conversation_id,
            channel=message.channel,
            started_ns=message.at_ns,
        )
    started = min(record.started_ns, message.began_ns or message.at_ns)
    interrupted_ns = message.at_ns if message.state == "interrupted" else message.interrupted_ns or 0
    live_ns = message.at_ns if message.state == "live" else message.live_ns or 0
    record = _replace(
        record,
        continues=record.continues or message.continues,
        interrupted_ns=max(record.interrupted_ns, interrupted_ns),
        live_ns=max(record.live_ns, live_ns),
    )
    if (message.at_ns, RANK[message.state]) <= (record.at_ns, RANK[record.state]):
        return record if started == record.started_ns else _replace(record, started_ns=started)
    return _replace(
        record,
        channel=message.channel,
        state=message.state,
        sample_rate=message.sample_rate,
        speakers=message.speakers,
        started_ns=started,
        ended_ns=message.at_ns if message.state in ("ended", "expired") else None,
        at_ns=message.at_ns,
        ledgers=message.ledgers,
    )


def with_utterance(record: ConversationRecord | None, message: UtteranceTranscribed) -> ConversationRecord:
    """Count a new utterance; the caller has made sure that it is new."""
    if record is None:
        record = ConversationRecord(
            site=message.site,
            conversation_id=message.conversation_id,
            channel=message.channel,
            sample_rate=message.sample_rate,
            speakers=message.speaker + 1,
            started_ns=message.spoken_at_ns,
        )
    known = record.at_ns > 0
    return _replace(
        record,
        channel=record.channel if known else min(record.channel, message.channel),
        speakers=record.speakers if known else max(record.speakers, message.speaker + 1),
        started_ns=min(record.started_ns, message.spoken_at_ns),
        utterances=record.utterances + 1,
        last_spoken_ns=max(record.last_spoken_ns, message.speech_ended_ns),
    )


def with_summary(record: ConversationRecord | None, message: ConversationSummarized) -> ConversationRecord:
    """The highest revision stands."""
    if record is None:
        record = ConversationRecord(
            site=message.site,
            conversation_id=message.conversation_id,
            channel=message.channel,
            started_ns=message.at_ns,
        )
    if record.summary_revision >= message.revision:
        return record
    return _replace(
        record,
        summary=message.text,
        summary_source=message.source,
        summary_revision=message.revision,
        summary_ns=message.at_ns,
    )


def latency_of(record: UtteranceRecord) -> Latency:
    """The receipt so far: each stage by whoever measured it last on the way."""
    stages: dict[str, float] = {}
    for part in (record.heard and record.heard.latency, record.found and record.found.latency, record.receipt):
        if part is not None:
            stages.update({name: ms for name in _TIMES if (ms := getattr(part, name)) is not None})
    return Latency(**stages, sides=sides_of(record))


def sides_of(record: UtteranceRecord) -> dict[str, str] | msgspec.UnsetType:
    """Return the side that served each module's stages; unset for what was not made during a migration."""
    sides: dict[str, str] = {}
    if record.heard is not None and record.heard.side is not msgspec.UNSET:
        sides["audio"] = record.heard.side
        if record.found is not None:
            sides["intelligence"] = record.found.owner
    sides |= record.receipt.served_by
    return sides or msgspec.UNSET


def own_latency(record: UtteranceRecord) -> Latency:
    """The receipt without the time before the sound arrived: what the site itself took, to hold against its budgets."""
    latency, late = latency_of(record), record.heard.late_ms if record.heard else 0.0
    return latency if latency.total is None else _replace(latency, total=max(0.0, latency.total - late))


def wanted_tasks(heard: UtteranceTranscribed, found: InsightsFound) -> dict[str, TaskRecord]:
    """The tasks that an utterance opens, as untouched."""
    tasks = {}
    for insight in found.insights:
        if insight.index in found.opens_tasks and insight.intent != TASK_DONE:
            task = _task(heard, insight)
            tasks[task.task_id] = task
    return tasks


def renewed(existing: TaskRecord, wanted: TaskRecord) -> TaskRecord:
    """What a new revision says about a task, without what people and voices did to it."""
    return _replace(
        existing,
        intent=wanted.intent,
        department=wanted.department,
        urgency=wanted.urgency,
        rooms=wanted.rooms,
        summary=wanted.summary,
    )


def wanted_closings(heard: UtteranceTranscribed, found: InsightsFound, least: float) -> list[Closing]:
    """Return the closings that an utterance asks for: its reports of finished jobs that are at least so sure."""
    return [
        Closing(
            site=heard.site,
            utterance_id=heard.utterance_id,
            insight_index=insight.index,
            channel=heard.channel,
            department=insight.department,
            rooms=insight.rooms,
            at_ns=heard.speech_ended_ns,
        )
        for insight in found.insights
        if insight.intent == TASK_DONE and insight.confidence >= least
    ]


def _task(heard: UtteranceTranscribed, insight: Insight) -> TaskRecord:
    return TaskRecord(
        site=heard.site,
        task_id=task_id(heard.utterance_id, insight.index),
        utterance_id=heard.utterance_id,
        insight_index=insight.index,
        channel=heard.channel,
        intent=insight.intent,
        department=insight.department,
        urgency=insight.urgency,
        rooms=insight.rooms,
        summary=insight.summary,
        created_ns=heard.speech_ended_ns,
    )
