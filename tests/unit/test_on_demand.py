"""Durable execution that is opened at its first use: once, again where that failed, and not any more at the end."""

import asyncio
from typing import Final

import pytest

from quickcomm.contracts.dispatching import Dispatching
from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.saga.progress import Progress, begun
from quickcomm.operations.definitions import DISPATCH_TASK
from quickcomm.operations.service.on_demand import OnDemand

PROGRESS: Final = begun(
    DISPATCH_TASK, "one", "main", "ada", Dispatching(task_id="shift-1:0:0:0", assignee="Maria"), 1_000
)


class Opened:
    """An executor; `fails`: how often it cannot be opened."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.did: list[str] = []

    async def open(self) -> int:
        self.did.append("open")
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise OSError("The disk is full.")
        return 0

    async def aclose(self) -> None:
        self.did.append("close")

    async def start(self, progress: Progress) -> None:
        self.did.append(f"start {progress.id}")

    async def rest(self, operation_id: str, within_s: float) -> Progress:  # noqa: ARG002 - as the port has it
        return PROGRESS


async def test_it_is_opened_once_by_the_first_operation() -> None:
    opened = Opened()
    executor = OnDemand(opened, lambda: opened.did.append("prepare"))
    assert opened.did == []
    await asyncio.gather(executor.start(PROGRESS), executor.start(PROGRESS), executor.open())
    assert opened.did[:2] == ["prepare", "open"]
    assert sorted(opened.did[2:]) == ["start one", "start one"]


async def test_what_could_not_be_opened_is_closed_and_opened_by_the_next_one() -> None:
    opened = Opened(fails=1)
    executor = OnDemand(opened, lambda: None)
    with pytest.raises(OSError, match="disk is full"):
        await executor.start(PROGRESS)
    await executor.start(PROGRESS)
    assert opened.did == ["open", "close", "open", "start one"]


async def test_nothing_is_opened_at_the_end() -> None:
    opened = Opened()
    executor = OnDemand(opened, lambda: None)
    await executor.aclose()
    with pytest.raises(BusyError):
        await executor.start(PROGRESS)
    assert opened.did == ["close"]
