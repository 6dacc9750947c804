"""A task that somebody else has changed first: who it was, and when."""

from datetime import UTC, datetime

import msgspec

from quickcomm.contracts.decisions import Decision
from quickcomm.dashboard.model.records import TaskRecord
from quickcomm.dashboard.model.views import rfc3339, task_view
from quickcomm.kernel.errors import ConflictError


class TaskChangedError(ConflictError):
    """The answer has the task as it is now."""

    code = "dashboard.task_changed"

    def __init__(self, task: TaskRecord, decision: Decision | None, reason: str = "") -> None:
        """`decision`: the newest about the task. `reason`: why its state forbids the edit."""
        super().__init__(" ".join(filter(None, (_first(task, decision), reason or "Look at it again, then decide."))))
        if reason:
            self.code = ConflictError.code
        self.members = {
            "changed_by": (decision.by or None) if decision else None,
            "changed_at": rfc3339(decision.at_ns) if decision else None,
            "task": msgspec.to_builtins(task_view(task)),
        }


def _first(task: TaskRecord, decision: Decision | None) -> str:
    if decision is None:
        return ""
    at = f"at {datetime.fromtimestamp(decision.at_ns / 1e9, UTC):%H:%M} UTC"
    if not decision.by:
        return f"By what was said it is {'done' if task.status == 'done' else 'open again'}, {at}."
    if decision.at_ns == task.completed_ns:
        did = "completed it"
    elif decision.at_ns == task.acknowledged_ns:
        did = "acknowledged it"
    elif decision.at_ns == task.reopened_ns:
        did = "reopened it"
    else:
        did = f"gave it to {task.assignee}" if task.assignee else "gave it to nobody"
    return f"{decision.by} {did} {at}."
