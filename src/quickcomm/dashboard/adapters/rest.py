"""REST: asks the queries, tells the commands, answers in JSON. What a request takes is told by annotations."""

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final, cast, get_args

import msgspec
from aiohttp import web

from quickcomm import __version__
from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.migration import MigrationStatus, MoveAction, OverrideMigration, WeighMigration
from quickcomm.contracts.prompts import GetPrompts, PromptsView
from quickcomm.contracts.usage import GetUsage, UsageReport
from quickcomm.dashboard.adapters import asyncapi, parameters
from quickcomm.dashboard.adapters.admission import Admission
from quickcomm.dashboard.adapters.openapi import document
from quickcomm.dashboard.adapters.operations import Operation, Sent, operation, operations_of
from quickcomm.dashboard.adapters.rest_operations import OperatingRest, expected
from quickcomm.dashboard.adapters.rest_types import (
    Assignment,
    CardList,
    ChannelList,
    ConversationList,
    ConversationQuery,
    EditQuery,
    Login,
    Move,
    Overriding,
    ReadinessQuery,
    Session,
    ShiftQuery,
    Status,
    TaskList,
    TaskQuery,
    UsageQuery,
    UtteranceQuery,
    Weigh,
)
from quickcomm.dashboard.model.edits import Action, Edit
from quickcomm.dashboard.model.report import ShiftReport
from quickcomm.dashboard.model.views import Card, Conversation, Task
from quickcomm.dashboard.ports import Commands, DashboardSettings, Listed, Queries, UtteranceFilter
from quickcomm.dashboard.service.live_ledgers import LiveLedgers
from quickcomm.dashboard.service.moving import Migration, require_operator
from quickcomm.dashboard.service.reporting import ShiftReports
from quickcomm.dashboard.service.site_metrics import metrics_of_others
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import InvalidInputError
from quickcomm.kernel.keys import Authenticator, Principal
from quickcomm.kernel.keys.auth import COOKIE
from quickcomm.kernel.messaging.rpc import Rpc
from quickcomm.kernel.telemetry.exposition import metrics_answer

MAX_NAME: Final = 80
ASKS_ITSELF: Final = "getMetrics"
"""Its handler decides who may ask."""
_encode = msgspec.json.Encoder().encode


