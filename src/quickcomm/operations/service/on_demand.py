"""Opens durable execution at its first use: a process that rarely needs it starts as fast as one without it."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.saga.executors import Executor
from quickcomm.kernel.saga.progress import Progress


class Openable(Executor, Protocol):
    """An executor that takes over what was left unfinished when it is opened: `Durable`."""

    async def open(self) -> int: ...

    async def aclose(self) -> None: ...


class OnDemand:
    """An `Executor`."""

    def __init__(self, durable: Openable, prepare: Callable[[], None]) -> None:
        """`prepare`: makes what `durable` needs before it is opened."""
        self._durable = durable
        self._prepare = prepare
        self._opening = asyncio.Lock()
        self._is_open = False
        self._is_closed = False

    async def open(self) -> None:
        """Open it, unless it is open. Raises `BusyError` once it is closed, and what it raises itself."""
        async with self._opening:
            if self._is_closed:
                raise BusyError("Operations are not executed any more: this process stops.")
            if self._is_open:
                return
            self._prepare()
            try:
                await self._durable.open()
            except BaseException:
                await self._durable.aclose()
                raise
            self._is_open = True

    async def start(self, progress: Progress) -> None:
        await self.open()
        await self._durable.start(progress)

    async def rest(self, operation_id: str, within_s: float) -> Progress:
        return await self._durable.rest(operation_id, within_s)

    async def aclose(self) -> None:
        """Leave what is at work to the next process. May be called again."""
        async with self._opening:
            self._is_closed = True
            await self._durable.aclose()
