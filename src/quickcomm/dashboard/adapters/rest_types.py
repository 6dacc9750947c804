"""Queries, bodies and answers of the REST interface."""

from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from quickcomm.contracts.conversations import ConversationState
from quickcomm.contracts.correcting import MAX_TEXT
from quickcomm.contracts.migration import MAX_NAME, OverrideKind
from quickcomm.dashboard.adapters import parameters
from quickcomm.dashboard.adapters.operations import AFTER, CURSOR, TIME, Query
from quickcomm.dashboard.model.erasures import ErasureStand
from quickcomm.dashboard.model.operations import OperationStand
from quickcomm.dashboard.model.places import After, Cursor
from quickcomm.dashboard.model.records import TaskStatus
from quickcomm.dashboard.model.views import Card, Channel, Conversation, Task
from quickcomm.dashboard.ports import Page
from quickcomm.kernel.errors import InvalidInputError
from quickcomm.kernel.keys import Role

_TIME: Final = {"format": "date-time"}
OnlyChannel = Annotated[str, Meta(description="Only this channel.", examples=["housekeeping"])]
OnlyDepartment = Annotated[str, Meta(description="Only this department.", examples=["engineering"])]
OnlyConversation = Annotated[str, Meta(description="Only this conversation.", examples=["shift-1"])]
Limit = Annotated[int, Meta(ge=1, le=200, description="At most so many items.", examples=[20])]


class PageQuery(Query, frozen=True, kw_only=True):
    """A page of a list, or what changed. `CHANGEABLE`: filters that an item can leave."""

    CHANGEABLE: ClassVar[tuple[str, ...]] = ()
    cursor: (
        Annotated[
            Cursor,
            Meta(
                description="`next_cursor` of the last answer.",
                examples=["OWYyYzRlMWE3YjBkMzg1NjoxNzYyODQ2NTI1MTIzMDAwMDAwLjQy"],
                extra=CURSOR,
                extra_json_schema={"maxLength": 120, "pattern": "^[A-Za-z0-9_-]*$"},
            ),
        ]
        | None
    ) = None
    after: (
        Annotated[
            After,
            Meta(
                description="`next_after` of the last answer: all that changed since, in the order of the changes. "
                "0 begins with the first change.",
                examples=["9f2c4e1a7b0d3856:1235"],
                extra=AFTER,
                extra_json_schema={"maxLength": 70, "pattern": parameters.AFTER},
            ),
        ]
        | None
    ) = None
    limit: Limit = 50

    @property
    def page(self) -> Page:
        """Raise `InvalidInputError` where what changed could be missed."""
        if self.after is not None:
            for name in ("cursor", *self.CHANGEABLE):
                if getattr(self, name) is not None:
                    raise InvalidInputError(
                        f"`after` does not go with `{name}`: what changes so that it is left out would be missed. Ask "
                        f"without `{name}`, and look at the items."
                    )
        return Page(limit=self.limit, cursor=self.cursor, after=self.after)


class ConversationQuery(PageQuery, frozen=True, kw_only=True):
    CHANGEABLE = ("state",)
    state: Annotated[ConversationState, Meta(description="Only this state.", examples=["live"])] | None = None
    channel: OnlyChannel | None = None


class UtteranceQuery(PageQuery, frozen=True, kw_only=True):
    CHANGEABLE = ("query", "department")
    query: (
        Annotated[
            str,
            Meta(
                description="Words in text, summary or rooms; all must occur, the last may be a beginning.",
                examples=["towels 412"],
            ),
        ]
        | None
    ) = None
    channel: OnlyChannel | None = None
    department: OnlyDepartment | None = None
    since: (
        Annotated[
            int,
            Meta(
                description="Spoken at or after this time.",
                examples=["2026-05-09T07:00:00Z"],
                extra=TIME,
                extra_json_schema={**_TIME, "maxLength": 40},
            ),
        ]
        | None
    ) = None
    conversation: OnlyConversation | None = None


class TaskQuery(PageQuery, frozen=True, kw_only=True):
    CHANGEABLE = ("status", "department")
    status: Annotated[TaskStatus, Meta(description="Only this status.", examples=["open"])] | None = None
    department: OnlyDepartment | None = None


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """`why`: for the audit. `force`: whatever the gate says."""

    why: Annotated[str, Meta(max_length=400)] = ""
    force: bool = False


