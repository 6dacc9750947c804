"""What each hop costs when idle: a question between services, a message on the bus, a push to the browser.

`python -m benchmarks.hops [--count 500] [--pause-ms 20]`.

*service*: GET of a kilobyte of JSON from another process over its Unix socket, as services ask each other: aiohttp on
both ends, one connection kept, from the call to the decoded body. *bus*: from the call of `publish` here to the handler
in another process, on a real Valkey with an append-only file; beside it a PING. *browser*: from just before `serve`
hands a task's change to its socket to the page's script having it, in a real Chromium with the real page. The page's
clock is `performance.timeOrigin + performance.now()`, held against this machine's and corrected by what they differ.

Exit status 0 if all p99 are within their aims: 2, 5 and 10 ms. `--pause-ms`: between two, so that nobody is busy.
"""

import argparse
import asyncio
import contextlib
import json
import os
import runpy
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import aiohttp
import uvloop
from aiohttp import web
from playwright.async_api import Page, ViewportSize, async_playwright
from tests.support.page import Hotel, Screen, chromium, launched, screen
from tests.support.server import Server
from tests.support.valkey import Valkey

from benchmarks.bus import Times, at_work, consumer, latency
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.http import create_app, traced_client
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.settings import TrustSettings
from quickcomm.kernel.trust import trust_of
from quickcomm.kernel.trust.directory import TrustDirectory

AIMS_MS: Final = {"service": 2.0, "bus": 5.0, "browser": 10.0}
PATH: Final = "/internal/v1/question"
ROWS: Final = [{"conversation_id": f"conversation-{number}", "calls": number, "cost": 0.25} for number in range(16)]
STAMPS: Final = "BENCH_STAMPS"
UNLIMITED: Final = {"QUICKCOMM_KEYS_REQUESTS_PER_SECOND": "1000000", "QUICKCOMM_KEYS_REQUESTS_BURST": "1000000"}
TOWELS: Final = "two extra bath towels"
WARM_UP: Final = 20
LISTEN: Final = """
window.__heard = [];
window.WebSocket = class extends WebSocket {
  constructor(...all) {
    super(...all);
    this.addEventListener("message", (event) => {
      const at = performance.timeOrigin + performance.now();
      const text = String(event.data);
      if (text.startsWith('{"type":"task"')) window.__heard.push([text, at]);
    });
  }
};
"""

# -- a question between services ---------


async def serve_questions(place: str) -> None:
    trust = trust_of(TrustSettings(service="core", directory=str(Path(place).parent)))

    async def answer(request: web.Request) -> web.Response:
        trust.require(request, "dashboard")
        return web.json_response({"rows": ROWS})

    runner = web.AppRunner(create_app([web.get(PATH, answer)], trust), access_log=None)
    await runner.setup()
    await web.UnixSite(runner, place).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def service_hop(folder: Path, count: int, pause_s: float) -> Times:
    place = str(folder / "service.sock")
    TrustDirectory(folder).ensure(("core", "dashboard"))
    trust = trust_of(TrustSettings(service="dashboard", directory=str(folder)))
    async with child("--questions", place) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        taken = []
        connector = aiohttp.UnixConnector(place)
        async with aiohttp.ClientSession(connector=connector, trace_configs=traced_client()) as client:
            for number in range(count + WARM_UP):
                began = time.monotonic_ns()
                within = aiohttp.ClientTimeout(total=5)
                async with client.get(f"http://core{PATH}", headers=trust.headers("core"), timeout=within) as response:
                    assert len((await response.json())["rows"]) == len(ROWS)
                if number >= WARM_UP:
                    taken.append((time.monotonic_ns() - began) / 1e6)
                await asyncio.sleep(pause_s)
    return Times.of(taken)


