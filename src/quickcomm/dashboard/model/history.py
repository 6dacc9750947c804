"""How a copied record is merged with the one that is there already. Doing it twice changes nothing.

Messages that came meanwhile, and what people did meanwhile, stand.
"""

import msgspec

from quickcomm.dashboard.model.projections import RANK, with_insights, with_transcript
from quickcomm.dashboard.model.records import Closing, ConversationRecord, TaskRecord, UtteranceRecord

_replace = msgspec.structs.replace


def utterance_with(own: UtteranceRecord, earlier: UtteranceRecord) -> UtteranceRecord:
    """The first transcript and the highest revision of insights; the same object if there is nothing new."""
    if earlier.heard is not None:
        own = with_transcript(own, earlier.heard)
    if earlier.found is not None:
        own = with_insights(own, earlier.found)
    return own


def task_with(own: TaskRecord, earlier: TaskRecord) -> TaskRecord:
    """What people and voices did before, unless somebody has done something since."""
    if own.touched:
        return own
    if own.status != "open":  # a voice has closed it here
        return _replace(own, assignee=earlier.assignee, acknowledged_ns=earlier.acknowledged_ns)
    return _replace(
        own,
        status=earlier.status,
        assignee=earlier.assignee,
        acknowledged_ns=earlier.acknowledged_ns,
        completed_ns=earlier.completed_ns,
        completed_by=earlier.completed_by,
        completed_by_utterance=earlier.completed_by_utterance,
        reopened_ns=earlier.reopened_ns,
    )


def closing_with(own: Closing, earlier: Closing) -> Closing:
    """What it closed before, unless it has closed something since."""
    if own.task_id is not None or own.pinned or earlier.task_id is None:
        return own
    return _replace(own, task_id=earlier.task_id, pinned=earlier.pinned)


def conversation_with(own: ConversationRecord, earlier: ConversationRecord, utterances: int) -> ConversationRecord:
    """`utterances`: how many there are of both."""
    newer = earlier if (earlier.at_ns, RANK[earlier.state]) > (own.at_ns, RANK[own.state]) else own
    told = earlier if earlier.summary_revision > own.summary_revision else own
    return _replace(
        newer,
        started_ns=min(own.started_ns, earlier.started_ns),
        speakers=newer.speakers if newer.at_ns else max(own.speakers, earlier.speakers),
        utterances=utterances,
        last_spoken_ns=max(own.last_spoken_ns, earlier.last_spoken_ns),
        continues=own.continues or earlier.continues,
        interrupted_ns=max(own.interrupted_ns, earlier.interrupted_ns),
        live_ns=max(own.live_ns, earlier.live_ns),
        summary=told.summary,
        summary_source=told.summary_source,
        summary_revision=told.summary_revision,
        summary_ns=told.summary_ns,
        change=own.change,
    )
