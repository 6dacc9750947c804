"""REST of operations over several modules: starts one, shows how they stand, and has a parked one go on or back."""

import msgspec

from quickcomm.contracts.closing import OpenTasks
from quickcomm.dashboard.adapters import parameters
from quickcomm.dashboard.adapters.operations import operation
from quickcomm.dashboard.adapters.rest_types import (
    ClosingOf,
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
from quickcomm.kernel.keys import Principal
from quickcomm.kernel.messaging.rpc import Rpc


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
