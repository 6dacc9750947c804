"""The consumer groups of a module on one side of a migration: there from the first copy on, gone once it is retired."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quickcomm.contracts.routes import Side, group_of
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.runtime.declaration import Module


async def register_groups(url: str, module: Module, side: Side, clock: Clock) -> None:
    """Have the store keep for this side what is published from now on. Raises `BusUnavailableError`."""
    async with _bus(url, clock) as bus:
        for stream, group in _own(module, side):
            await bus.register(stream, group)


async def retire_groups(url: str, module: Module, side: Side, clock: Clock) -> None:
    """Have nothing wait for this side any more. Raises `BusUnavailableError`."""
    async with _bus(url, clock) as bus:
        for stream, group in _own(module, side):
            await bus.retire(stream, group)


def _own(module: Module, side: Side) -> list[tuple[str, str]]:
    """Return stream and group of all that the other side does not go on with."""
    groups = [group for group in module.consumes if not group.shared]
    return [(stream, group_of(group.name, side)) for group in groups for stream in group.streams]


@asynccontextmanager
async def _bus(url: str, clock: Clock) -> AsyncIterator[RedisBus]:
    bus = RedisBus(url, clock)
    try:
        yield bus
    finally:
        await bus.aclose()
