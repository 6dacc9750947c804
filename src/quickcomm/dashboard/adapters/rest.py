"""REST: parses requests, asks the queries or tells the commands, answers in JSON."""

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from quickcomm import __version__
from quickcomm.contracts.prompts import GetPrompts
from quickcomm.dashboard.adapters import parameters
from quickcomm.dashboard.adapters.admission import Admission
from quickcomm.dashboard.adapters.openapi import document
from quickcomm.dashboard.adapters.operations import (
    STATES,
    STATUSES,
    Assignment,
    CardList,
    ChannelList,
    ConversationList,
    Login,
    Operation,
    Session,
    Status,
    TaskList,
)
from quickcomm.dashboard.adapters.report_operations import ALL_OPERATIONS
from quickcomm.dashboard.adapters.report_rest import ReportRest
from quickcomm.dashboard.model.edits import Action
from quickcomm.dashboard.ports import Commands, DashboardSettings, Queries, UtteranceFilter
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import BusyError, InvalidInputError
from quickcomm.kernel.keys import Authenticator, Principal
from quickcomm.kernel.keys.auth import COOKIE
from quickcomm.kernel.messaging.rpc import Rpc

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Guarded = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]
MAX_NAME: Final = 80
LOOKUPS: Final = frozenset(
    {"listConversations", "getConversation", "listUtterances", "getUtterance", "listTasks", "listChannels"}
)
"""Operations that only read the database."""
_encode = msgspec.json.Encoder().encode


