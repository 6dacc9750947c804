"""Questions to the dashboard take turns."""

import asyncio

import pytest

from quickcomm.dashboard.adapters.admission import Admission
from quickcomm.kernel.errors import BusyError


async def test_so_many_at_once_the_others_in_their_order() -> None:
    admission, go, inside = Admission(2, 10), asyncio.Event(), list[int]()

    async def ask(number: int) -> None:
        async with admission.turn():
            inside.append(number)
            await go.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(ask(number))
        for _ in range(10):
            await asyncio.sleep(0)
        assert inside == [0, 1]
        go.set()
    assert inside == [0, 1, 2, 3, 4]


async def test_who_finds_no_room_to_wait_is_refused_and_costs_the_others_nothing() -> None:
    admission = Admission(1, 1)
    async with admission.turn():
        waiting = asyncio.create_task(_ask(admission))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="try again"):
            await _ask(admission)
    await waiting
    await _ask(admission)


async def test_who_goes_away_while_waiting_leaves_the_room() -> None:
    admission = Admission(1, 1)
    async with admission.turn():
        for _ in range(3):
            waiting = asyncio.create_task(_ask(admission))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    await _ask(admission)


async def _ask(admission: Admission) -> None:
    async with admission.turn():
        pass
