"""Closing the loop by voice: "412 done" completes the newest open task for 412.

The outcome depends on when things were said, not on when their messages arrived: whoever brings a task or a closing
late matches the later closings of the same rooms again.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from quickcomm.dashboard.model.records import Closing, TaskRecord

WINDOW_NS: Final = 24 * 3600 * 10**9
"""Tasks older than this are not closed by voice: "412 done" means today's."""


def match(
    tasks: Iterable[TaskRecord], closings: Sequence[Closing]
) -> tuple[Mapping[str, TaskRecord], Mapping[tuple[str, int], Closing]]:
    """Decide `closings` anew, in the order in which they were said.

    `tasks`: all of the site that share a room with one of them. Returns all tasks by id and all closings by
    (utterance id, insight index) as they are then.
    """
    by_id = {task.task_id: task for task in tasks}
    free = [closing for closing in closings if not closing.pinned and closing.rooms]
    undone = {closing.task_id for closing in free if closing.task_id is not None}
    for task_id in undone & by_id.keys():
        by_id[task_id] = reopened_by_voice(by_id[task_id])
    decided = {(closing.utterance_id, closing.insight_index): closing for closing in closings}
    for closing in sorted(free, key=lambda closing: closing.order):
        task = _newest(by_id.values(), closing)
        decided[closing.utterance_id, closing.insight_index] = msgspec.structs.replace(
            closing, task_id=task.task_id if task else None
        )
        if task is not None:
            by_id[task.task_id] = closed_by_voice(task, closing)
    return by_id, decided


def match_by_channel(tasks: Iterable[TaskRecord], closing: Closing) -> TaskRecord | None:
    """A closing that names no room: the one acknowledged task of its channel, if there is exactly one."""
    on_channel = [
        task
        for task in tasks
        if task.status == "acknowledged" and task.channel == closing.channel and _before(task, closing)
    ]
    return on_channel[0] if len(on_channel) == 1 else None


def closed_by_voice(task: TaskRecord, closing: Closing) -> TaskRecord:
    return msgspec.structs.replace(
        task, status="done", completed_ns=closing.at_ns, completed_by_utterance=closing.utterance_id
    )


def reopened_by_voice(task: TaskRecord) -> TaskRecord:
    """Take back a closing by voice."""
    status = "acknowledged" if task.acknowledged_ns is not None else "open"
    return msgspec.structs.replace(task, status=status, completed_ns=None, completed_by_utterance=None)


def _before(task: TaskRecord, closing: Closing) -> bool:
    since = max(task.created_ns, task.reopened_ns or 0)
    if task.utterance_id == closing.utterance_id:
        return False
    return task.order < closing.order and closing.at_ns - WINDOW_NS <= since <= closing.at_ns


def _newest(tasks: Iterable[TaskRecord], closing: Closing) -> TaskRecord | None:
    rooms = set(closing.rooms)
    candidates = [
        task for task in tasks if task.status != "done" and rooms.intersection(task.rooms) and _before(task, closing)
    ]
    return max(
        candidates,
        default=None,
        key=lambda task: (
            task.department == closing.department,
            task.channel == closing.channel,
            task.order,
        ),
    )
