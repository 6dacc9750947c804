"""Commands that are steps of an operation over several modules, or take one back; and how an operation stands."""

from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

import msgspec

from quickcomm.contracts.messaging import Request

R = TypeVar("R")
OPERATIONS: Final = "operations"
"""The module whose process executes operations."""

OperationStatus = Literal["running", "compensating", "done", "compensated", "parked"]
Happening = Literal["started", "done", "failed", "undone", "kept", "parked", "resumed", "compensating", "finished"]


class StepRequest(Request[R], Generic[R], frozen=True, kw_only=True):
    """Base of the commands of steps, and of those that take a step back.

    `key`: of the step in its operation. Who answers has the effect once for each key, and none for the key of a step
    that was taken back, however late its command arrives.
    """

    callers: ClassVar[tuple[str, ...]] = (OPERATIONS,)
    within_s: ClassVar[float | None] = 10.0

    key: str


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to a command that takes a step back. `found`: the step had had its effect."""

    found: bool = False


class OperationEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to an operation. `step`: empty where it is about the whole."""

    at_ns: int
    what: Happening
    step: str = ""
    text: str = ""


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """A step as it is defined. `stays`: why nothing takes it back; empty where it can be taken back."""

    name: str
    module: str
    stays: str = ""


class OperationView(msgspec.Struct, frozen=True, kw_only=True):
    """An operation as it stands. `subject`: the thing that it is about, such as a conversation."""

    id: str
    name: str
    site: str
    subject: str
    by: str
    status: OperationStatus
    step: str = ""
    """The step that is next, or at which it is parked."""
    why: str = ""
    """The last error."""
    started_ns: int
    changed_ns: int
    results: dict[str, Any] = {}
    """The reply of each step that is done."""
    history: tuple[OperationEvent, ...] = ()
    steps: tuple[StepView, ...] = ()
    """All of them, in order; none where this release does not know the operation."""
    back: bool = False
    """It is on its way back: all that is left is to take back what was done."""
