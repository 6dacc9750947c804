"""The leased consumer of one partition: takes over what the one before left, then reads on, acknowledges in order.

Every step is conditional on the lease's token. Who was replaced can neither take a message nor acknowledge one, however
late it wakes up.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.handling import LETTERS_AT_MOST, MAX_ATTEMPTS, handle
from quickcomm.kernel.messaging.bus.port import BusUnavailableError, Delivery, Handler
from quickcomm.kernel.messaging.bus.redis_link import Argument, Link, Script
from quickcomm.kernel.messaging.bus.redis_names import Names
from quickcomm.kernel.messaging.bus.redis_scripts import ACK, FETCH

BATCH: Final = 128
SUSPECT_AFTER: Final = 2
"""Deliveries that ended with the consumer's death until a message is taken alone."""
_FETCH: Final = Script(FETCH)
_ACK: Final = Script(ACK)

log = structlog.get_logger(__name__)


class LeaseLostError(QuickCommError):
    code = "bus.lease_lost"


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of a stream, for one consumer of a group. `token` is different each time it is given."""

    stream: str
    group: str
    part: int
    consumer: str
    token: str


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as it is stored, under its id."""

    stream: str
    group: str
    key: str
    payload: bytes
    reason: str
    attempts: int
    at_ns: int


class _Batch(msgspec.Struct, frozen=True, kw_only=True):
    ids: tuple[bytes, ...]
    deliveries: tuple[Delivery, ...]
    attempt: int
    """Which delivery to a consumer this is, for the first of them."""

    @property
    def alone(self) -> bool:
        return self.attempt > SUSPECT_AFTER


class Consumer:
    def __init__(self, link: Link, names: Names, clock: Clock, lease: Lease) -> None:
        self._link = link
        self._clock = clock
        self._lease = lease
        self._names = names
        self._stream = names.part(lease.stream, lease.part)
        self._leases = names.leases(lease.stream, lease.group)
        self._after = b"0-0"
        self._old = True
        self._read_up_to: str | None = None
        self._in_hand = 0
        self._stopping = False
        self._loop: asyncio.Task[None] | None = None

    async def run(self, handler: Handler, overlap: int) -> None:
        """Work until cancelled or stopped. Raises `LeaseLostError`, `GroupMissingError` (in a group)."""
        async with asyncio.TaskGroup() as tasks:
            self._loop = tasks.create_task(self._read(handler, overlap), name="bus:read")
            if self._stopping:
                self._loop.cancel()

    def stop(self) -> None:
        """Take no more; `run` returns when what is in hand is acknowledged."""
        self._stopping = True
        if self._loop is not None and not self._in_hand:
            self._loop.cancel()

    async def _read(self, handler: Handler, overlap: int) -> None:
        free = asyncio.Semaphore(overlap)
        before = asyncio.Event()
        before.set()
        async with asyncio.TaskGroup() as in_hand:
            while True:
                await free.acquire()
                batch = await self._next()
                if batch.alone:
                    await before.wait()
                done = asyncio.Event()
                self._in_hand += 1
                taken = in_hand.create_task(self._take(batch, handler, before, done), name="bus:batch")
                taken.add_done_callback(lambda _: free.release())
                before = done
                if batch.alone or self._stopping:
                    await before.wait()

    async def _next(self) -> _Batch:
        """The next batch, as soon as there is one; none any more once the consumer is stopped."""
        while True:
            if self._stopping:
                await asyncio.Event().wait()  # cancelled when nothing is in hand
            if self._read_up_to is not None:
                await self._link.patiently(self._more)
            kind, *answer = await self._link.patiently(self._fetch)
            self._read_up_to = None
            if kind == b"fenced":
                raise LeaseLostError("Another consumer has this partition by now.")
            if kind == b"none-left":
                self._old = False
            elif kind == b"empty":
                self._read_up_to = answer[0].decode()
            else:
                self._after, entries, attempt = answer
                if kind == b"new" and len(entries) < BATCH:
                    self._read_up_to = self._after.decode()
                if entries:  # else they were deleted from the stream by hand
                    return self._batch(entries, attempt, fresh=kind == b"new")

    async def _more(self) -> None:
        assert self._read_up_to is not None  # noqa: S101 - the caller has looked
        await self._link.wait_for(self._stream, self._read_up_to)

    async def _fetch(self) -> list[Any]:
        lease = self._lease
        after = self._after if self._old else b">"
        arguments = (lease.group, lease.consumer, lease.part, lease.token, BATCH, after, SUSPECT_AFTER)
        try:
            answer: list[Any] = await self._link.run(_FETCH, (self._stream, self._leases), *arguments)
        except BusUnavailableError:
            self._old = True  # what an answer that was lost has given us is pending, behind what we have
            raise
        return answer

    def _batch(self, entries: Sequence[tuple[bytes, list[bytes]]], attempt: int, *, fresh: bool) -> _Batch:
        stream = self._lease.stream
        deliveries = tuple(
            Delivery(
                message_id=_number(entry),
                stream=stream,
                key=key.decode(),
                payload=payload,
                attempt=attempt,
                fresh=fresh,
            )
            for entry, (_, key, _, payload) in entries
        )
        return _Batch(ids=tuple(entry for entry, _ in entries), deliveries=deliveries, attempt=attempt)

    async def _take(self, batch: _Batch, handler: Handler, before: asyncio.Event, done: asyncio.Event) -> None:
        """Have a batch handled; acknowledge it once those before it are."""
        if batch.attempt > MAX_ATTEMPTS:
            reason = f"{batch.attempt - 1} consumers in a row stopped or died with it in hand."
            failed = [(delivery, reason) for delivery in batch.deliveries]
        else:
            failed = await handle(self._lease.group, batch.deliveries, handler, self._clock)
        await before.wait()
        await self._acknowledge(batch, failed)
        done.set()
        self._in_hand -= 1
        if self._stopping:
            self.stop()

    async def _acknowledge(self, batch: _Batch, failed: Sequence[tuple[Delivery, str]]) -> None:
        lease = self._lease
        letters = [msgspec.msgpack.encode(self._letter(delivery, reason)) for delivery, reason in failed]
        keys = (self._stream, self._leases, self._names.dead, self._names.last_dead)
        arguments: list[Argument] = [lease.group, lease.part, lease.token, len(batch.ids), LETTERS_AT_MOST, *batch.ids]
        if not await self._link.patiently(lambda: self._link.run(_ACK, keys, *arguments, *letters)):
            raise LeaseLostError("Another consumer has this partition by now.")

    def _letter(self, delivery: Delivery, reason: str) -> Letter:
        log.error("bus.dead_letter", group=self._lease.group, stream=delivery.stream, message_id=delivery.message_id)
        return Letter(
            stream=delivery.stream,
            group=self._lease.group,
            key=delivery.key,
            payload=delivery.payload,
            reason=reason,
            attempts=MAX_ATTEMPTS,
            at_ns=self._clock.now_ns(),
        )


def _number(entry: bytes) -> int:
    """An entry's id as one number that keeps its order."""
    ms, seq = entry.split(b"-")
    return (int(ms) << 32) + int(seq)
