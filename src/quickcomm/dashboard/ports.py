"""What the dashboard needs from outside: a store, somewhere to push, and word of how the system is."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Generic, Literal, Protocol, TypeVar

import msgspec

from quickcomm.contracts.decisions import Decision
from quickcomm.contracts.health import Alarm, ClassifierHealth
from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.contracts.timing import Latency
from quickcomm.dashboard.model.copies import Said
from quickcomm.dashboard.model.edits import Edit
from quickcomm.dashboard.model.places import After, Cursor
from quickcomm.dashboard.model.records import Closing, ConversationRecord, TaskRecord, TaskStatus, UtteranceRecord
from quickcomm.dashboard.model.report import ShiftReport
from quickcomm.dashboard.model.views import Card, Channel, Conversation, Task
from quickcomm.kernel.errors import BusyError, ConflictError
from quickcomm.kernel.telemetry import Budget
from quickcomm.kernel.telemetry.stages import StageHealth

T = TypeVar("T")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How the whole system is, as the page shows it."""

    status: Literal["ok", "degraded"] = "ok"
    sessions: int = 0
    stt_backlog_s: float = 0.0
    alarms: tuple[Alarm, ...] = ()
    classifier: ClassifierHealth = ClassifierHealth()
    budget: Budget = Budget()
    stages: tuple[StageHealth, ...] = ()
    """The last minutes against it."""
    trace_url: str | None = None
    """Where a trace can be looked at, with {trace_id} in it."""


HealthProvider = Callable[[], Health]
OnReceipt = Callable[[str, str, str, Latency], None]
"""Called once an utterance with (site, conversation_id, utterance_id, latency), after its first complete push."""


