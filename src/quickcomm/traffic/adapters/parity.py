"""Compares what the dashboards of both sides have: by their answers to `CompareDashboard`, each under its name."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from quickcomm.contracts.checking import Contents, Conversations, Key, RecentDashboard
from quickcomm.contracts.commands import Command
from quickcomm.contracts.routes import MONOLITH, SERVICE, Side
from quickcomm.kernel.checking.checker import ALL, CheckOptions, Parity, Report
from quickcomm.kernel.checking.ranges import Range, ranges_of
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError, UnavailableError
from quickcomm.kernel.messaging.rpc import Rpc

T = TypeVar("T")
Settled = Callable[[], Awaitable[None]]
"""Returns when both sides have what was on its way at the call."""
OPTIONS: Final = CheckOptions(page=2_000, share=0.2, settle_s=10.0)


def process_of(instance: str) -> str:
    """Return what an instance is one of: `monolith` of `monolith-1`."""
    return instance.rpartition("-")[0] or instance


class SideSilentError(UnavailableError):
    """A side does not answer, so that nothing can be said of it."""

    code = "migration.side_silent"


class Dashboards:
    """Both sides' dashboards. A difference counts where it is still there some seconds later."""

    def __init__(self, rpc: Rpc, clock: Clock) -> None:
        self._rpc = rpc
        self._clock = clock

    async def report(self, settled: Settled | None = None) -> Report:
        """Return the differences in all that they have. Raises `QuickCommError` where a side does not answer."""
        return await self._compared((ALL,), settled)

    async def recent(self, since_ns: int, settled: Settled | None = None) -> Report:
        """Return the differences in the conversations that one of them has seen change since then. Raises likewise."""
        keys: set[Key] = set()
        for side in (MONOLITH, SERVICE):
            keys.update((await self._side(side).ask(RecentDashboard(since_ns=since_ns), Conversations)).keys)
        return await self._compared(ranges_of(keys), settled) if keys else Report()

    async def _compared(self, ranges: Sequence[Range], settled: Settled | None) -> Report:
        here, there = self._side(MONOLITH), self._side(SERVICE)
        return await Parity(here, there, self._clock, OPTIONS, settled).run(ranges)

    def _side(self, side: Side) -> "_Side":
        return _Side(self._rpc, side)


class _Side:
    """Implements `Ask`: the first answer of an instance of the side."""

    def __init__(self, rpc: Rpc, side: Side) -> None:
        self._rpc = rpc
        self._side = side

    async def __call__(self, request: Command, /) -> Contents:
        return await self.ask(request, Contents)

    async def ask(self, request: Command, kind: type[T]) -> T:
        """Raises `SideSilentError` where no instance answers."""
        replies = await self._rpc.call_all(request)
        found = [
            reply
            for name, reply in sorted(replies.items())
            if (process_of(name) == MONOLITH) == (self._side == MONOLITH)
        ]
        for reply in found:
            if not isinstance(reply, QuickCommError):
                return msgspec.convert(reply, kind)  # over the wire, a reply of a command has plain values
        raise SideSilentError(f"the dashboard of the {self._side} does not answer{f': {found[0]}' if found else ''}")
