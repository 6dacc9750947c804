"""Applies messages and people's edits to the records of one transaction, and says what changed."""

from collections.abc import Iterable
from typing import Final

import msgspec

from quickcomm.contracts.conversations import ConversationChanged
from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.summaries import ConversationSummarized
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.model.copies import Said, first_of, said
from quickcomm.dashboard.model.edits import Action, edited
from quickcomm.dashboard.model.matching import (
    WINDOW_NS,
    closed_by_voice,
    match,
    match_by_channel,
    reopened_by_voice,
)
from quickcomm.dashboard.model.projections import (
    renewed,
    wanted_closings,
    wanted_tasks,
    with_change,
    with_insights,
    with_summary,
    with_transcript,
    with_utterance,
)
from quickcomm.dashboard.model.records import Closing, TaskRecord, UtteranceRecord
from quickcomm.dashboard.ports import Applied, State
from quickcomm.kernel.errors import NotFoundError

MAX_SPREAD: Final = 8
"""How often the rooms to match again may spread to rooms named together with them."""

_replace = msgspec.structs.replace
_Key = tuple[str, str]


class Projector:
    """For one transaction: call it once a message, then `finish`.

    `closing_confidence`: how sure a report must be that a job is finished to close a task.
    """

    def __init__(self, state: State, closing_confidence: float = CLOSING_CONFIDENCE) -> None:
        self._state = state
        self._closing_confidence = closing_confidence
        self._loaded: dict[_Key, UtteranceRecord | None] = {}
        self._changed: dict[_Key, None] = {}
        self._tasks: dict[_Key, None] = {}
        self._conversations: dict[_Key, None] = {}
        self._again: dict[_Key, UtteranceRecord] = {}
        self._compared: dict[tuple[str, str, int], Said] = {}

    def transcript(self, message: UtteranceTranscribed) -> None:
        before = self._utterance(message.site, message.utterance_id)
        after = with_transcript(before, message)
        if after is before:
            self._seen_again(after)
            return
        conversation = self._state.conversation(message.site, message.conversation_id)
        self._state.save_conversation(with_utterance(conversation, message))
        self._conversations[message.site, message.conversation_id] = None
        self._change(after)

    def knows(self, site: str, utterance_id: str) -> bool:
        """Whether its transcript has been applied."""
        record = self._utterance(site, utterance_id)
        return record is not None and record.heard is not None

    def insights(self, message: InsightsFound) -> None:
        before = self._utterance(message.site, message.utterance_id)
        after = with_insights(before, message)
        if after is before:
            self._seen_again(after)
            return
        self._change(after)

    def conversation(self, message: ConversationChanged) -> None:
        before = self._state.conversation(message.site, message.conversation_id)
        after = with_change(before, message)
        if after is not before:
            self._state.save_conversation(after)
            self._conversations[message.site, message.conversation_id] = None

    def summary(self, message: ConversationSummarized) -> None:
        before = self._state.conversation(message.site, message.conversation_id)
        after = with_summary(before, message)
        if after is not before:
            self._state.save_conversation(after)
            self._conversations[message.site, message.conversation_id] = None

    def edit(self, task: TaskRecord, action: Action, *, by: str, assignee: str | None, now_ns: int) -> TaskRecord:
        """Raises `ConflictError` if the task's state does not allow it. Doing it twice is fine."""
        after = edited(task, action, by=by, assignee=assignee, now_ns=now_ns)
        if after == task:
            return task
        if task.completed_by_utterance is not None and after.completed_by_utterance is None:
            self._pin(task)
        self._save_task(after)
        return after

    def adopt(self, record: UtteranceRecord) -> None:
        """An utterance of which more is known than before, from elsewhere than a message."""
        self._change(record)

    def adopt_task(self, task: TaskRecord) -> None:
        self._save_task(task)

    def match_again(self, closing: Closing) -> None:
        """Tasks that were said before it have come since."""
        self._match_again(closing.site, set(closing.rooms), closing.at_ns)

    def task(self, site: str, task_id: str) -> TaskRecord:
        task = self._state.task(site, task_id)
        if task is None:
            raise NotFoundError(f"There is no task {task_id!r}.")
        return task

    def finish(self) -> Applied:
        """Give every changed record its change number and return what changed."""
        applied = Applied(cards=[], copies={}, tasks=[], conversations=[], again=list(self._again.values()))
        changed = [
            _replace(record, change=self._state.next_change(record.site))
            for key in self._changed
            if (record := self._utterance(*key)) is not None
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
            record = self._utterance(site, task.utterance_id) if task else None
            if task is not None and record is not None:
                applied.tasks.append((task, self._state.next_change(site)))
        for site, conversation_id in self._conversations:
            conversation = self._state.conversation(site, conversation_id)
            if conversation is not None:
                conversation = _replace(conversation, change=self._state.next_change(site))
                self._state.save_conversation(conversation)
                applied.conversations.append(conversation)
        return applied

    def _utterance(self, site: str, utterance_id: str) -> UtteranceRecord | None:
        key = (site, utterance_id)
        if key not in self._loaded:
            self._loaded[key] = self._state.utterance(site, utterance_id)
        return self._loaded[key]

    def _seen_again(self, record: UtteranceRecord) -> None:
        if record.complete and record.receipt.total is None:
            self._again[record.site, record.utterance_id] = record

    def _change(self, record: UtteranceRecord) -> None:
        key = (record.site, record.utterance_id)
        self._loaded[key] = record
        self._changed[key] = None
        self._settle(record)

    def _settle(self, record: UtteranceRecord) -> None:
        """Bring copies, tasks and closings in line with what the utterance says now."""
        me = self._said(record)
        if me is None:
            return
        beside = self._beside(record.site, me)
        self._relate(record, first_of(me, [other for other, _ in beside]))
        self._settle_work(self._loaded[record.site, record.utterance_id] or record)
        for other, copy_of in beside:
            if copy_of != me.utterance_id and first_of(other, (me,)) is None:
                continue
            theirs = self._utterance(record.site, other.utterance_id)
            near = self._beside(record.site, other)
            if theirs is not None and self._relate(theirs, first_of(other, [each for each, _ in near])):
                self._settle_work(self._loaded[record.site, other.utterance_id] or theirs)

    def _settle_work(self, record: UtteranceRecord) -> None:
        """Bring tasks and closings in line with it; a copy has none."""
        if record.heard is None or record.found is None:
            return
        own = record.copy_of is None
        rooms = self._settle_tasks(record, wanted_tasks(record.heard, record.found) if own else {})
        closings = wanted_closings(record.heard, record.found, self._closing_confidence) if own else []
        wanted = {closing.insight_index: closing for closing in closings}
        rooms |= self._settle_closings(record, wanted)
        if rooms:
            self._match_again(record.site, rooms, record.heard.speech_ended_ns)

    def _relate(self, record: UtteranceRecord, first: str | None) -> bool:
        """Note of which utterance it is a copy; return False if that is known. The cards of both change."""
        if record.copy_of == first:
            return False
        self._loaded[record.site, record.utterance_id] = _replace(record, copy_of=first)
        for utterance_id in (record.utterance_id, record.copy_of, first):
            if utterance_id is not None:
                self._changed.setdefault((record.site, utterance_id))
        return True

    def _beside(self, site: str, me: Said) -> list[tuple[Said, str | None]]:
        """Return the other complete utterances of about that time, as they are now, each with its first."""
        stored = self._state.said_beside(me, site, self._closing_confidence)
        beside = {other.utterance_id: (other, copy_of) for other, copy_of in stored}
        for (where, utterance_id), record in self._loaded.items():
            other = self._said(record) if where == site and record is not None else None
            if other is None or record is None:
                continue
            beside.pop(utterance_id, None)
            if other.started_ns < me.ended_ns and me.started_ns < other.ended_ns:
                beside[utterance_id] = (other, record.copy_of)
        beside.pop(me.utterance_id, None)
        return list(beside.values())

    def _said(self, record: UtteranceRecord) -> Said | None:
        if record.found is None or record.heard is None:
            return None
        key = (record.site, record.utterance_id, record.found.revision)
        if key not in self._compared:
            self._compared[key] = said(record.heard, record.found, self._closing_confidence)
        return self._compared[key]

    def _settle_tasks(self, record: UtteranceRecord, wanted: dict[str, TaskRecord]) -> set[str]:
        existing = {task.task_id: task for task in self._state.tasks_of(record.site, record.utterance_id)}
        rooms: set[str] = set()
        for task_id, task in wanted.items():
            before = existing.get(task_id)
            after = task if before is None else renewed(before, task)
            if after != before:
                self._save_task(after)
                rooms.update(after.rooms, before.rooms if before else ())
        for task_id, task in existing.items():
            if task_id not in wanted and not task.touched:
                self._state.delete_task(task)
                self._tasks.pop((task.site, task_id), None)
                rooms.update(task.rooms)
        return rooms

    def _settle_closings(self, record: UtteranceRecord, wanted: dict[int, Closing]) -> set[str]:
        existing = {
            closing.insight_index: closing for closing in self._state.closings_of(record.site, record.utterance_id)
        }
        rooms: set[str] = set()
        for index, closing in wanted.items():
            before = existing.get(index)
            spent = before is not None and before.task_id is not None
            after = _replace(closing, task_id=before.task_id, pinned=before.pinned) if before and spent else closing
            if after == before:
                continue
            if not after.rooms and not after.pinned:
                self._unmatch(after)
                after = self._match_by_channel(after)
            self._state.save_closing(after)
            rooms.update(after.rooms, before.rooms if before else ())
        for index, closing in existing.items():
            if index not in wanted:
                self._unmatch(closing)
                self._state.delete_closing(closing)
                rooms.update(closing.rooms)
        return rooms

    def _unmatch(self, closing: Closing) -> None:
        task = self._state.task(closing.site, closing.task_id) if closing.task_id else None
        if task is not None and task.completed_by_utterance == closing.utterance_id:
            self._save_task(reopened_by_voice(task))

    def _match_by_channel(self, closing: Closing) -> Closing:
        """Decided once and for all: which tasks were acknowledged is a matter of the moment."""
        task = match_by_channel(self._state.tasks_acknowledged(closing.site, closing.channel), closing)
        if task is not None:
            self._save_task(closed_by_voice(task, closing))
        return _replace(closing, task_id=task.task_id if task else None, pinned=True)

    def _match_again(self, site: str, rooms: set[str], since_ns: int) -> None:
        closings: list[Closing] = []
        tasks: list[TaskRecord] = []
        for _ in range(MAX_SPREAD):
            closings = self._state.closings_in_rooms(site, rooms, since_ns)
            if not closings:
                return
            tasks = self._tasks_for(site, rooms, closings, since_ns)
            spread = rooms.union(_rooms(closings), _rooms(tasks))
            if spread == rooms:
                break
            rooms = spread
        tasks_after, closings_after = match(tasks, closings)
        for task in tasks:
            if tasks_after[task.task_id] != task:
                self._save_task(tasks_after[task.task_id])
        for closing in closings:
            after = closings_after[closing.utterance_id, closing.insight_index]
            if after != closing:
                self._state.save_closing(after)

    def _tasks_for(self, site: str, rooms: set[str], closings: list[Closing], since_ns: int) -> list[TaskRecord]:
        """The tasks of the rooms, and those that were closed when they still had other rooms."""
        in_rooms = self._state.tasks_in_rooms(site, rooms, since_ns - WINDOW_NS, since_ns)
        tasks = {task.task_id: task for task in in_rooms}
        for closing in closings:
            if closing.task_id is not None and closing.task_id not in tasks:
                task = self._state.task(site, closing.task_id)
                if task is not None:
                    tasks[task.task_id] = task
        return list(tasks.values())

    def _pin(self, task: TaskRecord) -> None:
        """A person reopened what a voice had closed: that closing is spent, and must not close another task."""
        for closing in self._state.closings_of(task.site, task.completed_by_utterance or ""):
            if closing.task_id == task.task_id:
                self._state.save_closing(_replace(closing, pinned=True))

    def _save_task(self, task: TaskRecord) -> None:
        self._state.save_task(task)
        self._tasks[task.site, task.task_id] = None
        self._changed.setdefault((task.site, task.utterance_id))


def _rooms(records: Iterable[Closing | TaskRecord]) -> set[str]:
    return {room for record in records for room in record.rooms}
