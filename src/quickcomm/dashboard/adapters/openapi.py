"""The OpenAPI 3.1 document, made from the table of operations and the types that are really sent."""

import re
from collections.abc import Sequence
from typing import Any, Final, get_args

import msgspec

from quickcomm import __version__
from quickcomm.contracts.migration import MoveAction
from quickcomm.dashboard.adapters.hub import LiveEvent
from quickcomm.dashboard.adapters.live import Painted, Watch
from quickcomm.dashboard.adapters.operations import Operation, Parameter
from quickcomm.kernel.http import Problem

_ERRORS: Final = {
    400: ("BadRequest", "invalid_input", "`limit` must be a whole number from 1 to 200."),
    401: ("Unauthorized", "unauthorized", "Send a valid key as `Authorization: Bearer KEY`."),
    403: ("Forbidden", "forbidden", "This needs a key with the role admin; yours has read."),
    404: ("NotFound", "not_found", "There is no utterance 'shift-1:0:1'."),
    409: ("Conflict", "conflict", "The task is done. Reopen it before acknowledging it."),
    410: ("Gone", "cursor.reset", "This `after` is not of this dashboard. Begin again without it."),
    429: ("TooManyRequests", "too_many_requests", "This key asks too often; slow down."),
    503: ("Unavailable", "busy", "Too many pages are connected; try again in a moment."),
}
_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    410: "Gone",
    429: "Too Many Requests",
    503: "Service Unavailable",
}
_IDS: Final = {
    "module": "dashboard",
    "action": "step",
    "utterance_id": "shift-1:0:48000",
    "conversation_id": "shift-1",
    "operation_id": "6f1c2b9e0d4a4f7f8f5d3c2b1a0e9d8c",
    "task_id": "shift-1:0:48000:0",
    "erasure_id": "20260509T150000Z-6f1c2b",
}

_CHOICES: Final = {"action": list(get_args(MoveAction))}

_AUDIO: Final = (
    "Audio in. Query: `channel`, `encoding` (`linear16`, `mulaw`, `alaw`), `sample_rate` (8000, 16000, "
    "24000, 32000, 48000), `speakers` or `channels` (1 or 2, interleaved), `resume_token`, `after_seq`. The "
    "server first sends "
    '`{"type":"ready","conversation_id","resume_token","next_offset","max_unacked_ms","ack_interval_ms"}`; '
    "the client then sends binary messages of raw audio (at most 1 s each) from `next_offset` on, "
    '`{"type":"skip","samples":N}` for audio it does not have any more, and `{"type":"end"}`. The server '
    "sends `ack`, `partial`, `late`, `utterance`, `insights`, `reconnect`, `error` and, when all is final, "
    "`ended` with the ledger."
)
_LIVE: Final = (
    "What happens, as it happens. `after`: `SIDE:CHANGE`, the `side` of the last `hello` and the highest `change` that "
    "the page has seen (a plain number also does). The server first "
    "sends `hello`, then the cards that changed since (`reset` true: forget all cards, these are a new "
    "first state, see `Board`), then `replayed`, then events as they happen. A connection that breaks before "
    "`replayed` has brought nothing: come back with the same `after`. With `batch` (1 to 100) the cards before "
    "`replayed` come up to so many a message, as `cards`. The client may send `watch` (whose "
    "captions it wants) and `painted` (a card is on the screen). A client that cannot keep up is closed with "
    "1013 and connects again."
)


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    _, sent = msgspec.json.schema_components([LiveEvent], ref_template=_REF)
    paths["/v1/live"] = {"get": _websocket("live", "Cards, captions and health", _LIVE, "read", ("after", "batch"))}
    paths["/v1/conversations/{conversation_id}/audio"] = {
        "get": _websocket("streamAudio", "Audio in", _AUDIO, "ingest", _AUDIO_PARAMETERS)
    }
    types = {kind for operation in operations for kind in (operation.sends.answer, operation.body) if kind is not None}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components([*ordered, Problem, Watch, Painted], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "QuickComm",
            "version": __version__,
            "description": "Live voice operations: what was said, what it asks for, and what became of it. Times are "
            "RFC 3339 UTC; lists page by an opaque cursor; errors are RFC 9457 problem documents.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(operation.tag for operation in operations)]
        + [{"name": "websockets"}],
        "security": [{"key": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": {**sent, **schemas},
            "responses": {name: _problem(status, code, detail) for status, (name, code, detail) in _ERRORS.items()},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key: `quickcomm keys create`."},
                "queryKey": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "key",
                    "description": "The key in the query, only for WebSockets of browsers.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "quickcomm_session",
                    "description": "A page session; what changes something must come from the same origin.",
                },
            },
        },
    }


