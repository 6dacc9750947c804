"""A member of a consumer group: takes its share of the partitions, renews the leases, gives up what is too many."""

import asyncio
import contextlib
import os
import socket
import uuid
from typing import Final

import msgspec
import structlog

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.port import Handler
from quickcomm.kernel.messaging.bus.redis_consumer import Consumer, Lease, LeaseLostError
from quickcomm.kernel.messaging.bus.redis_link import GroupMissingError, Link, Script
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS, Names
from quickcomm.kernel.messaging.bus.redis_scripts import HEARTBEAT, REGISTER, RELEASE

LEASE_S: Final = 1.5
"""So long after its last heartbeat a consumer counts as dead."""
HEARTBEAT_S: Final = 0.4
RELEASE_S: Final = 1.0
_HEARTBEAT: Final = Script(HEARTBEAT)
_REGISTER: Final = Script(REGISTER)
_RELEASE: Final = Script(RELEASE)

log = structlog.get_logger(__name__)


class Hold(msgspec.Struct, eq=False):
    """A lease and who works under it."""

    lease: Lease
    consumer: Consumer
    task: asyncio.Task[None] | None = None
    stopping: bool = False


class Member:
    def __init__(self, link: Link, names: Names, clock: Clock, stream: str, group: str) -> None:
        self._link = link
        self._names = names
        self._clock = clock
        self._stream = stream
        self._group = group
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._keys = (names.leases(stream, group), names.members(stream, group))
        self._held: dict[int, Hold] = {}

    async def register(self) -> None:
        await register(self._link, self._names, self._stream, self._group)

    async def run(self, handler: Handler, overlap: int) -> None:
        """Work until cancelled; then others may go on at once."""
        await self._link.patiently(self.register)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._clear()
                    share, leases = await self._link.patiently(self._heartbeat)
                    for part, hold in list(self._held.items()):
                        if leases.get(part) != hold.lease:
                            self._drop(part)
                    for lease in leases.values():
                        if lease.part not in self._held:
                            self._begin(tasks, lease, handler, overlap)
                    self._give_up(len(self._held) - share)
                    await asyncio.sleep(HEARTBEAT_S)
        finally:
            await self._leave()

    async def _heartbeat(self) -> tuple[int, dict[int, Lease]]:
        held = [text for hold in self._held.values() for text in (hold.lease.part, hold.lease.token)]
        share, *pairs = await self._link.run(_HEARTBEAT, self._keys, self._name, int(LEASE_S * 1000), PARTITIONS, *held)
        leases = {}
        for part, token in zip(pairs[::2], pairs[1::2], strict=True):
            leases[int(part)] = Lease(
                stream=self._stream, group=self._group, part=int(part), consumer=self._name, token=token.decode()
            )
        return int(share), leases

    def _begin(self, tasks: asyncio.TaskGroup, lease: Lease, handler: Handler, overlap: int) -> None:
        hold = Hold(lease, Consumer(self._link, self._names, self._clock, lease))
        self._held[lease.part] = hold
        name = f"bus:{lease.stream}:{lease.group}:{lease.part}"
        hold.task = tasks.create_task(self._consume(hold, handler, overlap), name=name)

    async def _consume(self, hold: Hold, handler: Handler, overlap: int) -> None:
        lease = hold.lease
        try:
            await hold.consumer.run(handler, overlap)
        except* LeaseLostError:
            log.warning("bus.lease_lost", stream=lease.stream, group=lease.group, part=lease.part)
        except* GroupMissingError:  # the server has lost its data: what is published from now on is not missed
            log.exception("bus.group_missing", stream=lease.stream, group=lease.group)
            await self._link.patiently(self.register)

    async def _clear(self) -> None:
        """Release what nobody works on any more."""
        idle = [hold for hold in self._held.values() if hold.task is not None and hold.task.done()]
        if idle:
            await self._release(idle, "")
        for hold in idle:
            del self._held[hold.lease.part]

    def _drop(self, part: int) -> None:
        hold = self._held.pop(part)
        log.warning("bus.lease_lost", stream=self._stream, group=self._group, part=part)
        if hold.task is not None:
            hold.task.cancel()

    def _give_up(self, surplus: int) -> None:
        """The last ones are handed over once what is in hand there is done."""
        for part in sorted(self._held, reverse=True)[: max(0, surplus)]:
            hold = self._held[part]
            if not hold.stopping:
                hold.stopping = True
                hold.consumer.stop()

    async def _leave(self) -> None:
        """Not waiting for a server that is away: the leases run out by themselves."""
        with contextlib.suppress(QuickCommError, TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                await self._release(list(self._held.values()), self._name)

    async def _release(self, holds: list[Hold], leaver: str) -> None:
        pairs = [text for hold in holds for text in (hold.lease.part, hold.lease.token)]
        with contextlib.suppress(QuickCommError):
            await self._link.run(_RELEASE, self._keys, leaver, *pairs)


async def register(link: Link, names: Names, stream: str, group: str) -> None:
    """Doing it again changes nothing. A new group starts with what the stream still holds."""
    await link.run(_REGISTER, (names.streams, *names.parts(stream)), stream, group)
