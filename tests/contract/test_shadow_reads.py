"""What is read on one side is read on the other as well: through real sockets, with answers that change meanwhile."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from quickcomm.dashboard.adapters.shadow_reads import AGAIN_AFTER_S, AT_ONCE, SHADOW, ShadowReads
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import Instance
from quickcomm.kernel.telemetry.measured import Measurements

PATH = "/v1/tasks?limit=5"


class Side:
    """A process that answers its list of tasks; `answers` are given in turn, the last one for good."""

    def __init__(self, name: str, folder: Path, *answers: dict[str, Any]) -> None:
        self.instance = Instance(module=name, name=name, pid=1, version="0", socket=str(folder / f"{name}.sock"))
        self.answers = list(answers)
        self.asked = 0

    async def _answer(self, request: web.Request) -> web.Response:
        assert request.headers[SHADOW] == "yes"
        body = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        app = web.Application()
        app.router.add_get("/v1/tasks", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.UnixSite(runner, self.instance.socket).start()
            yield
        finally:
            await runner.cleanup()


def status(value: str) -> dict[str, Any]:
    return {"items": [{"task_id": "tsk_1", "status": value}]}


async def compared(here: Side, there: Side, offers: int) -> Measurements:
    """Offer what this side answers until `offers` comparisons are through."""
    clock = SystemClock(pauses=0.0)
    measurements = Measurements(clock, "here")
    reads = ShadowReads(lambda: here.instance, lambda: there.instance, measurements, clock)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(here.running())
        await stack.enter_async_context(there.running())
        while measurements.since(0).compared < offers:
            reads.offer(make_mocked_request("GET", PATH), msgspec.json.encode(here.answers[0]))
            assert len(reads.running) <= AT_ONCE
            if reads.running:
                await next(iter(reads.running))
        await reads.aclose()
    return measurements


async def test_a_side_that_is_a_moment_behind_is_alike(tmp_path: Path) -> None:
    here = Side("here", tmp_path, status("open"))
    there = Side("there", tmp_path, {"items": []}, {"items": []}, status("open"))
    found = (await compared(here, there, 1)).since(0)
    assert (found.alike, found.recent_different) == (1, 0)


async def test_a_side_that_follows_late_on_a_busy_board_is_alike(tmp_path: Path) -> None:
    steps = [status(f"edited {number} times") for number in range(20)]
    here = Side("here", tmp_path, *steps[2:])
    there = Side("there", tmp_path, *steps)
    found = (await compared(here, there, 1)).since(0)
    assert (found.alike, found.recent_different) == (1, 0)


async def test_a_side_with_other_data_differs_and_it_is_told_where(tmp_path: Path) -> None:
    here, there = Side("here", tmp_path, status("open")), Side("there", tmp_path, status("done"))
    found = (await compared(here, there, 1)).since(0)
    assert (found.recent_different, found.different) == (1, ("/v1/tasks: items.status",))
    assert there.asked == 1 + len(AGAIN_AFTER_S)


@pytest.mark.parametrize("change", ["side", "latency_ms"])
async def test_what_each_side_measures_by_itself_does_not_count(tmp_path: Path, change: str) -> None:
    here, there = Side("here", tmp_path, {change: 1, **status("open")}), Side("there", tmp_path, status("open"))
    assert (await compared(here, there, 1)).since(0).alike == 1
