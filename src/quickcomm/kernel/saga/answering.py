"""Answers to the commands of steps that are transactions of one database, each with its key beside its effect."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Connection

from quickcomm.contracts.messaging import reply_type
from quickcomm.contracts.saga import StepRequest, Undone
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.rpc.port import Answer
from quickcomm.kernel.saga.keys import once, undo
from quickcomm.kernel.storage import Database

R = TypeVar("R")


class Transaction:
    """One in which steps have their effects."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._after: list[Callable[[], None]] = []

    def after(self, work: Callable[[], None]) -> None:
        """Call this in the event loop once the effects are durable."""
        self._after.append(work)

    def committed(self) -> None:
        """Do what was to be done after the commit."""
        for work in self._after:
            work()


class Transactional(Generic[R]):
    """A handler for rpc, of which an executor in the same process can have the effect in a transaction of its own."""

    def __init__(
        self,
        kind: type[StepRequest[R]],
        database: Database,
        clock: Clock,
        effect: Callable[[Transaction, Any], R],
        prepare: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        """`effect`: is run in the writer's thread.

        `prepare`: what has to be done before, outside of a transaction; it must do no harm when nothing follows. It
        may get a request that was made without the results of earlier steps.
        """
        self.kind = kind
        self.database = database
        self.prepare = prepare
        self._clock = clock
        self._effect = effect

    @property
    def answer(self) -> Answer:
        return self.kind, self

    async def __call__(self, request: StepRequest[R]) -> R:
        """Answer after the commit."""
        if self.prepare is not None:
            await self.prepare(request)
        return await in_transaction(self.database, lambda transaction: self.run(transaction, request))

    def run(self, transaction: Transaction, request: StepRequest[R]) -> R:
        """Have the effect, or return the reply of the time it was had. Raises `CompensatedError`."""

        def effect() -> bytes:
            return msgspec.json.encode(self._effect(transaction, request))

        reply = once(transaction.connection, request.key, self._clock.now_ns(), effect)
        return msgspec.json.decode(reply, type=reply_type(self.kind))


class Compensating(Transactional[Undone], Generic[R]):
    """A handler of the command that takes a step back; it refuses that step from then on."""

    def __init__(
        self,
        kind: type[StepRequest[Undone]],
        of: type[StepRequest[R]],
        database: Database,
        clock: Clock,
        effect: Callable[[Transaction, Any, R], None],
    ) -> None:
        """`of`: the command of the step. `effect`: gets the reply of the step as well."""
        super().__init__(kind, database, clock, lambda _transaction, _request: Undone())
        self._of = of
        self._back = effect

    def run(self, transaction: Transaction, request: StepRequest[Undone]) -> Undone:
        def back(reply: bytes) -> None:
            self._back(transaction, request, msgspec.json.decode(reply, type=reply_type(self._of)))

        return Undone(found=undo(transaction.connection, request.key, self._clock.now_ns(), back))


async def in_transaction(database: Database, work: Callable[[Transaction], R]) -> R:
    """Run work in one transaction of the writer; return after its commit, and after what was to follow that."""
    begun: list[Transaction] = []

    def run(connection: Connection) -> R:
        begun[:] = [Transaction(connection)]
        return work(begun[0])

    reply = await database.write(run)
    begun[0].committed()
    return reply
