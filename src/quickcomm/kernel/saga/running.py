"""The next turn of an operation: adjacent steps of one database in one transaction, or one command to a module."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import structlog

from quickcomm.contracts.saga import StepRequest
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.rpc.local import LocalRpc
from quickcomm.kernel.saga.answering import Transaction, Transactional, in_transaction
from quickcomm.kernel.saga.definition import Operation, Step
from quickcomm.kernel.saga.progress import Progress, Turn, did, failed, given, next_turn, not_undone, undid
from quickcomm.kernel.saga.traced import parent_of
from quickcomm.kernel.storage import Database
from quickcomm.kernel.telemetry import tracing

FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 10.0
DEFECT: Final = "The step failed by a defect: see the log."

T = TypeVar("T")
Store = Callable[[Transaction, Progress], None]
"""Stores how an operation stands, in the transaction of its steps."""
log = structlog.get_logger(__name__)


class Local(NamedTuple):
    """A step that is answered in this process, with who answers it."""

    step: Step
    handler: Transactional[Any]


class Runner:
    def __init__(self, operations: Mapping[str, Operation], rpc: LocalRpc, clock: Clock) -> None:
        self._operations = operations
        self._rpc = rpc
        self._clock = clock

    def operation(self, progress: Progress) -> Operation:
        """Raise `KeyError` where this release does not know it."""
        return self._operations[progress.operation]

    def local(self, operation: Operation, database: Database | None = None) -> list[Local]:
        """Return the steps, of one database, that are answered in this process from the first one on."""
        return self._adjacent(operation.steps, database)

    async def turn(self, progress: Progress) -> Progress | None:
        """Do what comes next, and return how the operation stands then; None where nothing does.

        What may still succeed is tried again for as long as the step has patience. A failure is part of the progress.
        """
        operation = self.operation(progress)
        turn = next_turn(operation, progress)
        if turn is None:
            return None
        left = operation.steps[operation.steps.index(turn.step) :]
        group = [] if turn.back else self._adjacent([each for each in left if each.name not in progress.results])
        try:
            if len(group) > 1:
                return await self._persistently(turn.step, lambda: self.together(progress, group))
            return await self._persistently(turn.step, lambda: self._alone(operation, progress, turn))
        except QuickCommError as error:
            return self._failed(operation, progress, turn, str(error), refused=not error.retryable)
        except Exception:
            log.exception("saga.step_failed", operation_id=progress.id, step=turn.step.name)
            return self._failed(operation, progress, turn, DEFECT, refused=False)

    async def together(self, progress: Progress, group: Sequence[Local], store: Store | None = None) -> Progress:
        """Have the effects of these steps in one transaction, of all or none of them. Raises what a step raises."""
        operation = self.operation(progress)
        for step, handler in group:
            if handler.prepare is not None:
                await handler.prepare(step.does(given(operation, progress, step)))

        def run(transaction: Transaction) -> Progress:
            after = progress
            for step, handler in group:
                reply = handler.run(transaction, step.does(given(operation, after, step)))
                after = did(operation, after, step, _raw(reply), self._clock.now_ns())
            if store is not None:
                store(transaction, after)
            return after

        with tracing().call("saga.transaction", parent=parent_of(progress)) as call:
            call.note(saga__id=progress.id, saga__operation=operation.name, saga__steps=len(group))
            return await in_transaction(group[0].handler.database, run)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _adjacent(self, steps: Sequence[Step], database: Database | None = None) -> list[Local]:
        found: list[Local] = []
        for step in steps:
            handler = self._rpc.answers.get(step.asks, (None, None))[1]
            if step.outside or not isinstance(handler, Transactional):
                break
            database = database or handler.database
            if handler.database is not database:
                break
            found.append(Local(step, handler))
        return found

    async def _alone(self, operation: Operation, progress: Progress, turn: Turn) -> Progress:
        step, about = turn.step, given(operation, progress, turn.step)
        make = step.undo if turn.back else step.does
        assert make is not None, "only what can be taken back is"  # noqa: S101 - a programming error
        request: StepRequest[Any] = make(about)
        with tracing().call("saga.back" if turn.back else "saga.step", parent=parent_of(progress)) as call:
            call.note(saga__id=progress.id, saga__operation=operation.name, saga__step=step.name)
            reply = await self._rpc.call(request)
        now_ns = self._clock.now_ns()
        if turn.back:
            return undid(operation, progress, step, now_ns)
        return did(operation, progress, step, _raw(reply), now_ns)

    async def _persistently(self, step: Step, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try again, ever more slowly. Raises what the last attempt raised."""
        wait_s, until_s = FIRST_WAIT_S, self._clock.monotonic() + step.patience_s
        while True:
            try:
                return await attempt()
            except QuickCommError as error:
                if not error.retryable or self._clock.monotonic() + wait_s > until_s:
                    raise
                log.info("saga.again", step=step.name, wait_s=wait_s, error=str(error)[:200])
            await self._clock.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _failed(self, operation: Operation, progress: Progress, turn: Turn, why: str, *, refused: bool) -> Progress:
        now_ns = self._clock.now_ns()
        if turn.back:
            return not_undone(progress, turn.step, why, now_ns)
        return failed(operation, progress, turn.step, why, now_ns, refused=refused)


def _raw(reply: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(reply))