@contextlib.asynccontextmanager
async def child(*arguments: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.hops", *arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# -- a message on the bus ---------


async def bus_hop(folder: Path, count: int) -> tuple[Times, Times]:
    """Of messages, and of PINGs."""
    server = Valkey(folder / "valkey")
    await asyncio.to_thread(server.start)
    bus = RedisBus(server.url, SystemClock())
    try:
        async with consumer(server.url) as process:
            await at_work(bus, process)
            return await latency(bus, process, count)
    finally:
        await bus.aclose()
        await asyncio.to_thread(server.stop)


# -- a push to the browser ---------


def serve_stamped(arguments: list[str]) -> None:
    """`quickcomm serve` as it is, but that it notes when it hands a task's change to a socket."""
    send = web.WebSocketResponse.send_str
    file = Path(os.environ[STAMPS]).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 - as long as the process

    async def stamped(self: web.WebSocketResponse, data: str, compress: int | None = None) -> None:
        at = time.time_ns()
        await send(self, data, compress)
        if data.startswith('{"type":"task"'):
            file.write(f"{json.loads(data)['change']} {at}\n")

    web.WebSocketResponse.send_str = stamped  # type: ignore[method-assign,assignment]
    sys.argv = ["quickcomm", *arguments]
    runpy.run_module("quickcomm.cli.main", run_name="__main__")


class Stamped(Server):
    """Such a server. Its stamps are milliseconds of this machine's clock, by change."""

    program = (sys.executable, "-m", "benchmarks.hops", "--serve")

    def __init__(self, folder: Path) -> None:
        self._stamps = folder / "stamps"
        super().__init__(folder / "data", **UNLIMITED, **{STAMPS: str(self._stamps)})

    @property
    def stamps(self) -> dict[int, float]:
        rows = [line.split() for line in self._stamps.read_text().splitlines()]
        return {int(change): int(at) / 1e6 for change, at in rows}


async def browser_hop(folder: Path, count: int, pause_s: float) -> Times | None:
    """None where there is no browser."""
    executable = chromium()
    if executable is None:
        return None
    server = Stamped(folder)
    try:
        await asyncio.to_thread(server.start)
        hotel = Hotel(server)
        async with async_playwright() as playwright:
            browser = await launched(playwright, executable)
            async with screen(browser, hotel, ViewportSize(width=1280, height=900)) as seen:
                heard = await pushed(seen, hotel, count, pause_s)
            await browser.close()
    finally:
        await asyncio.to_thread(server.stop)
    sent = server.stamps
    return Times.of([at - sent[change] for change, at in heard.items() if change in sent][-count:])


async def pushed(seen: Screen, hotel: Hotel, count: int, pause_s: float) -> dict[int, float]:
    """A task is acknowledged and taken back again and again; when the page had each change, by this machine's clock."""
    await seen.page.add_init_script(LISTEN)
    await seen.sign_in()
    await seen.page.wait_for_selector('[data-testid="connection"][data-state="live"]')
    [said] = await hotel.say("housekeeping", TOWELS)
    await seen.card(said).get_by_test_id("task").wait_for()
    before = await offset_ms(seen.page)
    headers = {"Authorization": f"Bearer {await hotel.key('admin')}"}
    async with aiohttp.ClientSession(hotel.server.url, headers=headers) as client:
        for number in range(count + WARM_UP):
            action = "reopen" if number % 2 else "acknowledge"
            async with client.post(f"/v1/tasks/{said.utterance_id}:0/{action}") as answer:
                assert answer.ok, await answer.text()
            await asyncio.sleep(pause_s)
    after = await offset_ms(seen.page)
    rows: list[tuple[str, float]] = await seen.page.evaluate("window.__heard")
    # Whatever moved the machine's clock meanwhile moved it under both: the page's goes on as it began.
    offset = (before + after) / 2
    return {int(json.loads(text)["change"]): at - offset for text, at in rows}


async def offset_ms(page: Page) -> float:
    """By how much the page's clock is ahead. Of the quickest of many looks; 0 where it lies within what that took."""
    best: tuple[float, float, float] | None = None
    for _ in range(50):
        began = time.time_ns() / 1e6
        theirs: float = await page.evaluate("performance.timeOrigin + performance.now()")
        ended = time.time_ns() / 1e6
        if best is None or ended - began < best[1] - best[0]:
            best = began, ended, theirs
    assert best is not None
    began, ended, theirs = best
    return 0.0 if began <= theirs <= ended else theirs - (began + ended) / 2


# -- all of them ---------


def told(name: str, times: Times, *, aim: float | None = None) -> None:
    within = "" if aim is None else f"   aim ≤ {aim:.0f} ms"
    print(f"{name:10}{times.p50:>9.2f}{times.p99:>9.2f}{times.worst:>9.2f}{times.count:>7}{within}", flush=True)


async def run(count: int, pause_s: float, folder: Path) -> int:
    print(f"{'hop':10}{'p50 ms':>9}{'p99 ms':>9}{'worst':>9}{'of':>7}")
    found: dict[str, Times] = {"service": await service_hop(folder, count, pause_s)}
    told("service", found["service"], aim=AIMS_MS["service"])
    found["bus"], found["ping"] = await bus_hop(folder, count)
    told("bus", found["bus"], aim=AIMS_MS["bus"])
    told("  (PING)", found["ping"])
    browser = await browser_hop(folder, count, pause_s)
    if browser is None:
        print("browser: skipped, there is no Chromium or Chrome on the PATH (or named by QUICKCOMM_CHROMIUM)")
    else:
        found["browser"] = browser
        told("browser", browser, aim=AIMS_MS["browser"])
    print(json.dumps({name: asdict(times) for name, times in found.items()}))
    return 0 if all(found[name].p99 <= aim for name, aim in AIMS_MS.items() if name in found) else 1


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        serve_stamped(sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--pause-ms", type=float, default=20.0)
    parser.add_argument("--questions", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.questions:
        uvloop.run(serve_questions(options.questions))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(options.count, options.pause_ms / 1e3, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
