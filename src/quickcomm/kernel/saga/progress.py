"""How an operation stands, and what comes next: a state machine without clock, messages or storage.

Forward: each step in turn. When a step fails for good, what was done is taken back in reverse, the failed step first:
it may have had its effect, though its reply never came. Where something done cannot be taken back, nothing is: the
operation is parked, and can go on forward with the same keys. Once something is taken back, there is only the way back.
"""

from typing import Final, Literal

import msgspec

from quickcomm.contracts.messaging import reply_type
from quickcomm.contracts.saga import Happening, OperationEvent, OperationStatus, OperationView, StepView
from quickcomm.kernel.errors import ConflictError
from quickcomm.kernel.saga.definition import Given, Operation, Step, key_of

_replace = msgspec.structs.replace
MAX_EVENTS: Final = 200
"""Of the history: beyond that the oldest are left out."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    operation: str
    site: str
    subject: str
    by: str
    input: msgspec.Raw
    status: OperationStatus = "running"
    results: dict[str, msgspec.Raw] = {}
    """The reply of each step that is done and not taken back, in the order of the steps."""
    failed: str = ""
    """The step that failed for good; it is taken back as well."""
    undone: tuple[str, ...] = ()
    back: bool = False
    """Something is being taken back, or was tried to: from then on there is only the way back."""
    why: str = ""
    history: tuple[OperationEvent, ...]
    events: int = 1
    """How many there were, with those that the history has no more."""

    @property
    def rests(self) -> bool:
        """Return True if nothing more happens by itself."""
        return self.status not in ("running", "compensating")

    @property
    def over(self) -> bool:
        return self.status in ("done", "compensated")


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What comes next: to do a step, or to take it back."""

    step: Step
    back: bool = False


def begun(operation: Operation, id: str, site: str, by: str, given: msgspec.Struct, at_ns: int) -> Progress:  # noqa: A002
    return Progress(
        id=id,
        operation=operation.name,
        site=site,
        subject=operation.subject(given),
        by=by,
        input=msgspec.Raw(msgspec.json.encode(given)),
        history=(OperationEvent(at_ns=at_ns, what="started", text=by),),
    )


def next_turn(operation: Operation, progress: Progress) -> Turn | None:
    """Return None where it is over, or waits for an operator."""
    if progress.status == "running":
        return next((Turn(step=step) for step in operation.steps if step.name not in progress.results), None)
    if progress.status == "compensating":
        return next((Turn(step=step, back=True) for step in _to_undo(operation, progress)), None)
    return None


def did(operation: Operation, progress: Progress, step: Step, reply: msgspec.Raw, at_ns: int) -> Progress:
    after = _replace(progress, results={**progress.results, step.name: reply}, why="")
    after = _noted(after, at_ns, "done", step)
    if next_turn(operation, after) is None:
        after = _noted(_replace(after, status="done"), at_ns, "finished")
    return after


def failed(operation: Operation, progress: Progress, step: Step, why: str, at_ns: int, *, refused: bool) -> Progress:
    """A step failed for good. `refused`: for sure it had no effect."""
    after = _noted(_replace(progress, why=why), at_ns, "failed", step, why)
    kept = [each for each in operation.steps if each.name in progress.results and each.undo is None]
    if kept or (step.undo is None and not refused):
        return _parked(after, step, at_ns)
    suspect = "" if step.undo is None else step.name
    return _back(operation, _replace(after, status="compensating", back=True, failed=suspect), at_ns)


def undid(operation: Operation, progress: Progress, step: Step, at_ns: int) -> Progress:
    after = _replace(progress, undone=(*progress.undone, step.name))
    return _back(operation, _noted(after, at_ns, "undone", step), at_ns)


def not_undone(progress: Progress, step: Step, why: str, at_ns: int) -> Progress:
    """A compensation failed for good: only an operator knows what is to be done."""
    return _parked(_noted(_replace(progress, why=why), at_ns, "failed", step, why), step, at_ns)


