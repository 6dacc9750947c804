"""Operations over several modules, as REST starts and shows them: asked of the executor, wherever it runs."""

from typing import Any

import msgspec

from quickcomm.contracts.closing import OpenTasks
from quickcomm.contracts.correcting import CorrectUtterance
from quickcomm.contracts.erasing import GetErasure, ListErasures, StartErasure, Wanted
from quickcomm.contracts.operations import (
    CompensateOperation,
    GetOperation,
    ListOperations,
    ResumeOperation,
    StartOperation,
)
from quickcomm.contracts.saga import OperationView
from quickcomm.dashboard.model.erasures import ErasureStand, erasure_stand
from quickcomm.dashboard.model.operations import OperationStand, operation_stand
from quickcomm.kernel.messaging.rpc import Rpc


class OperationsOf:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    async def close(
        self, site: str, conversation_id: str, by: str, tasks: OpenTasks, assignee: str | None
    ) -> OperationStand:
        """Return how it stands after some seconds. Raises what the executor raises where nothing has happened."""
        given = {"conversation_id": conversation_id, "tasks": tasks, "assignee": assignee}
        reply = await self._rpc.call(StartOperation(operation="close", site=site, by=by, given=given))
        return _stand(reply)

    async def correct(self, site: str, utterance_id: str, by: str, text: str) -> OperationStand:
        """As `close`. Raises what keeping the text raises, too."""
        return _stand(await self._rpc.call(CorrectUtterance(site=site, utterance_id=utterance_id, text=text, by=by)))

    async def dispatch(self, site: str, task_id: str, by: str, assignee: str, expected: int | None) -> OperationStand:
        """Return how it stands after some seconds. Raises what the executor raises where nothing has happened."""
        given = {"task_id": task_id, "assignee": assignee, "expected": expected}
        reply = await self._rpc.call(StartOperation(operation="dispatch", site=site, by=by, given=given))
        return _stand(reply)

    async def newest(self, site: str, limit: int, *, unfinished: bool) -> list[OperationStand]:
        """`unfinished`: only those that are under way or parked."""
        request = ListOperations(site=site, limit=limit, unfinished=unfinished)
        return [_stand(each) for each in await self._rpc.call(request)]

    async def one(self, site: str, operation_id: str) -> OperationStand:
        """Raises `NotFoundError`."""
        return _stand(await self._rpc.call(GetOperation(id=operation_id, site=site)))

    async def resume(self, site: str, operation_id: str, by: str) -> OperationStand:
        """Have a parked one go on; return how it stands after some seconds. Raises `ConflictError` if it is not."""
        return _stand(await self._rpc.call(ResumeOperation(id=operation_id, site=site, by=by)))

    async def compensate(self, site: str, operation_id: str, by: str) -> OperationStand:
        """As `resume`: have it taken back."""
        return _stand(await self._rpc.call(CompensateOperation(id=operation_id, site=site, by=by)))

    async def erase(self, wanted: Wanted, by: str, *, dry_run: bool) -> ErasureStand:
        """Return what was found, and how its erasure stands after some seconds. `dry_run`: only finds."""
        return erasure_stand(await self._rpc.call(StartErasure(wanted=wanted, by=by, dry_run=dry_run)))

    async def erasures(self, site: str, limit: int) -> list[ErasureStand]:
        found = await self._rpc.call(ListErasures(site=site, limit=limit))
        return [erasure_stand(each) for each in found.items]

    async def erasure(self, site: str, erasure_id: str) -> ErasureStand:
        """Raises `NotFoundError`."""
        return erasure_stand(await self._rpc.call(GetErasure(site=site, id=erasure_id)))


def _stand(reply: Any) -> OperationStand:
    """`reply`: a view from this process, or what is left of one that came from another."""
    return operation_stand(msgspec.convert(reply, OperationView))
