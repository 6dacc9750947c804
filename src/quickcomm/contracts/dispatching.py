"""The steps of dispatching a task: the dashboard reserves it for a person, a webhook tells, the dashboard confirms."""

from typing import Annotated, ClassVar, Final

import msgspec

from quickcomm.contracts.insight import Urgency
from quickcomm.contracts.messaging import Request
from quickcomm.contracts.saga import OPERATIONS, StepRequest, Undone

MAX_NAME: Final = 80
ABOUT: Final = "the tasks of a conversation"


class Dispatching(msgspec.Struct, frozen=True, kw_only=True):
    """What the operation is started with. `expected`: the version of the task that the caller has seen; None: any."""

    task_id: Annotated[str, msgspec.Meta(min_length=1, max_length=210)]
    assignee: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    expected: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for a name that cannot be shown."""
        if not self.assignee.isprintable() or self.assignee != self.assignee.strip():
            message = "`assignee` must be printable, without spaces around it"
            raise ValueError(message)


class Reserved(msgspec.Struct, frozen=True, kw_only=True):
    """`key`: of the reservation. `version`: of the task after it. No names: replies are kept, and are not erased."""

    key: str
    at_ns: int
    version: int


class ReserveTask(StepRequest[Reserved], frozen=True, kw_only=True, tag="tasks.reserve"):
    """Gives a task to a person, whom a notice then tells. Refused where it is done, or was changed since `expected`."""

    module: ClassVar = "dashboard"
    to: ClassVar = "owner"
    about: ClassVar = ABOUT

    site: str
    task_id: str
    assignee: str
    by: str
    expected: int | None = None


class ReleaseTask(StepRequest[Undone], frozen=True, kw_only=True, tag="tasks.release"):
    """Takes a reservation back; a task that was changed since stays as it is."""

    module: ClassVar = "dashboard"
    to: ClassVar = "owner"
    about: ClassVar = ABOUT

    site: str
    task_id: str
    by: str


class TaskNotice(msgspec.Struct, frozen=True, kw_only=True):
    """What the receiver of a notice is told about a task. Times are RFC 3339 UTC."""

    task_id: str
    conversation_id: str
    utterance_id: str
    channel: str
    summary: str
    text: str
    """What was said; empty where only the task is left of it."""
    intent: str
    department: str
    urgency: Urgency
    rooms: tuple[str, ...]
    assignee: str
    spoken_at: str
    version: int


class DescribeTask(Request[TaskNotice], frozen=True, kw_only=True, tag="tasks.describe"):
    """Asks what a notice says. Refused where the task is not as the reservation `reserved` left it."""

    module: ClassVar = "dashboard"
    to: ClassVar = "owner"
    callers: ClassVar = (OPERATIONS,)
    within_s: ClassVar = 5.0
    about: ClassVar = ABOUT

    site: str
    task_id: str
    reserved: str


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: the HTTP status that the receiver answered. `attempts`: since the executor began with the notice."""

    status: int
    attempts: int
    at_ns: int


class SendNotice(StepRequest[Delivered], frozen=True, kw_only=True, tag="notices.send"):
    """Tells the webhook of the site.

    The executor does it itself: texts go from the dashboard to the receiver, and no record of an operation has them.
    """

    module: ClassVar = OPERATIONS
    callers: ClassVar = ()
    within_s: ClassVar = None
    about: ClassVar = "the webhook"

    site: str
    task_id: str
    reserved: str


class Confirmed(msgspec.Struct, frozen=True, kw_only=True):
    at_ns: int


class ConfirmDispatch(StepRequest[Confirmed], frozen=True, kw_only=True, tag="tasks.confirm"):
    """Decides that the person was told, at `notified_ns`; without effect where `reserved` does not stand any more."""

    module: ClassVar = "dashboard"
    to: ClassVar = "owner"
    about: ClassVar = ABOUT

    site: str
    task_id: str
    by: str
    reserved: str
    notified_ns: int
