"""Decides the steps of a dispatch: a task is reserved for a person, and that is confirmed or taken back."""

from collections.abc import Callable
from typing import Final

import msgspec

from quickcomm.contracts.decisions import DispatchDecision, TaskBefore, dispatch_subject, task_subject
from quickcomm.contracts.dispatching import (
    ConfirmDispatch,
    Confirmed,
    DescribeTask,
    ReleaseTask,
    Reserved,
    ReserveTask,
    TaskNotice,
)
from quickcomm.contracts.saga import Undone
from quickcomm.dashboard.model.changes import TaskChangedError
from quickcomm.dashboard.model.decisions import reopened
from quickcomm.dashboard.model.views import task_notice
from quickcomm.dashboard.service.decider import MAX_UNDONE, Decider
from quickcomm.kernel.errors import ConflictError
from quickcomm.kernel.saga import CompensatedError

_replace: Final[Callable[..., DispatchDecision]] = msgspec.structs.replace


def reserve(decider: Decider, request: ReserveTask) -> Reserved:
    """Reserve a task for a person; once for each key.

    Raises:
        NotFoundError: there is no such task.
        TaskChangedError: it is not in the version that the caller has seen, or it is done.
        CompensatedError: the step was taken back.

    """
    site, task_id = request.site, request.task_id
    before = _dispatch(decider, site, task_id)
    if request.key in before.undone:
        raise CompensatedError("This dispatch was taken back.")
    if before.key == request.key:
        return Reserved(key=before.key, at_ns=before.reserved_ns, version=before.version)
    task = decider.projector.task(site, task_id)
    decision = decider.state.decision(site, task_subject(task_id))
    if request.expected is not None and request.expected != task.version:
        raise TaskChangedError(task, decision)
    if task.status == "done":
        raise TaskChangedError(task, decision, "The task is done. Reopen it before you assign it.")
    decider.by = request.by
    if task.assignee != request.assignee:
        decider.save_task(msgspec.structs.replace(task, assignee=request.assignee))
    version = decider.projector.task(site, task_id).version
    what = DispatchDecision(
        task_id=task_id,
        key=request.key,
        assignee=request.assignee,
        reserved_ns=decider.now_ns,
        version=version,
        before=TaskBefore(task_id=task_id, status=task.status, assignee=task.assignee, version=version),
        undone=before.undone,
    )
    decider.decide(site, what)
    return Reserved(key=request.key, at_ns=decider.now_ns, version=version)


def release(decider: Decider, request: ReleaseTask) -> Undone:
    """Take a reservation back by its key, unless the task was changed since; refuse the key."""
    site, task_id = request.site, request.task_id
    before, task = _dispatch(decider, site, task_id), decider.state.task(site, task_id)
    if request.key in before.undone or task is None:
        return Undone()
    decider.by = request.by
    undone = (*before.undone, request.key)[-MAX_UNDONE:]
    if before.key != request.key:
        decider.decide(site, _replace(before, undone=undone))
        return Undone()
    after = None if before.before is None else reopened(task, before.before)
    if after is not None and after != task:
        decider.save_task(after)
    decider.decide(site, DispatchDecision(task_id=task_id, undone=undone))
    return Undone(found=True)


def described(decider: Decider, request: DescribeTask) -> TaskNotice:
    """Return what a notice says. Raises `ConflictError` where the task is not the reserved person's any more."""
    site, reserved = request.site, _dispatch(decider, request.site, request.task_id)
    task = decider.projector.task(site, request.task_id)
    if reserved.key != request.reserved or task.assignee != reserved.assignee or task.status == "done":
        raise ConflictError("The task was changed before the notice was delivered.")
    return task_notice(task, decider.projector.utterance(site, task.utterance_id))


def confirm(decider: Decider, request: ConfirmDispatch) -> Confirmed:
    """Note that the person was told, where that reservation stands."""
    before = _dispatch(decider, request.site, request.task_id)
    if before.key == request.reserved and before.notified_ns is None:
        decider.by = request.by
        decider.decide(request.site, _replace(before, notified_ns=request.notified_ns, before=None))
    return Confirmed(at_ns=decider.now_ns)


def _dispatch(decider: Decider, site: str, task_id: str) -> DispatchDecision:
    known = decider.state.decision(site, dispatch_subject(task_id))
    if known is not None and isinstance(known.what, DispatchDecision):
        return known.what
    return DispatchDecision(task_id=task_id)
