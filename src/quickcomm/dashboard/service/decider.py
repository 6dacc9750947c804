"""Decides what follows from what was said and from what people do: copies, closings by voice, edits.

Each outcome is a decision, which the projector of the same transaction folds at once. What is decided depends on when
things were said, and on what people did; deciding again what is decided changes nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final
from uuid import uuid4

import msgspec

from quickcomm.contracts.closing import ArchiveConversation, Archived, ReopenConversation
from quickcomm.contracts.decisions import (
    ArchiveDecision,
    ClosingDecision,
    CopyDecision,
    Decided,
    Decision,
    TaskBefore,
    archive_subject,
    task_subject,
)
from quickcomm.contracts.saga import Undone
from quickcomm.dashboard.model.changes import TaskChangedError
from quickcomm.dashboard.model.copies import Said, first_of, said
from quickcomm.dashboard.model.decisions import closing_decision, reopened, task_decision
from quickcomm.dashboard.model.edits import Edit, closed_with, edited, is_done_before
from quickcomm.dashboard.model.matching import (
    WINDOW_NS,
    closed_by_voice,
    match,
    match_by_channel,
    reopened_by_voice,
)
from quickcomm.dashboard.model.records import Closing, TaskRecord, UtteranceRecord
from quickcomm.dashboard.ports import State
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.errors import BusyError, ConflictError
from quickcomm.kernel.saga import CompensatedError

MAX_UNDONE: Final = 20
"""Keys of steps that were taken back, of one conversation or task."""
MAX_SPREAD: Final = 8
"""How often the rooms to match again may spread to rooms named together with them."""

_replace = msgspec.structs.replace


def _new_id() -> str:
    return uuid4().hex


class Decider:
    """For one transaction, beside its projector. `made`: the decisions, by subject; `by`: the person who decides.

    `epoch`: of the side that decides; `now_ns`: when.
    """

    def __init__(
        self,
        projector: Projector,
        state: State,
        now_ns: int,
        epoch: int = 0,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        self.made: dict[tuple[str, str], Decision] = {}
        self.projector = projector
        self.state = state
        self.now_ns = now_ns
        self._epoch = epoch
        self._new_id = new_id
        self.by = ""
        self._compared: dict[tuple[str, str, int], Said] = {}

    def settle(self, utterances: Iterable[tuple[str, str]] = ()) -> None:
        """Decide what follows from all utterances that the projector knows more of than before, and from these.

        `utterances`: (site, utterance id).
        """
        self.projector.undecided.update(dict.fromkeys(utterances))
        while self.projector.undecided:
            key = next(iter(self.projector.undecided))
            del self.projector.undecided[key]
            self.settle_utterance(*key)

    def settle_utterance(self, site: str, utterance_id: str) -> None:
        record = self.projector.utterance(site, utterance_id)
        me = self._said(record) if record is not None else None
        if record is None or me is None:
            return
        beside = self._beside(site, me)
        self._relate(record, first_of(me, [other for other, _ in beside]))
        self._settle_work(site, utterance_id)
        for other, copy_of in beside:
            if copy_of != me.utterance_id and first_of(other, (me,)) is None:
                continue
            theirs = self.projector.utterance(site, other.utterance_id)
            near = self._beside(site, other)
            if theirs is not None and self._relate(theirs, first_of(other, [each for each, _ in near])):
                self._settle_work(site, other.utterance_id)

    def edit(self, site: str, task_id: str, edit: Edit) -> TaskRecord:
        """Return the task as a person leaves it. Doing it twice is fine.

        Raises:
            NotFoundError: there is no such task.
            TaskChangedError: it is not in the version that the person has seen, or its state does not allow it.

        """
        before = self.projector.task(site, task_id)
        decision = self.state.decision(site, task_subject(task_id))
        if edit.expected is not None and edit.expected != before.version:
            if decision is not None and is_done_before(before, edit, decision.by):
                return before
            raise TaskChangedError(before, decision)
        try:
            after = edited(before, edit, self.now_ns)
        except ConflictError as error:
            raise TaskChangedError(before, decision, str(error)) from error
        if after == before:
            return before
        self.by = edit.by
        if before.completed_by_utterance is not None and after.completed_by_utterance is None:
            self._pin(before)
        self.save_task(after)
        return self.projector.task(site, task_id)

    def archive(self, request: ArchiveConversation) -> Archived:
        """Archive a conversation, and decide about its open tasks; once for each key.

        Raises `BusyError` until all that was said is here, and `CompensatedError` for a step that was taken back.
        """
        site, conversation_id = request.site, request.conversation_id
        before = self._archive(site, conversation_id)
        if request.key in before.undone:
            raise CompensatedError("This closing was taken back.")
        if before.key == request.key and before.archived_ns is not None:
            return Archived(at_ns=before.archived_ns, tasks=len(before.tasks))
        last = self.projector.utterance(site, request.last_utterance) if request.last_utterance else None
        is_whole = self.state.conversation(site, conversation_id) and self.state.is_answered(site, conversation_id)
        if not is_whole or (request.last_utterance and (last is None or not last.complete)):
            raise BusyError("Not all that was said is on the page yet; try again in a moment.")
        self.by = request.by
        changed = []
        for task in self.state.tasks_unfinished(site, conversation_id) if request.tasks != "keep" else ():
            after = closed_with(task, request, self.now_ns)
            if after != task:
                self.save_task(after)
                version = self.projector.task(site, task.task_id).version
                changed.append(
                    TaskBefore(task_id=task.task_id, status=task.status, assignee=task.assignee, version=version)
                )
        what = ArchiveDecision(
            conversation_id=conversation_id,
            key=request.key,
            archived_ns=self.now_ns,
            archived_by=request.by,
            tasks=tuple(changed),
            usage=request.usage,
            undone=before.undone,
        )
        self.decide(site, what)
        return Archived(at_ns=self.now_ns, tasks=len(changed))

    def reopen(self, request: ReopenConversation) -> Undone:
        """Take an archiving back by its key, with what it did to tasks that are as it left them; refuse the key."""
        before = self._archive(request.site, request.conversation_id)
        if request.key in before.undone:
            return Undone()
        self.by = request.by
        undone = (*before.undone, request.key)[-MAX_UNDONE:]
        if before.key != request.key:
            self.decide(request.site, _replace(before, undone=undone))
            return Undone()
        for each in before.tasks:
            task = self.state.task(request.site, each.task_id)
            after = None if task is None else reopened(task, each)
            if after is not None:
                self.save_task(after)
        self.decide(request.site, ArchiveDecision(conversation_id=request.conversation_id, undone=undone))
        return Undone(found=True)

    def _archive(self, site: str, conversation_id: str) -> ArchiveDecision:
        known = self.state.decision(site, archive_subject(conversation_id))
        if known is not None and isinstance(known.what, ArchiveDecision):
            return known.what
        return ArchiveDecision(conversation_id=conversation_id)

    def match_again(self, closing: Closing) -> None:
        """Match a closing with tasks that were said before it and have come since."""
        self._match_again(closing.site, set(closing.rooms), closing.at_ns)

    # -- copies -----------------------------------------------------------------------------------------------------

    def _relate(self, record: UtteranceRecord, first: str | None) -> bool:
        """Decide of which utterance it is a copy; return False if that is decided already.

        What was heard is compared: insights of a corrected text part no copies, and make none.
        """
        if record.copy_of == first or record.corrected:
            return False
        before = self.projector.utterance(record.site, record.copy_of) if record.copy_of else None
        if before is not None and before.corrected:
            return False
        self.decide(record.site, CopyDecision(utterance_id=record.utterance_id, copy_of=first))
        return True

    def _beside(self, site: str, me: Said) -> list[tuple[Said, str | None]]:
        """Return the other complete utterances of about that time, as they are now, each with its first."""
        stored = self.state.said_beside(me, site, self.projector.closing_confidence)
        beside = {other.utterance_id: (other, copy_of) for other, copy_of in stored}
        for (where, utterance_id), record in self.projector.loaded.items():
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
            self._compared[key] = said(record.heard, record.found, self.projector.closing_confidence)
        return self._compared[key]

    # -- closings ---------------------------------------------------------------------------------------------------

    def _settle_work(self, site: str, utterance_id: str) -> None:
        """Decide the closings that an utterance's tasks and closings bear on."""
        record = self.projector.utterance(site, utterance_id)
        if record is None or record.heard is None:
            return
        closings = self.state.closings_of(site, utterance_id)
        reopened = self._take_back(record, closings)
        for closing in closings:
            self._settle_closing(closing)
        tasks = self.state.tasks_of(site, utterance_id)
        rooms = _rooms((*tasks, *reopened, *closings, *self.state.closings_on(site, utterance_id)))
        if rooms:
            self._match_again(site, rooms, record.heard.speech_ended_ns)

    def _take_back(self, record: UtteranceRecord, closings: Sequence[Closing]) -> list[TaskRecord]:
        """Open the tasks again that reports have closed which the newest revision does not have; return them."""
        present = {closing.insight_index for closing in closings}
        for decision in self.state.decisions_of(record.site, record.utterance_id):
            what = decision.what
            if isinstance(what, ClosingDecision) and what.task_id is not None and what.insight_index not in present:
                self.decide(record.site, _replace(what, task_id=None, pinned=False))
        kept = {closing.task_id for closing in closings}
        closed = self.state.tasks_closed_by(record.site, record.utterance_id)
        reopened = [task for task in closed if task.task_id not in kept]
        for task in reopened:
            self.save_task(reopened_by_voice(task))
        return reopened

    def _settle_closing(self, closing: Closing) -> None:
        if closing.rooms:
            if closing.pinned and closing.task_id is None:  # it named no room before
                self._save_closing(_replace(closing, pinned=False))
        elif not closing.pinned:
            self._match_by_channel(closing)

    def _match_by_channel(self, closing: Closing) -> None:
        """Decide once and for all: which tasks were acknowledged is a matter of the moment."""
        earlier = self.state.task(closing.site, closing.task_id) if closing.task_id else None
        if earlier is not None and earlier.completed_by_utterance == closing.utterance_id:
            self.save_task(reopened_by_voice(earlier))
        task = match_by_channel(self.state.tasks_acknowledged(closing.site, closing.channel), closing)
        if task is not None:
            self.save_task(closed_by_voice(task, closing))
        self._save_closing(_replace(closing, task_id=task.task_id if task else None, pinned=True))

    def _match_again(self, site: str, rooms: set[str], since_ns: int) -> None:
        closings: list[Closing] = []
        tasks: list[TaskRecord] = []
        for _ in range(MAX_SPREAD):
            closings = self.state.closings_in_rooms(site, rooms, since_ns)
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
                self.save_task(tasks_after[task.task_id])
        for closing in closings:
            after = closings_after[closing.utterance_id, closing.insight_index]
            if after != closing:
                self._save_closing(after)

    def _tasks_for(self, site: str, rooms: set[str], closings: list[Closing], since_ns: int) -> list[TaskRecord]:
        """The tasks of the rooms, and those that were closed when they still had other rooms."""
        in_rooms = self.state.tasks_in_rooms(site, rooms, since_ns - WINDOW_NS, since_ns)
        tasks = {task.task_id: task for task in in_rooms}
        for closing in closings:
            if closing.task_id is not None and closing.task_id not in tasks:
                task = self.state.task(site, closing.task_id)
                if task is not None:
                    tasks[task.task_id] = task
        return list(tasks.values())

    def _pin(self, task: TaskRecord) -> None:
        """A person reopened what a voice had closed: that closing is spent, and must not close another task."""
        for closing in self.state.closings_of(task.site, task.completed_by_utterance or ""):
            if closing.task_id == task.task_id:
                self._save_closing(_replace(closing, pinned=True))

    # -- decisions --------------------------------------------------------------------------------------------------

    def save_task(self, task: TaskRecord) -> None:
        self.decide(task.site, task_decision(task))

    def _save_closing(self, closing: Closing) -> None:
        self.decide(closing.site, closing_decision(closing))

    def decide(self, site: str, what: Decided) -> None:
        """Make a decision, and have it folded. One that replaces another of this transaction keeps its version."""
        key = (site, what.subject)
        known = self.state.decision(site, what.subject)
        version = known.version + (key not in self.made) if known else 1
        decision = Decision(
            site=site,
            decision_id=self._new_id(),
            epoch=self._epoch,
            version=version,
            at_ns=self.now_ns,
            by=self.by,
            what=what,
        )
        self.made[key] = decision
        self.projector.decided(decision)


def _rooms(records: Iterable[Closing | TaskRecord]) -> set[str]:
    return {room for record in records for room in record.rooms}