class Rest:
    def __init__(
        self,
        queries: Queries,
        commands: Commands,
        auth: Authenticator,
        readiness: Callable[[], str | None],
        rpc: Rpc,
        reports: ReportRest,
        settings: DashboardSettings,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._queries = queries
        self._commands = commands
        self._auth = auth
        self._ready = readiness
        self._rpc = rpc
        self._reports = reports
        self._metrics_open = settings.metrics_open
        self._admission = Admission(settings.queries_at_once, settings.queries_waiting)

    def routes(self) -> list[web.RouteDef]:
        guarded: dict[str, Guarded] = {
            "listConversations": self._conversations,
            "getConversation": self._conversation,
            "listUtterances": self._utterances,
            "getUtterance": self._utterance,
            "listTasks": self._tasks,
            "acknowledgeTask": self._task_action("acknowledge"),
            "completeTask": self._task_action("complete"),
            "assignTask": self._assign,
            "reopenTask": self._task_action("reopen"),
            "listChannels": self._channels,
            "getPrompts": self._prompt_versions,
            "getSession": self._session,
            "getShiftReport": self._reports.shift,
            "getUsage": self._reports.usage,
        }
        free: dict[str, Handler] = {
            "openSession": self._open_session,
            "closeSession": self._close_session,
            "getMetrics": self._metrics,
            "getHealth": self._health,
            "getReadiness": self._readiness,
            "getOpenApi": self._openapi,
        }
        return [
            web.route(
                operation.method,
                operation.path,
                self._guard(operation, guarded[operation.id]) if operation.id in guarded else free[operation.id],
            )
            for operation in ALL_OPERATIONS
        ]

    def _guard(self, operation: Operation, handler: Guarded) -> Handler:
        role = operation.role or "admin"
        lookup = operation.id in LOOKUPS
        known = frozenset(parameter.name for parameter in operation.parameters)

        async def handle(request: web.Request) -> web.StreamResponse:
            principal = await self._auth.require(request, role)
            parameters.check_names(request.query, known)
            if not lookup:
                return await handler(request, principal)
            async with self._admission.turn():
                return await handler(request, principal)

        return handle

    async def _conversations(self, request: web.Request, principal: Principal) -> web.Response:
        query = request.query
        items, after = await self._queries.conversations(
            principal.site,
            parameters.choice(query, "state", STATES),
            parameters.text(query, "channel"),
            parameters.page(query),
        )
        return _json(ConversationList(items=items, next_cursor=parameters.cursor_of(after)))

    async def _conversation(self, request: web.Request, principal: Principal) -> web.Response:
        return _json(await self._queries.conversation(principal.site, request.match_info["conversation_id"]))

    async def _utterances(self, request: web.Request, principal: Principal) -> web.Response:
        query = request.query
        wanted = UtteranceFilter(
            query=parameters.text(query, "query"),
            channel=parameters.text(query, "channel"),
            department=parameters.text(query, "department"),
            conversation=parameters.text(query, "conversation"),
            since_ns=parameters.time_ns(query, "since"),
        )
        items, after = await self._queries.utterances(principal.site, wanted, parameters.page(query))
        return _json(CardList(items=items, next_cursor=parameters.cursor_of(after)))

    async def _utterance(self, request: web.Request, principal: Principal) -> web.Response:
        return _json(await self._queries.utterance(principal.site, request.match_info["utterance_id"]))

    async def _tasks(self, request: web.Request, principal: Principal) -> web.Response:
        query = request.query
        items, after = await self._queries.tasks(
            principal.site,
            parameters.choice(query, "status", STATUSES),
            parameters.text(query, "department"),
            parameters.page(query),
        )
        return _json(TaskList(items=items, next_cursor=parameters.cursor_of(after)))

    def _task_action(self, action: Action) -> Guarded:
        async def handle(request: web.Request, principal: Principal) -> web.Response:
            return await self._edit(request, principal, action)

        return handle

    async def _assign(self, request: web.Request, principal: Principal) -> web.Response:
        assignment = await parameters.body(request, Assignment, self._clock)
        assignee = (assignment.assignee or "").strip()
        if len(assignee) > MAX_NAME or not assignee.isprintable():
            raise InvalidInputError(f"`assignee` must have at most {MAX_NAME} printable characters.")
        return await self._edit(request, principal, "assign", assignee or None)

    async def _edit(
        self, request: web.Request, principal: Principal, action: Action, assignee: str | None = None
    ) -> web.Response:
        task = await self._commands.edit_task(
            principal.site,
            request.match_info["task_id"],
            action,
            by=principal.name or principal.key_id,
            assignee=assignee,
        )
        return _json(task)

    async def _channels(self, _request: web.Request, principal: Principal) -> web.Response:
        return _json(ChannelList(items=await self._queries.channels(principal.site)))

    async def _prompt_versions(self, _request: web.Request, _principal: Principal) -> web.Response:
        return _json(await self._rpc.call(GetPrompts()))

    async def _session(self, request: web.Request, principal: Principal) -> web.Response:
        response = _session_answer(principal)
        if principal.via == "session":
            self._auth.set_cookie(request, response, request.cookies[COOKIE])
        return response

    async def _open_session(self, request: web.Request) -> web.Response:
        login = await parameters.body(request, Login, self._clock)
        principal, secret = await self._auth.login(request, login.key)
        response = _session_answer(principal)
        self._auth.set_cookie(request, response, secret)
        return response

    async def _close_session(self, request: web.Request) -> web.Response:
        response = web.Response(status=204)
        await self._auth.logout(request, response)
        return response

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self._metrics_open:
            await self._auth.require(request, "read")
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _health(self, _request: web.Request) -> web.Response:
        return _json(Status(status="ok", version=__version__))

    async def _readiness(self, _request: web.Request) -> web.Response:
        status = self._ready()
        if status is None:
            raise BusyError("Not ready: the streams are not being consumed yet, or any more.")
        return _json(Status(status=status, version=__version__))

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=_openapi_body(), content_type="application/json")


@cache
def _openapi_body() -> bytes:
    return _encode(document())


def _json(value: Any) -> web.Response:
    return web.Response(body=_encode(value), content_type="application/json")


def _session_answer(principal: Principal) -> web.Response:
    return _json(Session(role=principal.role, site=principal.site, version=__version__))
