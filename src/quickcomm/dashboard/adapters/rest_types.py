"""Queries, bodies and answers of the REST interface."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from quickcomm.contracts.conversations import ConversationState
from quickcomm.dashboard.adapters.operations import CURSOR, TIME, Query
from quickcomm.dashboard.model.records import TaskStatus
from quickcomm.dashboard.model.views import Card, Channel, Conversation, Task
from quickcomm.dashboard.ports import Page
from quickcomm.kernel.keys import Role

_TIME: Final = {"format": "date-time"}
OnlyChannel = Annotated[str, Meta(description="Only this channel.", examples=["housekeeping"])]
OnlyDepartment = Annotated[str, Meta(description="Only this department.", examples=["engineering"])]
OnlyConversation = Annotated[str, Meta(description="Only this conversation.", examples=["shift-1"])]
Limit = Annotated[int, Meta(ge=1, le=200, description="At most so many items.", examples=[20])]


class PageQuery(Query, frozen=True, kw_only=True):
    """A page of a list."""

    cursor: (
        Annotated[
            tuple[int, int],
            Meta(
                description="`next_cursor` of the last answer.",
                examples=["MTc2Mjg0NjUyNTEyMzAwMDAwMC40Mg"],
                extra=CURSOR,
                extra_json_schema={"maxLength": 60, "pattern": "^[A-Za-z0-9_-]*$"},
            ),
        ]
        | None
    ) = None
    limit: Limit = 50

    @property
    def page(self) -> Page:
        return Page(limit=self.limit, after=self.cursor)


class ConversationQuery(PageQuery, frozen=True, kw_only=True):
    state: Annotated[ConversationState, Meta(description="Only this state.", examples=["live"])] | None = None
    channel: OnlyChannel | None = None


class UtteranceQuery(PageQuery, frozen=True, kw_only=True):
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
    status: Annotated[TaskStatus, Meta(description="Only this status.", examples=["open"])] | None = None
    department: OnlyDepartment | None = None


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


class CardList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Card]
    next_cursor: str | None = None


class ConversationList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Conversation]
    next_cursor: str | None = None


class TaskList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Task]
    next_cursor: str | None = None


class ChannelList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Channel]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The signed-in user of a page."""

    role: Role
    site: str
    version: str


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: str


class Assignment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`assignee`: a name of at most 80 characters; null or "" takes the assignment back."""

    assignee: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    version: str
