"""Folds messages and decisions into the records of one transaction, and says what changed. It decides nothing.

The records are a function of the newest revisions and the newest decisions, whatever the order in which they came.
"""

from typing import Final

import msgspec

from quickcomm.contracts.conversations import ConversationChanged
from quickcomm.contracts.decisions import (
    ArchiveDecision,
    ClosingDecision,
    CopyDecision,
    Decision,
    TaskDecision,
    archive_subject,
    copy_subject,
)
from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.summaries import ConversationSummarized
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.model.decisions import archived, closing_as_decided, corrected, task_as_decided, without_erased
from quickcomm.dashboard.model.projections import (
    wanted_closings,
    wanted_tasks,
    with_change,
    with_insights,
    with_summary,
    with_transcript,
    with_utterance,
)
from quickcomm.dashboard.model.records import Closing, ConversationRecord, Corrected, TaskRecord, UtteranceRecord
from quickcomm.dashboard.ports import Applied, State
from quickcomm.kernel.errors import NotFoundError

UNOWNED: Final = "monolith"
_replace = msgspec.structs.replace
_Key = tuple[str, str]


class Projector:
    """For one transaction: call it once a message or decision, then `finish`.

    `closing_confidence`: how sure a report must be that a job is finished to close a task.
    """

    def __init__(self, state: State, closing_confidence: float = CLOSING_CONFIDENCE) -> None:
        self._state = state
        self.closing_confidence = closing_confidence
        self.loaded: dict[_Key, UtteranceRecord | None] = {}
        """Utterances as they are now, by (site, utterance id); what changed of them is stored at the end."""
        self.undecided: dict[_Key, None] = {}
        """Utterances of which more is known than before: what follows from it is to be decided."""
        self._changed: dict[_Key, None] = {}
        self._tasks: dict[_Key, None] = {}
        self._conversations: dict[_Key, None] = {}
        self._again: dict[_Key, UtteranceRecord] = {}

    def transcript(self, message: UtteranceTranscribed) -> None:
        if self._state.erased.hides(message.site, message.utterance_id):
            return
        before = self.utterance(message.site, message.utterance_id)
        # Who is to understand it is nothing that a card has: what comes past the stream does not say it.
        after = with_transcript(before, _replace(message, owner=UNOWNED, owner_epoch=0))
        if after is before:
            self._seen_again(after)
            return
        conversation = self._state.conversation(message.site, message.conversation_id)
        self._save_conversation(conversation, with_utterance(conversation, message))
        self.adopt(after)

    def knows(self, site: str, utterance_id: str) -> bool:
        """Whether its transcript has been applied."""
        record = self.utterance(site, utterance_id)
        return record is not None and record.heard is not None

    def insights(self, message: InsightsFound) -> None:
        if self._state.erased.hides(message.site, message.utterance_id):
            return
        before = self.utterance(message.site, message.utterance_id)
        after = with_insights(before, message)
        if after is before:
            self._seen_again(after)
            return
        self.adopt(after)

    def conversation(self, message: ConversationChanged) -> None:
        before = self._state.conversation(message.site, message.conversation_id)
        after = with_change(before, message)
        if after is not before:
            self._save_conversation(before, after)

    def summary(self, message: ConversationSummarized) -> None:
        if self._state.erased.hides_summary(message.site, message.conversation_id, message.at_ns):
            return
        before = self._state.conversation(message.site, message.conversation_id)
        after = with_summary(before, message)
        if after is not before:
            self._save_conversation(before, after)

    def decision(self, decision: Decision) -> None:
        """Store a decision that is newer than the known one, and bring its utterance in line with it."""
        erased, site = self._state.erased, decision.site
        if erased.hides(site, decision.what.utterance_id):
            return
        decision = without_erased(decision, lambda utterance_id: erased.hides(site, utterance_id))
        known = self._state.decision(decision.site, decision.subject)
        if known is None or known.order < decision.order:
            self.decided(decision)

    def decided(self, decision: Decision) -> None:
        """Put a decision in the place of the known one."""
        self._state.save_decision(decision)
        if isinstance(decision.what, ArchiveDecision):
            conversation = self._state.conversation(decision.site, decision.what.conversation_id)
            if conversation is not None:
                self._save_conversation(None, conversation)
            return
        record = self.utterance(decision.site, decision.what.utterance_id)
        if record is not None:
            self._fold(record)

    def adopt(self, record: UtteranceRecord) -> None:
        """Take in an utterance of which more is known than before."""
        key = (record.site, record.utterance_id)
        self.loaded[key] = record
        self._changed[key] = None
        if record.complete:
            self.undecided[key] = None
        self._fold(record)

    def save_task(self, task: TaskRecord) -> None:
        self._state.save_task(task)
        self._tasks[task.site, task.task_id] = None
        self._changed.setdefault((task.site, task.utterance_id))

    def task(self, site: str, task_id: str) -> TaskRecord:
        task = self._state.task(site, task_id)
        if task is None:
            raise NotFoundError(f"There is no task {task_id!r}.")
        return task

    def utterance(self, site: str, utterance_id: str) -> UtteranceRecord | None:
        key = (site, utterance_id)
        if key not in self.loaded:
            self.loaded[key] = self._state.utterance(site, utterance_id)
        return self.loaded[key]

    def finish(self) -> Applied:
        """Give every changed record its change number and return what changed."""
        applied = Applied(again=list(self._again.values()))
        changed = [
            _replace(record, change=self._state.next_change(record.site))
            for key in self._changed
            if (record := self.utterance(*key)) is not None
        ]
        for each in changed:
            self._state.save_utterance(each)
        for each in changed:
            key = (each.site, each.utterance_id)
            if each.heard is not None:
                applied.cards.append((each, tuple(self._state.tasks_of(*key))))
                if copies := self._state.copies_of(*key):
                    applied.copies[key] = copies
        for site, task_id in self._tasks:
            task = self._state.task(site, task_id)
            record = self.utterance(site, task.utterance_id) if task else None
            if task is not None and record is not None:
                applied.tasks.append((task, self._state.next_change(site)))
        for site, conversation_id in self._conversations:
            conversation = self._state.conversation(site, conversation_id)
            if conversation is not None:
                conversation = _replace(conversation, change=self._state.next_change(site))
                self._state.save_conversation(conversation)
                applied.conversations.append(conversation)
        return applied

    # -- inside -----------------------------------------------------------------------------------------------------

    def _save_conversation(self, before: ConversationRecord | None, after: ConversationRecord) -> None:
        """`before`: as it is stored; None where what was decided about it must be looked up."""
        if before is None:
            known = self._state.decision(after.site, archive_subject(after.conversation_id))
            after = archived(after, None if known is None else known.what)
        self._state.save_conversation(after)
        self._conversations[after.site, after.conversation_id] = None

    def _seen_again(self, record: UtteranceRecord) -> None:
        if record.complete and record.receipt.total is None:
            self._again[record.site, record.utterance_id] = record

    def _fold(self, record: UtteranceRecord) -> None:
        """Bring the relation, the tasks and the closings of an utterance in line with what is known of it."""
        heard, found = record.heard, record.found
        if heard is None or found is None:
            return
        decided = {one.subject: one for one in self._state.decisions_of(record.site, record.utterance_id)}
        record = self._related(record, decided.get(copy_subject(record.utterance_id)))
        record = self._corrected(record, corrected(decided.values()))
        is_first = record.copy_of is None
        tasks = {one.what.task_id: one for one in decided.values() if isinstance(one.what, TaskDecision)}
        self._fold_tasks(record, wanted_tasks(heard, found) if is_first else {}, tasks)
        closings = wanted_closings(heard, found, self.closing_confidence) if is_first else []
        what = {one.what.insight_index: one.what for one in decided.values() if isinstance(one.what, ClosingDecision)}
        self._fold_closings(record, closings, what)

    def _related(self, record: UtteranceRecord, decision: Decision | None) -> UtteranceRecord:
        """Note of which utterance it is a copy. The cards of both change."""
        if decision is None or not isinstance(decision.what, CopyDecision) or decision.what.copy_of == record.copy_of:
            return record
        related = _replace(record, copy_of=decision.what.copy_of)
        self.loaded[record.site, record.utterance_id] = related
        for utterance_id in (record.utterance_id, record.copy_of, related.copy_of):
            if utterance_id is not None:
                self._changed.setdefault((record.site, utterance_id))
        return related

    def _corrected(self, record: UtteranceRecord, text: Corrected | None) -> UtteranceRecord:
        """Note what stands in the place of the heard text."""
        if record.corrected == text:
            return record
        key = (record.site, record.utterance_id)
        self.loaded[key] = after = _replace(record, corrected=text)
        self._changed.setdefault(key)
        return after

    def _fold_tasks(self, record: UtteranceRecord, wanted: dict[str, TaskRecord], decided: dict[str, Decision]) -> None:
        existing = {task.task_id: task for task in self._state.tasks_of(record.site, record.utterance_id)}
        for task_id in dict.fromkeys((*wanted, *existing, *decided)):
            before = existing.get(task_id)
            after = task_as_decided(before, wanted.get(task_id), decided.get(task_id))
            if after is not None and after != before:
                self.save_task(after)
            elif after is None and before is not None:
                self._state.delete_task(before)
                self._tasks.pop((before.site, task_id), None)
                self._changed.setdefault((before.site, before.utterance_id))

    def _fold_closings(
        self, record: UtteranceRecord, closings: list[Closing], decided: dict[int, ClosingDecision]
    ) -> None:
        existing = {
            closing.insight_index: closing for closing in self._state.closings_of(record.site, record.utterance_id)
        }
        for wanted in closings:
            before = existing.pop(wanted.insight_index, None)
            after = closing_as_decided(before, wanted, decided.get(wanted.insight_index))
            if after != before:
                self._state.save_closing(after)
        for left in existing.values():
            self._state.delete_closing(left)
