"""REST of operations over several modules: starts one, shows how they stand, and has a parked one go on or back."""

import re
from typing import Final

import msgspec
from aiohttp import web

from quickcomm.contracts.closing import OpenTasks
from quickcomm.dashboard.adapters import parameters
from quickcomm.dashboard.adapters.operations import operation
from quickcomm.dashboard.adapters.rest_types import (
    ClosingOf,
    CorrectedText,
    EditQuery,
    ErasingOf,
    ErasureList,
    ErasureQuery,
    HandingOver,
    OperationList,
    OperationQuery,
)
from quickcomm.dashboard.model.erasures import ErasureStand
from quickcomm.dashboard.model.operations import OperationStand
from quickcomm.dashboard.service.operating import OperationsOf
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import InvalidInputError
from quickcomm.kernel.keys import Principal
from quickcomm.kernel.messaging.rpc import Rpc

_VERSION: Final = re.compile(r'(?:W/)?"(\d{1,18})"')


class OperatingRest:
    def __init__(self, rpc: Rpc, clock: Clock) -> None:
        self._operations = OperationsOf(rpc)
        self._clock = clock

    @operation(
        "POST",
        "/v1/conversations/{conversation_id}/close",
        "Close a conversation: no more sound, a final summary, archived; its open tasks kept, closed or handed over. "
        "Once: asked again, it says how that stands",
        tag="conversations",
        role="admin",
        errors=(400, 404, 409, 503),
    )
    async def close_conversation(self, caller: Principal, conversation_id: str, body: ClosingOf) -> OperationStand:
        tasks: OpenTasks = "hand_over" if isinstance(body.tasks, HandingOver) else body.tasks
        assignee = body.tasks.assignee if isinstance(body.tasks, HandingOver) else None
        return await self._operations.close(caller.site, conversation_id, _by(caller), tasks, assignee)

    @operation(
        "POST",
        "/v1/utterances/{utterance_id}/correct",
        "Correct a misheard utterance: its text, then its insights, card and tasks. The same text again is the same "
        "correction, and it says how that stands",
        tag="utterances",
        role="admin",
        errors=(400, 404, 409, 503),
    )
    async def correct_utterance(self, caller: Principal, utterance_id: str, body: CorrectedText) -> OperationStand:
        return await self._operations.correct(caller.site, utterance_id, _by(caller), body.text)

    @operation(
        "POST",
        "/v1/tasks/{task_id}/dispatch",
        "Give it to a person, and tell them through the webhook; it is released where the notice is not delivered",
        tag="tasks",
        role="admin",
        errors=(400, 409, 503),
    )
    async def dispatch_task(
        self, request: web.Request, caller: Principal, task_id: str, asked: EditQuery, body: HandingOver
    ) -> OperationStand:
        seen = expected(request, asked)
        return await self._operations.dispatch(caller.site, task_id, _by(caller), body.assignee.strip(), seen)

    @operation(
        "GET",
        "/v1/operations",
        "Operations over several modules, newest first",
        tag="operation",
        errors=(400, 503),
    )
    async def list_operations(self, caller: Principal, asked: OperationQuery) -> OperationList:
        unfinished = asked.unfinished == "true"
        return OperationList(items=await self._operations.newest(caller.site, asked.limit, unfinished=unfinished))

    @operation(
        "GET", "/v1/operations/{operation_id}", "One operation with its history", tag="operation", errors=(404, 503)
    )
    async def get_operation(self, caller: Principal, operation_id: str) -> OperationStand:
        return await self._operations.one(caller.site, operation_id)

    @operation(
        "POST",
        "/v1/operations/{operation_id}/resume",
        "Have a parked operation go on where it stopped; what is done is not done again",
        tag="operation",
        role="admin",
        errors=(400, 404, 409, 503),
    )
    async def resume_operation(self, caller: Principal, operation_id: str) -> OperationStand:
        return await self._operations.resume(caller.site, operation_id, _by(caller))

    @operation(
        "POST",
        "/v1/operations/{operation_id}/compensate",
        "Have a parked operation taken back, as far as that is possible; its history says what stays",
        tag="operation",
        role="admin",
        errors=(400, 404, 409, 503),
    )
    async def compensate_operation(self, caller: Principal, operation_id: str) -> OperationStand:
        return await self._operations.compensate(caller.site, operation_id, _by(caller))

    @operation(
        "POST",
        "/v1/erasures",
        "Erase a conversation, what a name stands for, or what was said in a time range, everywhere. It cannot "
        "be taken back; with `dry_run` it only counts",
        tag="erasures",
        role="admin",
        errors=(400, 503),
    )
    async def start_erasure(self, caller: Principal, body: ErasingOf) -> ErasureStand:
        wanted = parameters.wanted(caller.site, msgspec.to_builtins(body), self._clock)
        return await self._operations.erase(wanted, _by(caller), dry_run=body.dry_run)

    @operation(
        "GET", "/v1/erasures", "Receipts of erasures, newest first", tag="erasures", role="admin", errors=(400, 503)
    )
    async def list_erasures(self, caller: Principal, asked: ErasureQuery) -> ErasureList:
        return ErasureList(items=await self._operations.erasures(caller.site, asked.limit))

    @operation(
        "GET",
        "/v1/erasures/{erasure_id}",
        "One receipt: what was erased, and how far that is",
        tag="erasures",
        role="admin",
        errors=(404, 503),
    )
    async def get_erasure(self, caller: Principal, erasure_id: str) -> ErasureStand:
        return await self._operations.erasure(caller.site, erasure_id)


def _by(caller: Principal) -> str:
    return caller.name or caller.key_id


def expected(request: web.Request, asked: EditQuery) -> int | None:
    """Return the version of the task that the caller has seen, from `If-Match` or the query."""
    given = request.headers.get("If-Match")
    if given is None or given.strip() == "*":
        return asked.expected
    found = _VERSION.fullmatch(given.strip())
    if found is None:
        raise InvalidInputError('`If-Match` must be the `version` of the task in quotes, like "3".')
    return int(found[1])
