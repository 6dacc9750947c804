"""Moves modules by the command line, kills processes, and notes what becomes of cards meanwhile."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Any, Final

import aiohttp
from tests.support.server import command, quickcomm
from tests.support.site import Site

from benchmarks.load import percentile
from benchmarks.process import usage
from quickcomm.contracts.migration import GetMigration
from quickcomm.kernel.runtime.admin_socket import ask
from quickcomm.operate.up.client import topology_status

Json = dict[str, Any]
BACK_WITHIN_S: Final = 120.0
ATTEMPTS: Final = 3
"""Of a command: the controller may just have been killed."""
LOOK_S: Final = 0.1
DISTURBED_S: Final = 30.0
"""After a kill or a fault."""
LEAST: Final = 14
"""Above that, of the commands and Chromium: modules of the site that yield to audio have a nice value, too."""


class Cards:
    """Delays of cards by what went on when they came: milliseconds from the end of speech to the push."""

    def __init__(self) -> None:
        self.phase = "warming"
        self.disturbed_until = 0.0
        self.delays: dict[str, list[Json]] = {}
        self._known: set[str] = set()

    async def watch(self, cards: dict[str, Json]) -> None:
        while True:
            await asyncio.sleep(0.5)
            for name in cards.keys() - self._known:
                self._known.add(name)
                if (stages := cards[name]["latency_ms"]).get("total") is not None:
                    disturbed = f", {DISTURBED_S:.0f} s after a kill" if time.monotonic() < self.disturbed_until else ""
                    self.delays.setdefault(self.phase + disturbed, []).append(stages)

    def disturb(self) -> None:
        """Count apart what comes now: what was killed starts again, and has a backlog."""
        self.disturbed_until = time.monotonic() + DISTURBED_S

    def told(self) -> Json:
        return {phase: {"cards": len(each), **_stages(each)} for phase, each in self.delays.items()}


def _stages(cards: list[Json]) -> Json:
    """Return p50 and p95 of the whole, and of each stage."""
    found: Json = {}
    for stage in ("total", "stt", "publish", "queue", "classify", "store", "push"):
        times = [each[stage] for each in cards if each.get(stage) is not None] or [0.0]
        found[stage] = [round(percentile(times, 0.5)), round(percentile(times, 0.95))]
    return found


class Mover:
    """Moves a module by the command line, as an operator does, and notes how long each command takes."""

    def __init__(self, site: Site, pause_s: float, cards: Cards) -> None:
        self._site = site
        self._cards = cards
        self._pause_s = pause_s
        self.commands: list[Json] = []
        self.faults: list[Json] = []
        self.kills: dict[str, int] = {}
        self.cpu: dict[str, float] = {}
        self._began = time.monotonic()

    def at(self) -> float:
        """Seconds since the benchmark began."""
        return time.monotonic() - self._began

    async def command(self, *words: str) -> str:
        """Raises `AssertionError` where it fails. Tries again where the controller has just been killed."""
        for _ in range(ATTEMPTS):
            began = time.monotonic()
            arguments = ["nice", "-n", str(LEAST), command(), "migrate", *words, "--data-dir", str(self._site.data_dir)]
            done = await asyncio.to_thread(
                subprocess.run, arguments, capture_output=True, text=True, timeout=400, check=False
            )
            took = round(time.monotonic() - began, 2)
            said = (done.stdout.strip() or done.stderr.strip() or "(silent)").splitlines()[-1]
            print(f"{self.at():7.1f}  migrate {' '.join(words)} [{done.returncode}]: {said}", file=sys.stderr)
            if done.returncode == 0:
                self.commands.append({"command": " ".join(words), "took_s": took, "said": said})
                return said
            found = await self.module(words[1])
            print(f"         it is in {found['mode']}: {found.get('why')}", file=sys.stderr)
            history = ["migrate", "history", "--limit", "6", "--data-dir", str(self._site.data_dir)]
            print(await asyncio.to_thread(quickcomm, *history, statuses=(0, 1)), file=sys.stderr)
            await asyncio.sleep(3.0)
        raise AssertionError(f"migrate {words} does not come to an end")

    async def module(self, name: str) -> Json:
        try:
            [row] = await ask(self._site.layout.directory.traffic.socket, GetMigration(entries=0), 10.0)
        except (aiohttp.ClientError, OSError, TimeoutError):  # the controller was just killed
            return {"mode": "?", "weight": -1}
        found: Json = next(each for each in row["modules"] if each["name"] == name)
        return found

    async def calm(self) -> None:
        await asyncio.sleep(self._pause_s)

    def pid(self, process: str) -> int:
        rows = topology_status(self._site.data_dir) or []
        return next((row["pid"] or 0 for row in rows if row["module"] == process), 0)

    async def kill(self, process: str) -> None:
        if pid := await asyncio.to_thread(self.pid, process):
            self._cards.disturb()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.kills[process] = self.kills.get(process, 0) + 1
            print(f"{self.at():7.1f}  kill -9 {process}", file=sys.stderr)

    async def until_ready(self, process: str) -> None:
        """Wait until a process that was killed is there again."""
        began = time.monotonic()
        while time.monotonic() - began < BACK_WITHIN_S:
            rows = await asyncio.to_thread(topology_status, self._site.data_dir) or []
            if any(row["module"] == process and row["state"] == "ready" for row in rows):
                return
            await asyncio.sleep(1.0)
        raise AssertionError(f"{process} does not come back")

    async def until_back(self, name: str, fault: str, began: float) -> None:
        """Note how long it took until the service gets no requests any more, and why it was."""
        self._cards.disturb()
        while (await self.module(name))["weight"] != 0:
            if time.monotonic() - began > BACK_WITHIN_S:
                self.faults.append({"module": name, "fault": fault, "back_s": None, "why": "not within two minutes"})
                return
            await asyncio.sleep(LOOK_S)
        back_s = round(time.monotonic() - began, 1)
        async with asyncio.timeout(BACK_WITHIN_S):
            while (found := await self.module(name))["mode"] == "?" or found["change"]:  # noqa: ASYNC110 - it is asked
                await asyncio.sleep(LOOK_S)
        why = found["why"]
        self.faults.append({"module": name, "fault": fault, "back_s": back_s, "why": why})
        print(f"{self.at():7.1f}  {fault}: back after {self.faults[-1]['back_s']} s: {why}", file=sys.stderr)

    async def measured(self, name: str, seconds: float, talkers: int) -> None:
        """CPU of all processes of the site, a second of sound."""

        def spent() -> float:
            rows = topology_status(self._site.data_dir) or []
            return sum(usage(row["pid"]).cpu_s for row in rows if row["pid"])

        before = await asyncio.to_thread(spent)
        await asyncio.sleep(seconds)
        self.cpu[name] = round((await asyncio.to_thread(spent) - before) / (seconds * talkers), 4)

    async def until_retired(self, name: str) -> None:
        """Take the last step. Bring the module to full first where the controller has rolled it back after a kill."""
        for _ in range(ATTEMPTS):
            if (await self.module(name))["mode"] not in {"full", "retired"}:
                await self.command("start", name)
                await self.command("promote", name, "--force")
            with contextlib.suppress(AssertionError):
                await self.command("step", name, "--force")
            if (await self.module(name))["mode"] == "retired":
                return
        raise AssertionError(f"{name} is not retired")

    async def up_to(self, name: str, weight: int) -> None:
        """Step on. One that was rolled back meanwhile, such as for a kill, is started again first."""
        while (found := await self.module(name))["weight"] < weight:
            await self.command("step" if found["goal"] == "service" else "start", name, "--force")
            await self.calm()
