"""Operations over several modules as the page and REST show them."""

from typing import Any

import msgspec

from quickcomm.contracts.saga import Happening, OperationStatus, OperationView
from quickcomm.dashboard.model.views import rfc3339


class OperationStep(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. `step`: empty where it is about the whole operation."""

    at: str
    what: Happening
    step: str
    text: str


class DefinedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step as it is defined. `stays`: why nothing takes it back; empty where it can be taken back."""

    name: str
    module: str
    stays: str


class OperationStand(msgspec.Struct, frozen=True, kw_only=True):
    """How an operation stands. `step`: the one that is next, or at which it is parked; `why`: the last error.

    `results`: the reply of each step that is done, by its name. `steps`: all of them, in order.
    `back`: all that is left is to take back what was done.
    """

    operation_id: str
    operation: str
    subject: str
    by: str
    status: OperationStatus
    step: str
    why: str
    started_at: str
    changed_at: str
    results: dict[str, Any] = {}
    history: tuple[OperationStep, ...]
    steps: tuple[DefinedStep, ...]
    back: bool


def operation_stand(view: OperationView) -> OperationStand:
    return OperationStand(
        operation_id=view.id,
        operation=view.name,
        subject=view.subject,
        by=view.by,
        status=view.status,
        step=view.step,
        why=view.why,
        started_at=rfc3339(view.started_ns),
        changed_at=rfc3339(view.changed_ns),
        results=view.results,
        history=tuple(
            OperationStep(at=rfc3339(each.at_ns), what=each.what, step=each.step, text=each.text)
            for each in view.history
        ),
        steps=tuple(DefinedStep(name=each.name, module=each.module, stays=each.stays) for each in view.steps),
        back=view.back,
    )
