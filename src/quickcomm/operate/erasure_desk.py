"""Erasures of a running site: does the steps of the operation, starts it for programs, and shows receipts.

In the process that executes operations: it has the data directory, and so reaches all processes and databases.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import structlog

from quickcomm.contracts.erasing import (
    ERASE,
    ErasePart,
    ErasureList,
    ErasureView,
    GetErasure,
    KeepReceipt,
    ListErasures,
    PartErased,
    ReceiptKept,
    StartErasure,
)
from quickcomm.contracts.operations import MOST_SHOWN, ListOperations, StartOperation
from quickcomm.contracts.saga import OperationView
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConfigurationError, NotFoundError, QuickCommError, UnavailableError
from quickcomm.kernel.messaging.rpc import Answer, LocalRpc
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.part import Part
from quickcomm.operate.erasing import Erasing, Here
from quickcomm.operate.erasures import Erasures, Receipt

AGAIN_S: Final = 1.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


def build(context: Context) -> Part:
    desk = ErasureDesk(context.site, Here(context.messaging.rpc, context.database.path), context.clock)
    return Part(name="erasures", answers=desk.answers(), work={"erasures": desk.run})


class ErasureDesk:
    def __init__(self, site: DataDirectory, here: Here, clock: Clock) -> None:
        self._site = site
        self._here = here
        self._rpc: LocalRpc = here.rpc
        self._clock = clock
        self._receipts = Erasures(site.path)
        self._one = asyncio.Lock()
        """Two that erase at the same time only wait for each other's files."""

    def answers(self) -> Sequence[Answer]:
        return [
            (ErasePart, self.erase),
            (KeepReceipt, self.keep),
            (StartErasure, self.start),
            (ListErasures, self.newest),
            (GetErasure, self.get),
        ]

    async def run(self) -> None:
        """Start the operation of each receipt that has none: its command was cut off, or did it without a server."""
        for receipt in await asyncio.to_thread(self._receipts.list):
            if receipt.state == "running":
                await self._take_up(receipt)
        await asyncio.Event().wait()

    async def erase(self, request: ErasePart) -> PartErased:
        async with self._one:
            receipt = self._receipts.of(request.erasure)
            erased = await _retryable(lambda: self._erasing().part(receipt, request.part))
        return PartErased(erased=tuple(erased))

    async def keep(self, request: KeepReceipt) -> ReceiptKept:
        receipt = self._receipts.of(request.erasure)
        return ReceiptKept(done_ns=self._erasing().keep(receipt, request.erased).done_ns)

    async def start(self, request: StartErasure) -> ErasureView:
        """Raises `InvalidInputError`, and `UnavailableError` where a process that has to be asked does not answer."""
        wanted = request.wanted
        erasing = self._erasing()
        scope = await erasing.find(wanted)
        if request.dry_run or scope.is_empty:
            return _view(erasing.receipt(wanted, scope, request.by), None, is_found=True)
        receipt = erasing.begin(wanted, scope, request.by)
        try:
            operation = await self._started(receipt, request.wait_s)
        except QuickCommError:
            if await self._operation(receipt) is None:
                self._receipts.drop(receipt)  # nothing was started, and who asked is told
            raise
        return _view(self._receipts.of(receipt.id), operation)

    async def newest(self, request: ListErasures) -> ErasureList:
        found = await asyncio.to_thread(self._receipts.list)
        newest = [each for each in reversed(found) if each.scope.site == request.site][: request.limit]
        known = {
            each.subject: each for each in await self._operations(ListOperations(site=request.site, limit=MOST_SHOWN))
        }
        return ErasureList(items=tuple(_view(each, known.get(each.id)) for each in newest))

    async def get(self, request: GetErasure) -> ErasureView:
        receipt = self._receipts.of(request.id)
        if receipt.scope.site != request.site:
            raise NotFoundError(f"There is no erasure {request.id!r}.")
        return _view(receipt, await self._operation(receipt))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _erasing(self) -> Erasing:
        try:
            return Erasing(self._site.path, here=self._here)
        except ConfigurationError as error:  # such as a store that is just started anew
            raise UnavailableError(str(error)) from error

    async def _take_up(self, receipt: Receipt) -> None:
        while True:
            try:
                if await self._operation(receipt) is None:
                    await self._started(receipt, 0.0)
                    log.info("erasure.taken_up", erasure=receipt.id)
            except QuickCommError as error:
                if not error.retryable:
                    log.warning("erasure.left", erasure=receipt.id, error=str(error)[:200])
                    return
            else:
                return
            await self._clock.sleep(AGAIN_S)

    async def _started(self, receipt: Receipt, wait_s: float) -> OperationView:
        site, given = receipt.scope.site, {"erasure": receipt.id}
        request = StartOperation(operation=ERASE, site=site, by=receipt.by, given=given, wait_s=wait_s)
        found: OperationView = await self._rpc.answer(request)
        return found

    async def _operation(self, receipt: Receipt) -> OperationView | None:
        found = await self._operations(ListOperations(site=receipt.scope.site, subject=receipt.id, limit=1))
        return found[0] if found else None

    async def _operations(self, request: ListOperations) -> list[OperationView]:
        found: list[OperationView] = await self._rpc.answer(request)
        return found


async def _retryable(work: Callable[[], Awaitable[T]]) -> T:
    """Have whatever goes wrong tried again: what was begun is finished."""
    try:
        return await work()
    except QuickCommError as error:
        if error.retryable:
            raise
        raise UnavailableError(str(error)) from error
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"A file is in use, or has no room: {error}") from error


def _view(receipt: Receipt, operation: OperationView | None, *, is_found: bool = False) -> ErasureView:
    scope = receipt.scope
    stand: dict[str, Any] = {}
    if operation is not None:
        stand = {"operation": operation.id, "step": operation.step, "why": operation.why}
    status = "done" if receipt.state == "done" else "running" if operation is None else operation.status
    return ErasureView(
        id="" if is_found else receipt.id,
        kind=receipt.kind,
        site=scope.site,
        by=receipt.by,
        asked_ns=receipt.asked_ns,
        done_ns=receipt.done_ns,
        status="found" if is_found else status,
        conversations=scope.conversations,
        utterances=len(scope.utterances),
        touched=len(scope.touched()),
        erased=receipt.erased,
        copies=receipt.copies,
        **stand,
    )