_REF: Final = "#/components/schemas/{name}"
_AUDIO_PARAMETERS: Final = ("channel", "encoding", "sample_rate", "channels", "speakers", "resume_token", "after_seq")


def _operation(operation: Operation) -> dict[str, Any]:
    errors = set(operation.errors)
    if operation.role is not None:
        errors |= {401, 403, 429}
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {str(operation.sends.status): _answer(operation)}
        | {str(status): {"$ref": f"#/components/responses/{_ERRORS[status][0]}"} for status in sorted(errors)},
    }
    if operation.role is None:
        described["security"] = []
    else:
        described["description"] = f"Needs the role `{operation.role}`" + (
            "." if operation.role == "admin" else " or `admin`."
        )
    parameters = [_path_parameter(name) for name in re.findall(r"{(\w+)}", operation.path)]
    parameters += [_query_parameter(parameter) for parameter in operation.parameters]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(operation.body), "example": operation.body_example}},
        }
    return described


def _answer(operation: Operation) -> dict[str, Any]:
    if operation.example is None:
        return {"description": "Done."}
    sends = operation.sends
    schema: dict[str, Any] = {"type": "object" if sends.media_type == "application/json" else "string"}
    if sends.answer is not None:
        schema = _ref(sends.answer)
    return {
        "description": operation.summary,
        "content": {sends.media_type: {"schema": schema, "example": operation.example}},
    }


def _websocket(name: str, summary: str, description: str, role: str, query: tuple[str, ...]) -> dict[str, Any]:
    parameters = [_path_parameter("conversation_id")] if name == "streamAudio" else []
    parameters += [{"name": item, "in": "query", "schema": {"type": "string"}} for item in query]
    refs: dict[str, Any] = {}
    if name == "live":
        refs = {
            "receives": [_ref(kind) for kind in (Watch, Painted)],
            "sends": [_ref(kind) for kind in get_args(LiveEvent)],
        }
    return {
        "operationId": name,
        "tags": ["websockets"],
        "summary": f"{summary} (WebSocket)",
        "description": f"{description} Needs the role `{role}` or `admin`.",
        "security": [{"key": []}, {"queryKey": []}, {"session": []}],
        "parameters": parameters,
        "x-websocket": {
            "subprotocol": None,
            "messages": "JSON text" if name == "live" else "raw audio and JSON",
            **refs,
        },
        "responses": {
            "101": {"description": "The connection is a WebSocket now."},
            **{
                str(status): {"$ref": f"#/components/responses/{_ERRORS[status][0]}"}
                for status in (400, 401, 403, 429, 503)
            },
        },
    }


def _path_parameter(name: str) -> dict[str, Any]:
    choices = _CHOICES.get(name)
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "maxLength": 210} if choices is None else {"type": "string", "enum": choices},
        "example": _IDS[name],
    }


def _query_parameter(parameter: Parameter) -> dict[str, Any]:
    described = {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "allowEmptyValue": True,
        "schema": {"anyOf": [parameter.schema, {"type": "string", "maxLength": 0}]},
    }
    return {**described, "example": parameter.example}


def _problem(status: int, code: str, detail: str) -> dict[str, Any]:
    example = {
        "type": f"urn:quickcomm:problem:{code}",
        "title": _TITLES[status],
        "status": status,
        "detail": detail,
        "code": code,
    }
    return {
        "description": _TITLES[status],
        "content": {"application/problem+json": {"schema": _named("Problem"), "example": example}},
    }


def _ref(kind: type) -> dict[str, Any]:
    return _named(kind.__name__)


def _named(name: str) -> dict[str, Any]:
    return {"$ref": _REF.format(name=name)}