def resumed(progress: Progress, by: str, at_ns: int) -> Progress:
    """Go on in the direction in which it was parked. Raises `ConflictError` where it is not."""
    if progress.status != "parked":
        raise ConflictError(f"The operation is {progress.status}; only one that is parked can be resumed.")
    status: Literal["running", "compensating"] = "compensating" if _goes_back(progress) else "running"
    return _noted(_replace(progress, status=status), at_ns, "resumed", text=by)


def compensating(operation: Operation, progress: Progress, by: str, at_ns: int) -> Progress:
    """Take back what can be taken back of a parked operation; the rest stays, and the history says so."""
    if progress.status != "parked":
        raise ConflictError(f"The operation is {progress.status}; only one that is parked can be taken back.")
    goes_back = _goes_back(progress)
    after = _noted(_replace(progress, status="compensating", back=True), at_ns, "compensating", text=by)
    for step in reversed(operation.steps):
        if step.undo is None and step.name in progress.results:
            after = _noted(after, at_ns, "kept", step, step.stays)
    at = next((step for step in operation.steps if step.name not in progress.results), None)
    if at is not None and not goes_back:
        if at.undo is None:
            after = _noted(after, at_ns, "kept", at, f"It may have had its effect. {at.stays}")
        else:
            after = _replace(after, failed=at.name)
    return _back(operation, after, at_ns)


def given(operation: Operation, progress: Progress, step: Step) -> Given:
    """Return what a step's commands are made of."""
    results = {
        name: msgspec.json.decode(reply, type=reply_type(operation.step(name).asks))
        for name, reply in progress.results.items()
    }
    return Given(
        key=key_of(progress.id, step),
        site=progress.site,
        by=progress.by,
        at_ns=progress.history[0].at_ns,
        input=msgspec.json.decode(progress.input, type=operation.input),
        results=results,
    )


def view(operation: Operation | None, progress: Progress) -> OperationView:
    """Return how it stands. `operation`: None where this release does not know it."""
    turn = None if operation is None else next_turn(operation, progress)
    parked = next((each.step for each in reversed(progress.history) if each.what == "parked"), "")
    return OperationView(
        id=progress.id,
        name=progress.operation,
        site=progress.site,
        subject=progress.subject,
        by=progress.by,
        status=progress.status,
        step=parked if progress.status == "parked" else "" if turn is None else turn.step.name,
        why=progress.why,
        started_ns=progress.history[0].at_ns,
        changed_ns=progress.history[-1].at_ns,
        results={name: msgspec.json.decode(reply) for name, reply in progress.results.items()},
        history=progress.history,
        steps=tuple(
            StepView(name=step.name, module=step.module, stays=step.stays)
            for step in (() if operation is None else operation.steps)
        ),
        back=progress.status == "compensating" or _goes_back(progress),
    )


# -- inside -----------------------------------------------------------------------------------------------------------


def _goes_back(progress: Progress) -> bool:
    return progress.back or bool(progress.undone or progress.failed)  # 0.1.0 did not store `back`


def _to_undo(operation: Operation, progress: Progress) -> list[Step]:
    """Return what is left to take back, the last step first."""
    suspects = {*progress.results, progress.failed} - set(progress.undone)
    return [step for step in reversed(operation.steps) if step.name in suspects and step.undo is not None]


def _back(operation: Operation, progress: Progress, at_ns: int) -> Progress:
    if _to_undo(operation, progress):
        return progress
    return _noted(_replace(progress, status="compensated"), at_ns, "finished")


def _parked(progress: Progress, step: Step, at_ns: int) -> Progress:
    return _noted(_replace(progress, status="parked"), at_ns, "parked", step)


def _noted(progress: Progress, at_ns: int, what: Happening, step: Step | None = None, text: str = "") -> Progress:
    event = OperationEvent(at_ns=at_ns, what=what, step="" if step is None else step.name, text=text[:400])
    first, *rest = (*progress.history, event)
    return _replace(progress, history=(first, *rest[1 - MAX_EVENTS :]), events=progress.events + 1)
