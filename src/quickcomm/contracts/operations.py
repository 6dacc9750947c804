"""Asks the executor of operations over several modules: to start one, how it stands, and what operators may do."""

from typing import Annotated, Any, ClassVar

import msgspec

from quickcomm.contracts.commands import Command
from quickcomm.contracts.saga import OPERATIONS

MOST_SHOWN = 200


class OfOperations(Command, frozen=True):
    module: ClassVar = OPERATIONS
    callers: ClassVar = ("dashboard",)
    within_s: ClassVar = 30.0
    about: ClassVar = "how operations stand"


class StartOperation(OfOperations, frozen=True, kw_only=True, tag="operations.start"):
    """Starts an operation, unless one of that name and about the same is at work or done: then that one is told.

    The reply is an `OperationView`, as it stands after `wait_s` seconds at most.
    """

    operation: str
    site: str
    by: str
    given: dict[str, Any]
    """The input of the operation."""
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=25)] = 10.0


class ListOperations(OfOperations, frozen=True, kw_only=True, tag="operations.list"):
    """The newest first. `unfinished`: only those at work or parked. `site`, `subject`: None for all."""

    within_s: ClassVar = 5.0

    site: str | None = None
    subject: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_SHOWN)] = 50
    unfinished: bool = False


class GetOperation(OfOperations, frozen=True, kw_only=True, tag="operations.get"):
    """`site`: None for any."""

    within_s: ClassVar = 5.0

    id: str
    site: str | None = None


class ResumeOperation(OfOperations, frozen=True, kw_only=True, tag="operations.resume"):
    """Has a parked operation go on where it stopped. `site`: None for any."""

    id: str
    by: str
    site: str | None = None
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=25)] = 10.0


class CompensateOperation(OfOperations, frozen=True, kw_only=True, tag="operations.compensate"):
    """Has a parked operation taken back, as far as that is possible; the rest stays, and its history says so.

    `site`: None for any.
    """

    id: str
    by: str
    site: str | None = None
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=25)] = 10.0
