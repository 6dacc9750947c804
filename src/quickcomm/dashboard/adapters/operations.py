"""Every operation of the REST interface in one table: routes, roles and the OpenAPI document are made from it."""

from typing import Any, Final, Literal

import msgspec

from quickcomm.contracts.conversations import ConversationState
from quickcomm.contracts.prompts import PromptsView
from quickcomm.dashboard.adapters.prompts_example import PROMPTS_EXAMPLE
from quickcomm.dashboard.model.records import TaskStatus
from quickcomm.dashboard.model.views import Card, Channel, Conversation, Task
from quickcomm.kernel.keys import Role

STATES: Final[tuple[ConversationState, ...]] = ("live", "interrupted", "ended", "expired")
STATUSES: Final[tuple[TaskStatus, ...]] = ("open", "acknowledged", "done")


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
    """Who the page is."""

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


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    schema: dict[str, Any]
    example: Any


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """`role` None: open to everybody. `answer` None: no JSON (a page, metrics, or nothing)."""

    id: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    tag: str
    summary: str
    role: Role | None = "read"
    parameters: tuple[Parameter, ...] = ()
    body: type | None = None
    body_example: Any = None
    answer: type | None = None
    example: Any = None
    status: int = 200
    media_type: str = "application/json"
    errors: tuple[int, ...] = ()


def _text(name: str, description: str, example: str, **schema: Any) -> Parameter:
    return Parameter(
        name=name, description=description, schema={"type": "string", "maxLength": 200, **schema}, example=example
    )