class Weigh(msgspec.Struct, frozen=True, kw_only=True):
    """`percent`: that the service serves, to a hundredth. `why`: for the audit. `force`: whatever the gate says."""

    percent: Annotated[float, Meta(gt=0, lt=100)]
    why: Annotated[str, Meta(max_length=400)] = ""
    force: bool = False


class Overriding(msgspec.Struct, frozen=True, kw_only=True):
    """`of`: the channel, site or conversation. `side`: that it gets; null: it goes by its bucket again."""

    kind: OverrideKind
    of: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    side: Literal["monolith", "service"] | None
    why: Annotated[str, Meta(max_length=400)] = ""


class EditQuery(Query, frozen=True, kw_only=True):
    """Compare and set; the header `If-Match: "VERSION"` says the same."""

    expected: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=2**53,
                description="`version` of the task that the person has seen. If it was changed since, the answer is "
                '409 with `changed_by`, `changed_at` and the `task` as it is now. `If-Match: "3"` says the same.',
                examples=[1],
            ),
        ]
        | None
    ) = None


class ShiftQuery(Query, frozen=True, kw_only=True):
    since: (
        Annotated[
            int,
            Meta(
                description="Said at or after this time.",
                examples=["2026-05-09T00:00:00Z"],
                extra=TIME,
                extra_json_schema={**_TIME, "maxLength": 40},
            ),
        ]
        | None
    ) = None
    until: (
        Annotated[
            int,
            Meta(
                description="Said before this time; at most 31 days after `since`.",
                examples=["2026-05-09T08:00:00Z"],
                extra=TIME,
                extra_json_schema={**_TIME, "maxLength": 40},
            ),
        ]
        | None
    ) = None
    narrative: Annotated[
        Literal["any", "local"],
        Meta(
            description="Who may write the sentences: `any` asks the language model where there is one, which can take "
            "seconds; `local` does not.",
            examples=["local"],
        ),
    ] = "any"


class UsageQuery(Query, frozen=True, kw_only=True):
    conversation: OnlyConversation | None = None
    limit: Limit = 50


class ReadinessQuery(Query, frozen=True, kw_only=True):
    of: Annotated[
        Literal["site", "process"],
        Meta(
            description="`site`: also whether sound can be taken; `process`: of the process that answers, alone.",
            examples=["site"],
        ),
    ] = "site"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a list. `more`: there is more now.

    `next_cursor`: for `cursor`, older items. `next_after`: for `after`, what changed since; null after a `cursor`.
    """

    next_cursor: str | None = None
    next_after: str | None = None
    more: bool = False


class CardList(Answer, frozen=True, kw_only=True):
    items: list[Card]


class ConversationList(Answer, frozen=True, kw_only=True):
    items: list[Conversation]


class TaskList(Answer, frozen=True, kw_only=True):
    items: list[Task]


class ChannelList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Channel]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The signed-in user of a page."""

    role: Role
    site: str
    version: str


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: str


class HandingOver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To whom a task, or the open tasks of a conversation, are handed over."""

    assignee: Annotated[str, Meta(min_length=1, max_length=80)]


class ClosingOf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to close a conversation. `tasks`: what becomes of those that are not done."""

    tasks: Literal["keep", "close"] | HandingOver = "keep"


class CorrectedText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The correct text of an utterance, in place of the heard one."""

    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]


class OperationQuery(Query, frozen=True, kw_only=True):
    limit: Limit = 50
    unfinished: Annotated[
        Literal["true", "false"],
        Meta(description="`true`: only those that are under way or parked.", examples=["true"]),
    ] = "false"


class OperationList(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first."""

    items: list[OperationStand]


class ErasingOf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be erased: a conversation, a name, or what was said from `since` until before `until` (now).

    Just one of the three. The name is kept nowhere. `dry_run`: only counts.
    """

    conversation: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    since: Annotated[str, Meta(min_length=1, max_length=40)] | None = None
    until: Annotated[str, Meta(min_length=1, max_length=40)] | None = None
    dry_run: bool = False


class ErasureQuery(Query, frozen=True, kw_only=True):
    limit: Limit = 50


class ErasureList(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first."""

    items: list[ErasureStand]


class Assignment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`assignee`: a name of at most 80 characters; null or "" takes the assignment back."""

    assignee: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    version: str
