"""What a person may do with a task."""

from typing import Literal

import msgspec

from quickcomm.dashboard.model.records import TaskRecord
from quickcomm.kernel.errors import ConflictError

Action = Literal["acknowledge", "complete", "assign", "reopen"]
_replace = msgspec.structs.replace


def edited(task: TaskRecord, action: Action, *, by: str, assignee: str | None, now_ns: int) -> TaskRecord:
    """The task afterwards; the same one if there was nothing to do. Raises `ConflictError`."""
    if action == "assign":
        return _replace(task, assignee=assignee)
    if action == "acknowledge":
        if task.status == "done":
            raise ConflictError("The task is done. Reopen it before acknowledging it.")
        return task if task.status == "acknowledged" else _replace(task, status="acknowledged", acknowledged_ns=now_ns)
    if action == "complete":
        return task if task.status == "done" else _replace(task, status="done", completed_ns=now_ns, completed_by=by)
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