CURSOR = _text(
    "cursor",
    "`next_cursor` of the last answer.",
    "MTc2Mjg0NjUyNTEyMzAwMDAwMC40Mg",
    maxLength=60,
    pattern="^[A-Za-z0-9_-]*$",
)
LIMIT = Parameter(
    name="limit",
    description="At most so many items.",
    schema={"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
    example=20,
)
CHANNEL = _text("channel", "Only this channel.", "housekeeping")
DEPARTMENT = _text("department", "Only this department.", "engineering")
QUERY = _text("query", "Words in text, summary or rooms; all must occur, the last may be a beginning.", "towels 412")
SINCE = _text("since", "Spoken at or after this time.", "2026-05-09T07:00:00Z", format="date-time", maxLength=40)
CONVERSATION = _text("conversation", "Only this conversation.", "shift-1")

TASK_EXAMPLE: Final = {
    "task_id": "shift-1:0:48000:0",
    "utterance_id": "shift-1:0:48000",
    "insight_index": 0,
    "status": "open",
    "channel": "housekeeping",
    "intent": "request_item",
    "department": "housekeeping",
    "urgency": "normal",
    "rooms": ["412"],
    "summary": "Bring towels to 412",
    "assignee": None,
    "created_at": "2026-05-09T07:35:25.123Z",
    "acknowledged_at": None,
    "completed_at": None,
    "completed_by": None,
    "completed_by_utterance": None,
}
CARD_EXAMPLE: Final = {
    "utterance_id": "shift-1:0:48000",
    "conversation_id": "shift-1",
    "channel": "housekeeping",
    "speaker": 0,
    "start_offset": 48000,
    "end_offset": 75200,
    "sample_rate": 16000,
    "text": "bring two towels to 412",
    "confidence": 0.91,
    "unintelligible": False,
    "status": "ok",
    "seq": 1,
    "spoken_at": "2026-05-09T07:35:23.423Z",
    "words": [{"text": "bring", "start_offset": 48000, "end_offset": 52800, "confidence": 0.97}],
    "insights": [
        {
            "index": 0,
            "revision": 1,
            "intent": "request_item",
            "department": "housekeeping",
            "urgency": "normal",
            "rooms": ["412"],
            "unverified": [],
            "items": [{"name": "towel", "quantity": 2}],
            "summary": "Bring towels to 412",
            "confidence": 0.93,
            "source": "local",
            "degraded": False,
            "prompt_version": None,
            "model": "local",
            "evidence": {"rooms": ["412"], "items": ["two towels"], "urgency": []},
        }
    ],
    "tasks": [TASK_EXAMPLE],
    "latency_ms": {
        "endpoint": 520.0,
        "stt": 180.0,
        "publish": 4.0,
        "queue": 3.0,
        "classify": 6.0,
        "store": 5.0,
        "push": 0.4,
        "total": 721.0,
    },
    "change": 1234,
}
_LEDGER: Final = {"received": 960000, "speech": 240000, "silence": 720000, "gap": 0}
CONVERSATION_EXAMPLE: Final = {
    "conversation_id": "shift-1",
    "channel": "housekeeping",
    "state": "live",
    "sample_rate": 16000,
    "speakers": 1,
    "started_at": "2026-05-09T07:35:20.000Z",
    "ended_at": None,
    "unreachable_since": None,
    "continues": None,
    "utterances": 12,
    "ledger": _LEDGER,
    "ledgers": [_LEDGER],
    "summary": {
        "text": "Open: Bring towels to 412. Done: Fix leak in 305.",
        "source": "local",
        "revision": 2,
        "at": "2026-05-09T07:36:00.000Z",
    },
    "change": 1235,
}
_CHANNEL_EXAMPLE: Final = {
    "channel": "housekeeping",
    "live": 1,
    "conversations": 3,
    "utterances": 42,
    "open_tasks": 4,
    "last_utterance_at": "2026-05-09T07:35:25.123Z",
}
_SESSION_EXAMPLE: Final = {"role": "read", "site": "main", "version": "0.1.0"}
_DONE: Final = {**TASK_EXAMPLE, "status": "done", "completed_at": "2026-05-09T07:41:02.000Z", "completed_by": "desk"}
_ACKNOWLEDGED: Final = {**TASK_EXAMPLE, "status": "acknowledged", "acknowledged_at": "2026-05-09T07:36:00.000Z"}


def _task_action(action: str, summary: str, example: dict[str, Any], **extra: Any) -> Operation:
    return Operation(
        id=f"{action}Task",
        method="POST",
        path=f"/v1/tasks/{{task_id}}/{action}",
        tag="tasks",
        summary=summary,
        role="admin",
        answer=Task,
        example=example,
        errors=(400, 404) if action != "acknowledge" else (400, 404, 409),
        **extra,
    )


OPERATIONS: Final = (
    Operation(
        id="listConversations",
        method="GET",
        path="/v1/conversations",
        tag="conversations",
        summary="Conversations, newest first",
        parameters=(
            Parameter(
                name="state",
                description="Only this state.",
                schema={"type": "string", "enum": list(STATES)},
                example="live",
            ),
            CHANNEL,
            CURSOR,
            LIMIT,
        ),
        answer=ConversationList,
        example={"items": [CONVERSATION_EXAMPLE], "next_cursor": None},
        errors=(400,),
    ),
    Operation(
        id="getConversation",
        method="GET",
        path="/v1/conversations/{conversation_id}",
        tag="conversations",
        summary="One conversation with its ledger",
        answer=Conversation,
        example=CONVERSATION_EXAMPLE,
        errors=(404,),
    ),
    Operation(
        id="listUtterances",
        method="GET",
        path="/v1/utterances",
        tag="utterances",
        summary="Utterances with what they ask for, newest first",
        parameters=(QUERY, CHANNEL, DEPARTMENT, SINCE, CONVERSATION, CURSOR, LIMIT),
        answer=CardList,
        example={"items": [CARD_EXAMPLE], "next_cursor": None},
        errors=(400,),
    ),
    Operation(
        id="getUtterance",
        method="GET",
        path="/v1/utterances/{utterance_id}",
        tag="utterances",
        summary="One utterance",
        answer=Card,
        example=CARD_EXAMPLE,
        errors=(404,),
    ),
    Operation(
        id="listTasks",
        method="GET",
        path="/v1/tasks",
        tag="tasks",
        summary="Tasks, newest first",
        parameters=(
            Parameter(
                name="status",
                description="Only this status.",
                schema={"type": "string", "enum": list(STATUSES)},
                example="open",
            ),
            DEPARTMENT,
            CURSOR,
            LIMIT,
        ),
        answer=TaskList,
        example={"items": [TASK_EXAMPLE], "next_cursor": None},
        errors=(400,),
    ),
    _task_action("acknowledge", "Say that somebody has seen it", _ACKNOWLEDGED),
    _task_action("complete", "Say that it is done", _DONE),
    _task_action(
        "assign",
        "Give it to somebody, or to nobody again",
        {**TASK_EXAMPLE, "assignee": "Maria"},
        body=Assignment,
        body_example={"assignee": "Maria"},
    ),
    _task_action("reopen", "Take back that it was seen or done", TASK_EXAMPLE),
    Operation(
        id="listChannels",
        method="GET",
        path="/v1/channels",
        tag="channels",
        summary="Channels and how busy they are",
        answer=ChannelList,
        example={"items": [_CHANNEL_EXAMPLE]},
        errors=(400,),
    ),
    Operation(
        id="getPrompts",
        method="GET",
        path="/v1/prompts",
        tag="prompts",
        summary="Prompt versions: live and canary, and who put them there on what evidence",
        answer=PromptsView,
        example=PROMPTS_EXAMPLE,
    ),
    Operation(
        id="getSession",
        method="GET",
        path="/v1/session",
        tag="session",
        summary="Who the page is; keeps its session alive",
        answer=Session,
        example=_SESSION_EXAMPLE,
    ),
    Operation(
        id="openSession",
        method="POST",
        path="/v1/session",
        tag="session",
        summary="Open a page session with a key; sets a cookie",
        role=None,
        body=Login,
        body_example={"key": "qc_read_…"},
        answer=Session,
        example=_SESSION_EXAMPLE,
        errors=(400, 401, 403, 429),
    ),
    Operation(
        id="closeSession",
        method="DELETE",
        path="/v1/session",
        tag="session",
        summary="Close the page session of the cookie",
        role=None,
        status=204,
        errors=(403,),
    ),
    Operation(
        id="getMetrics",
        method="GET",
        path="/metrics",
        tag="operation",
        summary="Prometheus metrics (open to everybody where the setting `metrics_open` says so)",
        media_type="text/plain",
        example="quickcomm_live_clients 3.0\n",
    ),
    Operation(
        id="getHealth",
        method="GET",
        path="/healthz",
        tag="operation",
        summary="The process lives",
        role=None,
        answer=Status,
        example={"status": "ok", "version": "0.1.0"},
    ),
    Operation(
        id="getReadiness",
        method="GET",
        path="/readyz",
        tag="operation",
        summary="The process takes part: `ready`, or `degraded` while there is an alarm",
        role=None,
        answer=Status,
        example={"status": "ready", "version": "0.1.0"},
        errors=(503,),
    ),
    Operation(
        id="getOpenApi",
        method="GET",
        path="/openapi.json",
        tag="operation",
        summary="This document",
        role=None,
        media_type="application/json",
        example={"openapi": "3.1.0"},
    ),
)