class Board(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a page shows: the `recent` newest cards, those of the `done` tasks finished last, and all work left.

    Of that, at most `open` tasks and as many unclassified utterances are in a first state.
    """

    recent: Annotated[int, msgspec.Meta(ge=1)] = 200
    done: Annotated[int, msgspec.Meta(ge=1)] = 100
    open: Annotated[int, msgspec.Meta(ge=1)] = 2000


class DashboardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the dashboard. Every one is there to keep memory or time bounded."""

    live_clients: int = 200
    live_queue: int = 1024
    """Messages that may wait for one client before it is disconnected."""
    live_send_timeout_s: float = 10.0
    health_every_s: float = 2.0
    replay: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Changes that a page which comes back is sent; beyond that it gets a new first state."""
    board: Board = Board()
    queries_at_once: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Questions of REST that are looked up at the same time."""
    queries_waiting: Annotated[int, msgspec.Meta(ge=1)] = 256
    """So many more wait for their turn; others are refused, with 503."""
    closing_confidence: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = CLOSING_CONFIDENCE
    """How sure a report must be that a job is finished to close a task; others keep their card and close nothing."""
    metrics_open: bool = False
    database_url: str | None = None
    """PostgreSQL of a dashboard that is a service of its own; None: a SQLite file in its part of the data directory."""


class Hidden(Protocol):
    """What was erased, and must not come back."""

    def hides(self, site: str, utterance_id: str) -> bool:
        """Return True if the utterance, or its whole conversation, was erased."""
        ...

    def hides_summary(self, site: str, conversation_id: str, at_ns: int) -> bool:
        """Return True if a summary of that time may have words that were erased."""
        ...


class State(Protocol):
    """The records, inside one transaction. `save_*` of the same record twice is one row."""

    @property
    def erased(self) -> Hidden: ...

    def utterance(self, site: str, utterance_id: str) -> UtteranceRecord | None: ...
    def save_utterance(self, record: UtteranceRecord) -> None: ...
    def copies_of(self, site: str, utterance_id: str) -> list[UtteranceRecord]: ...
    def said_beside(self, me: Said, site: str, least: float) -> list[tuple[Said, str | None]]:
        """Return the complete utterances that may be the same transmission, each with that of which it is a copy.

        They lie within that time, or around it, but for the delay of a receiver. `least`: see `copies.said`.
        """
        ...

    def conversation(self, site: str, conversation_id: str) -> ConversationRecord | None: ...
    def save_conversation(self, record: ConversationRecord) -> None: ...
    def tasks_unfinished(self, site: str, conversation_id: str) -> list[TaskRecord]: ...
    def is_answered(self, site: str, conversation_id: str) -> bool:
        """Return True if every utterance of it that was heard has its insights."""
        ...

    def task(self, site: str, task_id: str) -> TaskRecord | None: ...
    def tasks_of(self, site: str, utterance_id: str) -> list[TaskRecord]: ...
    def save_task(self, record: TaskRecord) -> None: ...
    def delete_task(self, record: TaskRecord) -> None: ...
    def closings_of(self, site: str, utterance_id: str) -> list[Closing]: ...
    def save_closing(self, record: Closing) -> None: ...
    def delete_closing(self, record: Closing) -> None: ...
    def tasks_in_rooms(self, site: str, rooms: Iterable[str], since_ns: int, closed_since_ns: int) -> list[TaskRecord]:
        """Those said since `since_ns` that are not done, or done since `closed_since_ns`."""
        ...

    def closings_in_rooms(self, site: str, rooms: Iterable[str], since_ns: int) -> list[Closing]: ...
    def tasks_acknowledged(self, site: str, channel: str) -> list[TaskRecord]: ...
    def tasks_closed_by(self, site: str, utterance_id: str) -> list[TaskRecord]:
        """Return those that a report in this utterance has closed."""
        ...

    def closings_on(self, site: str, utterance_id: str) -> list[Closing]:
        """Return the closings of tasks that this utterance has, or had."""
        ...

    def decision(self, site: str, subject: str) -> Decision | None: ...
    def decisions_of(self, site: str, utterance_id: str) -> list[Decision]:
        """Return the newest decision about each task and closing of an utterance, and about its relation."""
        ...

    def newest_epoch(self) -> int:
        """Return the highest epoch of all decisions; 0 where there are none."""
        ...

    def save_decision(self, decision: Decision) -> None:
        """Put it in the place of the one about the same subject."""
        ...

    def next_change(self, site: str) -> int: ...
    def save_receipt(self, site: str, utterance_id: str, receipt: Latency) -> None: ...
    def save_painted(self, site: str, utterance_id: str, painted_ms: float) -> None: ...
    def purge(self, before_ns: int, limit: int) -> int:
        """Delete at most `limit` conversations that ended earlier, with all that belongs to them; how many it was."""
        ...


class Store(Protocol):
    async def transact(self, work: Callable[[State], T]) -> T:
        """Run `work` in one transaction; return after the commit. What it raises takes the transaction back."""
        ...

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Be the only process of this store inside such a block."""
        ...


class StaleDecisionError(ConflictError):
    """The log has a newer decision about one of the subjects."""

    code = "dashboard.stale_decision"


class NotDecidingError(BusyError):
    """The side of this process does not have the lease of the log, or not in this epoch."""

    code = "dashboard.not_deciding"


class DecisionLog(Protocol):
    """Where decisions of one side become durable, and go from there to all that fold them."""

    @property
    def epoch(self) -> int:
        """Return the epoch in which this side decides; 0 before it has the lease."""
        ...

    async def hold(self, known_epoch: int, routes: int = 0) -> None:
        """Take the lease where nobody has it, or the holder went by older routes; go on with it where this side has it.

        `known_epoch`: the highest one in the database; a log that was lost begins above it. `routes`: the version by
        which this side decides. Raises `NotDecidingError` where another side decides.
        """
        ...

    async def append(self, decisions: Sequence[Decision]) -> None:
        """Append all or none. Appending the same again changes nothing.

        Raises:
            StaleDecisionError: the log has a newer version of a subject.
            NotDecidingError: this side does not decide, or not in this epoch.
            BusyError, BusUnavailableError: nothing can be decided now.

        """
        ...


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Where a list goes on. With `after` it is what changed since, in the order of the changes.

    Then only filters by what never changes of an item count: one that has left another filter would be missed.
    """

    limit: int = 50
    cursor: Cursor | None = None
    after: After | None = None


class UtteranceFilter(msgspec.Struct, frozen=True, kw_only=True):
    query: str | None = None
    channel: str | None = None
    department: str | None = None
    conversation: str | None = None
    since_ns: int | None = None


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """What a first state does not have: unfinished tasks by urgency, unclassified utterances, `older` cards."""

    critical: int
    high: int
    normal: int
    low: int
    unclassified: int
    older: bool


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a page needs when it connects: all of one moment, `change`. `left_out`: of a first state (`reset`).

    `side`: the database whose numbers these are. `foreign`: what was asked for is of another one.
    """

    side: str
    change: int
    foreign: bool = False
    cards: list[Card]
    conversations: list[Conversation]
    left_out: LeftOut | None = None

    @property
    def reset(self) -> bool:
        return self.left_out is not None


class Listed(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A part of a list. `cursor`: where it goes on, if there is more. `after`: the point from which to poll.

    `more`: there is more now.
    """

    items: list[T]
    cursor: Cursor | None = None
    after: After | None = None
    more: bool = False


class Queries(Protocol):
    """Lists raise `CursorResetError` for a `cursor` or `after` of another side."""

    async def utterances(self, site: str, wanted: UtteranceFilter, page: Page) -> Listed[Card]: ...
    async def utterance(self, site: str, utterance_id: str) -> Card: ...
    async def conversations(
        self, site: str, state: str | None, channel: str | None, page: Page
    ) -> Listed[Conversation]: ...
    async def conversation(self, site: str, conversation_id: str) -> Conversation: ...
    async def tasks(self, site: str, status: TaskStatus | None, department: str | None, page: Page) -> Listed[Task]: ...
    async def channels(self, site: str) -> list[Channel]: ...
    async def changes(self) -> dict[str, int]:
        """Return the newest change of every site."""
        ...

    async def replay(self, site: str, after: After | None, limit: int, board: Board) -> Replay:
        """Return what changed after `after`; the first state of `board` where that is unknown or more than `limit`."""
        ...


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """From `since_ns` to before `until_ns`, looked at from `now_ns`."""

    since_ns: int
    until_ns: int
    now_ns: int


class Reports(Protocol):
    async def shift(self, site: str, shift: Shift) -> ShiftReport:
        """The numbers, without a narrative."""
        ...


class Commands(Protocol):
    """What people do."""

    async def edit_task(self, site: str, task_id: str, edit: Edit) -> Task:
        """Return the task afterwards, once that is durable. Raises `NotFoundError` and `ConflictError`."""
        ...

    def painted(self, site: str, utterance_id: str, painted_ms: float) -> None:
        """Record that a browser shows a card that was pushed to it just now. Never blocks."""
        ...


class Live(Protocol):
    """Everybody who looks at a page. Nothing here blocks."""

    def card(self, site: str, card: Card) -> None: ...
    def task(self, site: str, task: Task, change: int) -> None: ...
    def conversation(self, site: str, conversation: Conversation) -> None: ...


class Applied(msgspec.Struct, kw_only=True):
    """What a transaction changed, as it is afterwards."""

    cards: list[tuple[UtteranceRecord, tuple[TaskRecord, ...]]] = []
    copies: dict[tuple[str, str], list[UtteranceRecord]] = {}
    """Of these cards, by (site, utterance id)."""
    tasks: list[tuple[TaskRecord, int]] = []
    conversations: list[ConversationRecord] = []
    again: list[UtteranceRecord] = []
    """Complete ones that came again before their receipt was stored: nothing changed, but nobody may know of them."""
