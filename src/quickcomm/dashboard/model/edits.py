"""What a person may do with a task."""

from typing import Literal

import msgspec

from quickcomm.contracts.closing import ArchiveConversation
from quickcomm.dashboard.model.records import TaskRecord
from quickcomm.kernel.errors import ConflictError

Action = Literal["acknowledge", "complete", "assign", "reopen"]
_replace = msgspec.structs.replace


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """`by`: the name of the person. `expected`: the version of the task that the person has seen; None: any."""

    action: Action
    by: str
    assignee: str | None = None
    expected: int | None = None


def edited(task: TaskRecord, edit: Edit, now_ns: int) -> TaskRecord:
    """Return the task afterwards; the same one if there was nothing to do. Raises `ConflictError`."""
    if edit.action == "assign":
        if task.status == "done" and task.assignee != edit.assignee:
            raise ConflictError("The task is done. Reopen it before you assign it.")
        return _replace(task, assignee=edit.assignee)
    if edit.action == "acknowledge":
        if task.status == "done":
            raise ConflictError("The task is done. Reopen it before acknowledging it.")
        return task if task.status == "acknowledged" else _replace(task, status="acknowledged", acknowledged_ns=now_ns)
    if edit.action == "complete":
        if task.status == "done":
            return task
        return _replace(task, status="done", completed_ns=now_ns, completed_by=edit.by)
    if task.status == "open":
        return task
    return _replace(
        task,
        status="open",
        acknowledged_ns=None,
        completed_ns=None,
        completed_by=None,
        completed_by_utterance=None,
        reopened_ns=now_ns,
    )


def is_done_before(task: TaskRecord, edit: Edit, by: str) -> bool:
    """Return True if the task is as this edit would leave it, and the person `by` who left it so is the same one.

    An edit whose answer was lost is sent again with the version that its sender knows.
    """
    if by != edit.by or edit.expected is None or task.version != edit.expected + 1:
        return False
    if edit.action == "assign":
        return task.assignee == edit.assignee
    return task.status == {"acknowledge": "acknowledged", "complete": "done", "reopen": "open"}[edit.action]


def closed_with(task: TaskRecord, request: ArchiveConversation, now_ns: int) -> TaskRecord:
    """Return an unfinished task as the closing of its conversation leaves it."""
    if request.tasks == "hand_over":
        return edited(task, Edit(action="assign", by=request.by, assignee=request.assignee), now_ns)
    return edited(task, Edit(action="complete", by=request.by), now_ns) if request.tasks == "close" else task
