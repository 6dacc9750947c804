"""Stream `decisions.v1`: what people and rules decided about tasks, each decision made once.

A decision carries the whole state that it leaves, so that the newest one of a subject is all that matters: decisions
may come in any order, and any number of times.
"""

from typing import Final, Literal

import msgspec

from quickcomm.contracts.insight import Urgency
from quickcomm.contracts.usage import ConversationUsage

DECISIONS: Final = "decisions.v1"

TaskStatus = Literal["open", "acknowledged", "done"]


class TaskBefore(msgspec.Struct, frozen=True, kw_only=True):
    """A task that an operation changed, as it was before, and its version since."""

    task_id: str
    status: TaskStatus
    assignee: str | None
    version: int

    @property
    def utterance_id(self) -> str:
        return self.task_id.rpartition(":")[0]


class TaskDecision(msgspec.Struct, frozen=True, kw_only=True, tag="task"):
    """A task as a person or a closing by voice left it."""

    task_id: str
    utterance_id: str
    insight_index: int
    channel: str
    status: TaskStatus
    intent: str
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

    @property
    def subject(self) -> str:
        return task_subject(self.task_id)


class ClosingDecision(msgspec.Struct, frozen=True, kw_only=True, tag="closing"):
    """The task that a report of a finished job closes, or None. `pinned`: for good, whatever is said later."""

    utterance_id: str
    insight_index: int
    task_id: str | None
    pinned: bool = False

    @property
    def subject(self) -> str:
        return closing_subject(self.utterance_id, self.insight_index)


class CopyDecision(msgspec.Struct, frozen=True, kw_only=True, tag="copy"):
    """The utterance of which this one is the same transmission, or None."""

    utterance_id: str
    copy_of: str | None

    @property
    def subject(self) -> str:
        return copy_subject(self.utterance_id)


class ArchiveDecision(msgspec.Struct, frozen=True, kw_only=True, tag="archive"):
    """A conversation as its closing left it: off the page of what goes on, or on it again.

    `key`: of the step that archived it, which is done once; `undone`: of those that were taken back, which have no
    effect any more. `tasks`: those that were changed with it, as they were before.
    """

    conversation_id: str
    key: str = ""
    archived_ns: int | None = None
    archived_by: str = ""
    tasks: tuple[TaskBefore, ...] = ()
    usage: ConversationUsage | None = None
    undone: tuple[str, ...] = ()

    @property
    def utterance_id(self) -> str:
        """It is about none."""
        return ""

    @property
    def subject(self) -> str:
        return archive_subject(self.conversation_id)


class TextDecision(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """A text that a person puts in the place of what was heard. `number`: counts those of an utterance.

    Of those in force the one with the highest number stands. One that was taken back never comes in force again.
    """

    utterance_id: str
    number: int
    text: str
    state: Literal["proposed", "in_force", "taken_back"] = "proposed"

    @property
    def subject(self) -> str:
        return text_subject(self.utterance_id, self.number)


class DispatchDecision(msgspec.Struct, frozen=True, kw_only=True, tag="dispatch"):
    """A task as its dispatch left it: reserved for a person, or released.

    `key`: of the step that reserved it, which is done once; `undone`: of those that were taken back, which have no
    effect any more. `before`: the task as it was; None once the person was told, at `notified_ns`.
    """

    task_id: str
    key: str = ""
    assignee: str = ""
    reserved_ns: int = 0
    version: int = 0
    notified_ns: int | None = None
    before: TaskBefore | None = None
    undone: tuple[str, ...] = ()

    @property
    def utterance_id(self) -> str:
        return self.task_id.rpartition(":")[0]

    @property
    def subject(self) -> str:
        return dispatch_subject(self.task_id)


Decided = TaskDecision | ClosingDecision | CopyDecision | ArchiveDecision | DispatchDecision | TextDecision


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """`epoch`: of the side that decided; `version`: counts up for each subject. The highest of both stands."""

    site: str
    decision_id: str
    epoch: int
    version: int
    at_ns: int
    by: str = ""
    """The name of a person; empty for a rule."""
    what: Decided

    @property
    def order(self) -> tuple[int, int]:
        return (self.epoch, self.version)

    @property
    def subject(self) -> str:
        return self.what.subject


def task_subject(task_id: str) -> str:
    return f"task:{task_id}"


def closing_subject(utterance_id: str, insight_index: int) -> str:
    return f"closing:{utterance_id}:{insight_index}"


def copy_subject(utterance_id: str) -> str:
    return f"copy:{utterance_id}"


def archive_subject(conversation_id: str) -> str:
    return f"archive:{conversation_id}"


def dispatch_subject(task_id: str) -> str:
    return f"dispatch:{task_id}"


def text_subject(utterance_id: str, number: int) -> str:
    return f"text:{utterance_id}:{number}"
