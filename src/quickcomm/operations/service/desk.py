"""Starts operations, each about one thing at a time; tells how they stand; has operators resume or take them back."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final
from uuid import uuid4

import msgspec
import structlog
from prometheus_client import Counter, Gauge, Histogram

from quickcomm.contracts.operations import (
    CompensateOperation,
    GetOperation,
    ListOperations,
    ResumeOperation,
    StartOperation,
)
from quickcomm.contracts.saga import OperationView
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConflictError, InvalidInputError, NotFoundError
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.runtime.alarms import Found
from quickcomm.kernel.saga.definition import Operation
from quickcomm.kernel.saga.executors import Executor, InTransaction, Journal
from quickcomm.kernel.saga.progress import Progress, begun, compensating, resumed, view
from quickcomm.kernel.saga.traced import span_of
from quickcomm.kernel.telemetry import tracing

LOCKS: Final = 64
"""Operations about the same thing are started one after the other, so that they are one; what operators decide about
an operation is one after the other, too. Others rarely share a lock."""
PARKED_ALARM: Final = "operations.parked"
NS: Final = 1e9
STARTED = Counter("quickcomm_operations_started_total", "Operations over several modules", ["operation"])
RESTED = Counter("quickcomm_operations_total", "Operations that came to rest", ["operation", "status"])
SECONDS = Histogram(
    "quickcomm_operation_seconds",
    "From the start of an operation to where it rests",
    ["operation", "status"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 300),
)
PARKED = Gauge("quickcomm_operations_parked", "Operations that wait for an operator")

log = structlog.get_logger(__name__)


def _nothing_missing(_operation: str) -> None:
    """Accept any operation."""


class Desk:
    def __init__(
        self,
        operations: Mapping[str, Operation],
        journal: Journal,
        here: InTransaction | None,
        durable: Executor | None,
        clock: Clock,
        check: Callable[[str], None] = _nothing_missing,
    ) -> None:
        """`here`: for operations that are one transaction of this process; `durable`: for all others.

        `check`: raises for the name of an operation that cannot be started here.
        """
        self._operations = operations
        self._journal = journal
        self._here = here
        self._durable = durable
        self._clock = clock
        self._check = check
        self._locks = tuple(asyncio.Lock() for _ in range(LOCKS))
        self._parked: dict[str, str] = {}

    def answers(self) -> list[Answer]:
        """Return what is answered to the dashboard and to operators."""
        return [
            (StartOperation, self.start),
            (ListOperations, self.list),
            (GetOperation, self.get),
            (ResumeOperation, self.resume),
            (CompensateOperation, self.compensate),
        ]

    async def open(self) -> None:
        """Remember what is parked."""
        for progress in await self._journal.unfinished():
            if progress.status == "parked":
                self._note_parked(progress)

    def alarms(self) -> Iterable[Found]:
        """Return one for each that is parked. All sites see them: no names of what it is about."""
        for operation_id, name in self._parked.items():
            yield (
                PARKED_ALARM,
                f"An operation ({name}) cannot go on by itself. See: quickcomm sagas show {operation_id}",
            )

    def told(self, progress: Progress) -> None:
        """Count and trace an operation that came to rest."""
        if not progress.rests:
            return
        if progress.status == "parked":
            self._note_parked(progress)
        if (operation := self._operations.get(progress.operation)) is not None:
            tracing().keep(span_of(operation, progress))
        seconds = (progress.history[-1].at_ns - progress.history[0].at_ns) / NS
        RESTED.labels(progress.operation, progress.status).inc()
        SECONDS.labels(progress.operation, progress.status).observe(seconds)
        tell = log.warning if progress.status == "parked" else log.info
        tell(
            "operation.rests",
            operation_id=progress.id,
            operation=progress.operation,
            status=progress.status,
            seconds=round(seconds, 3),
        )

    async def start(self, request: StartOperation) -> OperationView:
        """Raises what `check` does, and what the first step raises where the operation is one transaction.

        Raises `InvalidInputError`; `ConflictError` where one about the same is at work that was asked for otherwise.
        """
        operation = self._operations.get(request.operation)
        if operation is None:
            raise InvalidInputError(f"There is no operation {request.operation!r}: {', '.join(self._operations)}.")
        try:
            given = msgspec.convert(request.given, operation.input)
        except msgspec.ValidationError as error:
            raise InvalidInputError(f"Not the input of {operation.name!r}: {error}") from error
        about = (operation.name, request.site, operation.subject(given))
        async with self._alone(about):
            known = await self._journal.about(*about)
            if known is None or known.status == "compensated" or (known.status == "done" and not operation.once):
                self._check(operation.name)
                known = begun(operation, uuid4().hex, request.site, request.by, given, self._clock.now_ns())
                STARTED.labels(operation.name).inc()
                await self._executor(known).start(known)
            elif not operation.once and bytes(known.input) != msgspec.json.encode(given):
                raise ConflictError(
                    f"Another {operation.name} of {known.subject} is {known.status}, with another input. "
                    f"See: quickcomm sagas show {known.id}"
                )
        return await self._rested(known, request.wait_s)

    async def list(self, request: ListOperations) -> list[OperationView]:
        if request.unfinished:
            found = [each for each in await self._journal.unfinished() if request.site in (None, each.site)]
        else:
            found = list(await self._journal.newest(request.limit, request.site, request.subject))
        about = (each for each in found if request.subject in (None, each.subject))
        return [self._view(each) for each in about][: request.limit]

    async def get(self, request: GetOperation) -> OperationView:
        return self._view(await self._find(request.id, request.site))

    async def resume(self, request: ResumeOperation) -> OperationView:
        """Raises `ConflictError` where it is not parked."""
        async with self._alone(request.id):
            found = await self._known(request.id, request.site)
            after = resumed(found, request.by, self._clock.now_ns())
            await self._go_on(after)
        return await self._rested(after, request.wait_s)

    async def compensate(self, request: CompensateOperation) -> OperationView:
        """Raises `ConflictError` where it is not parked."""
        async with self._alone(request.id):
            found = await self._known(request.id, request.site)
            after = compensating(self._operations[found.operation], found, request.by, self._clock.now_ns())
            await self._go_on(after)
        return await self._rested(after, request.wait_s)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _find(self, operation_id: str, site: str | None) -> Progress:
        found = await self._journal.find(operation_id)
        if site not in (None, found.site):
            raise NotFoundError(f"There is no operation {operation_id!r}.")
        return found

    async def _known(self, operation_id: str, site: str | None) -> Progress:
        found = await self._find(operation_id, site)
        if found.operation not in self._operations:
            raise InvalidInputError(f"This release does not know the operation {found.operation!r}.")
        return found

    def _alone(self, about: Hashable) -> asyncio.Lock:
        """Return the lock of what must be decided by one caller at a time."""
        return self._locks[hash(about) % LOCKS]

    async def _go_on(self, progress: Progress) -> None:
        self._parked.pop(progress.id, None)
        PARKED.set(len(self._parked))
        if progress.rests:  # there was nothing to take back
            await self._journal.store(progress)
            self.told(progress)
        else:
            await self._executor(progress).start(progress)

    def _executor(self, progress: Progress) -> Executor:
        if self._here is not None and self._here.takes(progress) is not None:
            return self._here
        if self._durable is None:
            raise NotFoundError("No executor for operations over several services runs here. Use: quickcomm up")
        return self._durable

    async def _rested(self, progress: Progress, wait_s: float) -> OperationView:
        if progress.rests:
            return self._view(progress)
        executor = self._executor(progress)
        found = await executor.rest(progress.id, wait_s)
        if executor is self._here:
            self.told(found)
        return self._view(found)

    def _view(self, progress: Progress) -> OperationView:
        return view(self._operations.get(progress.operation), progress)

    def _note_parked(self, progress: Progress) -> None:
        self._parked[progress.id] = progress.operation
        PARKED.set(len(self._parked))
