"""What a task and a closing are, by the newest revision of their utterance and the newest decision about them."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from quickcomm.contracts.decisions import (
    ArchiveDecision,
    ClosingDecision,
    Decision,
    TaskBefore,
    TaskDecision,
    TextDecision,
)
from quickcomm.dashboard.model.projections import renewed
from quickcomm.dashboard.model.records import Closing, ConversationRecord, Corrected, TaskRecord

_replace = msgspec.structs.replace


def task_decision(task: TaskRecord) -> TaskDecision:
    values: dict[str, Any] = msgspec.structs.asdict(task)
    return TaskDecision(**{name: values[name] for name in TaskDecision.__struct_fields__})


def closing_decision(closing: Closing) -> ClosingDecision:
    return ClosingDecision(
        utterance_id=closing.utterance_id,
        insight_index=closing.insight_index,
        task_id=closing.task_id,
        pinned=closing.pinned,
    )


def task_as_decided(
    existing: TaskRecord | None, wanted: TaskRecord | None, decision: Decision | None
) -> TaskRecord | None:
    """Return the task, None where there is none.

    `existing`: the stored record, which counts where nothing was decided since decisions are kept; `wanted`: what the
    newest revision asks for. What a person has decided about stays, though no revision wants it any more.
    """
    decided = existing
    if decision is not None and isinstance(decision.what, TaskDecision):
        values: dict[str, Any] = msgspec.structs.asdict(decision.what)
        decided = TaskRecord(site=decision.site, version=decision.version, **values)
    if wanted is None:
        return decided if decided is not None and decided.touched else None
    return wanted if decided is None else renewed(decided, wanted)


def closing_as_decided(existing: Closing | None, wanted: Closing, decision: ClosingDecision | None) -> Closing:
    """Return the closing that a revision asks for, with what was decided about it."""
    decided = decision or existing
    return wanted if decided is None else _replace(wanted, task_id=decided.task_id, pinned=decided.pinned)


def corrected(decisions: Iterable[Decision]) -> Corrected | None:
    """Return the text that stands by the decisions about an utterance; None where it is as it was heard."""
    texts = (
        Corrected(number=one.what.number, text=one.what.text, by=one.by, at_ns=one.at_ns)
        for one in decisions
        if isinstance(one.what, TextDecision) and one.what.state == "in_force"
    )
    return max(texts, key=lambda text: text.number, default=None)


def archived(record: ConversationRecord, what: object) -> ConversationRecord:
    """Return the conversation with what was decided about it."""
    if not isinstance(what, ArchiveDecision) or what.archived_ns is None:
        return _replace(record, archived_ns=None, archived_by=None)
    return _replace(record, archived_ns=what.archived_ns, archived_by=what.archived_by)


def without_erased(decision: Decision, is_erased: Callable[[str], bool]) -> Decision:
    """Return a decision without the tasks of erased utterances, whose assignees it names; others are as they were.

    It stays itself: a later one about the same conversation must have a higher version.
    """
    what = decision.what
    if not isinstance(what, ArchiveDecision):
        return decision
    kept = tuple(task for task in what.tasks if not is_erased(task.utterance_id))
    return decision if kept == what.tasks else _replace(decision, what=_replace(what, tasks=kept))


def reopened(task: TaskRecord, before: TaskBefore) -> TaskRecord | None:
    """Return a task as it was before its conversation was closed; None where it has been changed since."""
    if task.version != before.version:
        return None
    done = before.status == "done"
    return _replace(
        task,
        status=before.status,
        assignee=before.assignee,
        completed_ns=task.completed_ns if done else None,
        completed_by=task.completed_by if done else None,
    )