class Rest:
    def __init__(
        self,
        queries: Queries,
        commands: Commands,
        auth: Authenticator,
        readiness: Callable[[ReadinessQuery], str],
        rpc: Rpc,
        reports: ShiftReports,
        settings: DashboardSettings,
        clock: Clock,
    ) -> None:
        """`readiness`: returns the status, or raises `BusyError`."""
        self._clock = clock
        self._queries = queries
        self._commands = commands
        self._auth = auth
        self._ready = readiness
        self._rpc = rpc
        self._reports = reports
        self._ledgers = LiveLedgers(rpc)
        self._migration = Migration(rpc)
        self._operating = OperatingRest(rpc, clock)
        self._metrics_open = settings.metrics_open
        self._admission = Admission(settings.queries_at_once, settings.queries_waiting)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.route(each.method, each.path, self._handled(each, api))
            for api in (self, self._operating)
            for each in operations_of(type(api))
        ]

    # -- operations -------------------------------------------------------------------------------------------------

    @operation(
        "GET", "/v1/conversations", "Conversations, newest first", tag="conversations", errors=(400, 410), lookup=True
    )
    async def list_conversations(self, caller: Principal, asked: ConversationQuery) -> ConversationList:
        found = await self._queries.conversations(caller.site, asked.state, asked.channel, asked.page)
        return ConversationList(items=await self._ledgers.of(caller.site, found.items), **_goes_on(found))

    @operation(
        "GET",
        "/v1/conversations/{conversation_id}",
        "One conversation with its ledger",
        tag="conversations",
        errors=(404,),
        lookup=True,
    )
    async def get_conversation(self, caller: Principal, conversation_id: str) -> Conversation:
        found = await self._queries.conversation(caller.site, conversation_id)
        return (await self._ledgers.of(caller.site, [found]))[0]

    @operation(
        "GET",
        "/v1/utterances",
        "Utterances with what they ask for, newest first",
        tag="utterances",
        errors=(400, 410),
        lookup=True,
    )
    async def list_utterances(self, caller: Principal, asked: UtteranceQuery) -> CardList:
        wanted = UtteranceFilter(
            query=asked.query,
            channel=asked.channel,
            department=asked.department,
            conversation=asked.conversation,
            since_ns=asked.since,
        )
        found = await self._queries.utterances(caller.site, wanted, asked.page)
        return CardList(items=found.items, **_goes_on(found))

    @operation("GET", "/v1/utterances/{utterance_id}", "One utterance", tag="utterances", errors=(404,), lookup=True)
    async def get_utterance(self, caller: Principal, utterance_id: str) -> Card:
        return await self._queries.utterance(caller.site, utterance_id)

    @operation("GET", "/v1/tasks", "Tasks, newest first", tag="tasks", errors=(400, 410), lookup=True)
    async def list_tasks(self, caller: Principal, asked: TaskQuery) -> TaskList:
        found = await self._queries.tasks(caller.site, asked.status, asked.department, asked.page)
        return TaskList(items=found.items, **_goes_on(found))

    @operation(
        "POST",
        "/v1/tasks/{task_id}/acknowledge",
        "Say that somebody has seen it",
        tag="tasks",
        role="admin",
        errors=(400, 404, 409),
    )
    async def acknowledge_task(self, request: web.Request, caller: Principal, task_id: str, asked: EditQuery) -> Task:
        return await self._edit(caller, task_id, "acknowledge", expected(request, asked))

    @operation(
        "POST", "/v1/tasks/{task_id}/complete", "Say that it is done", tag="tasks", role="admin", errors=(400, 404, 409)
    )
    async def complete_task(self, request: web.Request, caller: Principal, task_id: str, asked: EditQuery) -> Task:
        return await self._edit(caller, task_id, "complete", expected(request, asked))

    @operation(
        "POST",
        "/v1/tasks/{task_id}/assign",
        "Give it to somebody, or to nobody again",
        tag="tasks",
        role="admin",
        errors=(400, 404, 409),
    )
    async def assign_task(
        self, request: web.Request, caller: Principal, task_id: str, asked: EditQuery, assignment: Assignment
    ) -> Task:
        assignee = (assignment.assignee or "").strip()
        if len(assignee) > MAX_NAME or not assignee.isprintable():
            raise InvalidInputError(f"`assignee` must have at most {MAX_NAME} printable characters.")
        return await self._edit(caller, task_id, "assign", expected(request, asked), assignee or None)

    @operation(
        "POST",
        "/v1/tasks/{task_id}/reopen",
        "Take back that it was seen or done",
        tag="tasks",
        role="admin",
        errors=(400, 404, 409),
    )
    async def reopen_task(self, request: web.Request, caller: Principal, task_id: str, asked: EditQuery) -> Task:
        return await self._edit(caller, task_id, "reopen", expected(request, asked))

    @operation("GET", "/v1/channels", "Channels and how busy they are", tag="channels", errors=(400,), lookup=True)
    async def list_channels(self, caller: Principal) -> ChannelList:
        return ChannelList(items=await self._queries.channels(caller.site))

    @operation(
        "GET",
        "/v1/prompts",
        "Prompt versions: live and canary, and who put them there on what evidence",
        tag="prompts",
    )
    async def get_prompts(self) -> PromptsView:
        return await self._rpc.call(GetPrompts())

    @operation(
        "GET", "/v1/session", "Who the page is; keeps its session alive", tag="session", sends=Sent(answer=Session)
    )
    async def get_session(self, request: web.Request, caller: Principal) -> web.Response:
        response = _session_answer(caller)
        if caller.via == "session":
            self._auth.set_cookie(request, response, request.cookies[COOKIE])
        return response

    @operation(
        "POST",
        "/v1/session",
        "Open a page session with a key; sets a cookie",
        tag="session",
        role=None,
        errors=(400, 401, 403, 429),
        sends=Sent(answer=Session),
    )
    async def open_session(self, request: web.Request, login: Login) -> web.Response:
        principal, secret = await self._auth.login(request, login.key)
        response = _session_answer(principal)
        self._auth.set_cookie(request, response, secret)
        return response

    @operation(
        "DELETE",
        "/v1/session",
        "Close the page session of the cookie",
        tag="session",
        role=None,
        sends=Sent(status=204),
        errors=(403,),
    )
    async def close_session(self, request: web.Request) -> web.Response:
        response = web.Response(status=204)
        await self._auth.logout(request, response)
        return response

    @operation(
        "GET",
        "/metrics",
        "Prometheus metrics (open to everybody where the setting `metrics_open` says so)",
        tag="operation",
        sends=Sent(media_type="text/plain"),
        errors=(400,),
    )
    async def get_metrics(self, request: web.Request, asked: ReadinessQuery) -> web.Response:
        if not self._metrics_open:
            await self._auth.require(request, "read")
        return metrics_answer({} if asked.of == "process" else await metrics_of_others(self._rpc))

    @operation("GET", "/healthz", "The process lives", tag="operation", role=None)
    async def get_health(self) -> Status:
        return Status(status="ok", version=__version__)

    @operation(
        "GET",
        "/readyz",
        "Whether sound and requests are taken: `ready`, or `degraded` while there is an alarm",
        tag="operation",
        role=None,
        errors=(400, 503),
    )
    async def get_readiness(self, asked: ReadinessQuery) -> Status:
        return Status(status=self._ready(asked), version=__version__)

    @operation("GET", "/openapi.json", "This document", tag="operation", role=None)
    async def get_open_api(self) -> web.Response:
        return web.Response(body=_openapi_body(), content_type="application/json")

    @operation("GET", "/asyncapi.json", "The messages of the WebSockets", tag="operation", role=None)
    async def get_async_api(self) -> web.Response:
        return web.Response(body=_asyncapi_body(), content_type="application/json")

    @operation(
        "GET",
        "/v1/reports/shift",
        "What came in, what is open, what was slow; the last 8 hours where nothing else is asked for",
        tag="reports",
        errors=(400,),
    )
    async def get_shift_report(self, caller: Principal, asked: ShiftQuery) -> ShiftReport:
        return await self._reports.shift(caller.site, asked.since, asked.until, ask=asked.narrative != "local")

    @operation(
        "GET",
        "/v1/usage",
        "What the language model costs, by day and by conversation, and the day's cap",
        tag="reports",
        errors=(400,),
    )
    async def get_usage(self, caller: Principal, asked: UsageQuery) -> UsageReport:
        return await self._rpc.call(GetUsage(site=caller.site, conversation=asked.conversation, limit=asked.limit))

    @operation(
        "GET",
        "/v1/migration",
        "Which side serves what while modules move, and what the gates say; no modules where none is being moved",
        tag="operation",
    )
    async def get_migration(self) -> MigrationStatus:
        return await self._migration.status()

    @operation(
        "POST",
        "/v1/migration/{module}/weight",
        "Another share of a canary, in the direction of the goal",
        tag="operation",
        role="admin",
        errors=(400, 404, 409),
    )
    async def weigh_module(self, caller: Principal, module: str, body: Weigh) -> MigrationStatus:
        require_operator(caller)
        weight = min(max(1, round(body.percent * BUCKETS / 100)), BUCKETS - 1)
        by = caller.name or caller.key_id
        return await self._migration.ask(
            WeighMigration(name=module, weight=weight, by=by, why=body.why, force=body.force)
        )

    @operation(
        "POST",
        "/v1/migration/{module}/override",
        "Give a channel, a site or a conversation to a side, whatever its bucket; only while both sides serve",
        tag="operation",
        role="admin",
        errors=(400, 404, 409),
    )
    async def override_module(self, caller: Principal, module: str, body: Overriding) -> MigrationStatus:
        require_operator(caller)
        by = caller.name or caller.key_id
        return await self._migration.ask(
            OverrideMigration(name=module, kind=body.kind, of=body.of, side=body.side, by=by, why=body.why)
        )

    @operation(
        "POST",
        "/v1/migration/{module}/{action}",
        "Move a module (start, step, promote, rollback, kill, pause, resume, auto, manual, return), or `all` (kill): "
        "with a key of the site `main`",
        tag="operation",
        role="admin",
        errors=(400, 404, 409),
    )
    async def move_module(self, caller: Principal, module: str, action: str, body: Move) -> MigrationStatus:
        if action not in get_args(MoveAction):
            raise InvalidInputError(f"There is no action {action[:MAX_NAME]!r}: {', '.join(get_args(MoveAction))}.")
        require_operator(caller)
        by = caller.name or caller.key_id
        return await self._migration.act(module, cast("MoveAction", action), by, body.why, force=body.force)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _handled(self, asked: Operation, api: object) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        known = frozenset(parameter.name for parameter in asked.parameters)

        async def handle(request: web.Request) -> web.StreamResponse:
            caller = None
            if asked.role is not None and asked.id != ASKS_ITSELF:
                caller = await self._auth.require(request, asked.role)
                parameters.check_names(request.query, known)
            if not asked.lookup:
                return _response(await asked.call(api, request, caller, self._clock))
            async with self._admission.turn():
                return _response(await asked.call(api, request, caller, self._clock))

        return handle

    async def _edit(
        self, caller: Principal, task_id: str, action: Action, expected: int | None, assignee: str | None = None
    ) -> Task:
        edit = Edit(action=action, by=caller.name or caller.key_id, assignee=assignee, expected=expected)
        return await self._commands.edit_task(caller.site, task_id, edit)


OPERATIONS: Final = operations_of(Rest, OperatingRest)


@cache
def _openapi_body() -> bytes:
    return _encode(document(OPERATIONS))


@cache
def _asyncapi_body() -> bytes:
    return _encode(asyncapi.document())


def _response(answer: Any) -> web.Response:
    if isinstance(answer, web.Response):
        return answer
    return web.Response(body=_encode(answer), content_type="application/json")


def _goes_on(found: Listed[Any]) -> dict[str, Any]:
    """Return the fields of an answer that say where the list goes on."""
    after = None if found.after is None else str(found.after)
    return {"next_cursor": parameters.cursor_text(found.cursor), "next_after": after, "more": found.more}


def _session_answer(principal: Principal) -> web.Response:
    return _response(Session(role=principal.role, site=principal.site, version=__version__))
