"""Modules move between the monolith and services while people talk, look and edit, and faults are made on purpose.

`python -m benchmarks.migrate [--modules dashboard,intelligence] [--talkers 16] [--editors 20] [--pause 6]`: real speech
in real time, in conversations of different lengths, live clients that edit what they see by its version, one Chromium.
Each module goes there by every step; the candidate is made to hang, then to have other data, to understand or to hear
otherwise, and must be back by itself; the controller and a process of each side are killed twice; the module is
retired, comes back, and goes there again.
Told: what was lost, doubled, moved or answered twice; whether both dashboards are alike at the end; how soon a change
is in force; how soon a faulty candidate is back; cards' delays before and during it; CPU a second of sound in the
shadow and at half; how long clients that were handed over waited, and for the next words; memory before and after.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.kills import Toll, count, seen_everywhere, watching
from tests.support.resuming import Heard, stream
from tests.support.server import quickcomm
from tests.support.site import Site

from benchmarks.editors import Editor, browser, client, judge, judge_page
from benchmarks.handover import Moves, Watcher, spread
from benchmarks.mover import LEAST, LOOK_S, Cards, Json, Mover
from benchmarks.process import below, usage
from benchmarks.shapes import Tuning, topology
from benchmarks.talkers import Talk, talk
from quickcomm.operate.up.client import topology_status

Shown = Callable[[], Awaitable[dict[str, list[str]]]]
ORDER: Final = ("dashboard", "intelligence", "audio")
"""Modules before the first of `--modules` are moved without faults."""
LENGTHS_S: Final = (60.0, 20.0, 150.0)
"""Of conversations, in turn."""
PAUSE_S: Final = (2.0, 6.0)
"""Between what one talker says: half of the time is talk."""
EDIT_EVERY_S: Final = (5.0, 15.0)
READERS: Final = 2
"""Of the editors, so many also poll a list each second, as a program does."""
WARMING_S: Final = 45.0
"""Until the burst of the undisturbed run is through, and each process has loaded what it needs."""
SETTINGS: Final = {
    "QUICKCOMM_TRAFFIC_ANSWER_MS": "3000",
    **{f"QUICKCOMM_BUDGETS_{stage}": "3000" for stage in ("QUEUE", "CLASSIFY", "STORE", "PUSH", "TOTAL")},
}
"""On two full cores a service yields to audio, and is late for no fault of its own."""
FINDINGS: Final = 12
"""Of the checker, so many lines are told."""
STALL_S: Final = 0.3
YIELDING: Final = 5
"""The nice value of the clients, which are on other machines in earnest, and must send in time."""
WRONG_MIND: Final = Path(__file__).parent / "wrong_mind"


async def hang(mover: Mover, name: str) -> None:
    """Stop the process of the candidate with SIGSTOP, and wait for the rollback."""
    pid = await asyncio.to_thread(mover.pid, name)
    os.kill(pid, signal.SIGSTOP)
    try:
        await mover.until_back(name, "hangs", time.monotonic())
    finally:
        os.kill(pid, signal.SIGCONT)


async def falsify(site: Site, mover: Mover) -> None:
    """Change the assignee of each task in the database of the candidate, and wait for the rollback."""

    def write() -> None:
        with contextlib.closing(sqlite3.connect(site.layout.directory.dashboard.database, timeout=30)) as database:
            database.execute("UPDATE dashboard_tasks SET assignee = 'nobody at all'")
            database.commit()

    await asyncio.to_thread(write)
    await mover.until_back("dashboard", "other data", time.monotonic())


async def misunderstand(mover: Mover, name: str, wrong: Path) -> None:
    """Have the candidate take everything for lost property, or mishear everything, and wait for the rollback."""
    await asyncio.to_thread(wrong.touch)
    try:
        await mover.until_back(name, "wrong answers" if name == "intelligence" else "wrong words", time.monotonic())
    finally:
        await asyncio.to_thread(wrong.unlink)


async def move(site: Site, mover: Mover, name: str, options: argparse.Namespace) -> None:
    """One module: there by every step, with faults and kills; retired; back; there again."""
    await mover.command("start", name)
    await mover.measured(f"{name} in shadow", 20.0, options.talkers)
    await mover.command("step", name, "--force")
    await mover.calm()
    stepping = asyncio.create_task(mover.command("step", name, "--force"))
    await mover.kill("traffic")
    await stepping
    await mover.up_to(name, 5_000)
    await mover.measured(f"{name} at half", 20.0, options.talkers)
    await mover.kill(name)
    await mover.calm()
    await mover.kill("monolith")
    await mover.calm()
    await mover.until_ready("monolith")
    await mover.until_ready(name)
    await mover.up_to(name, 5_000)
    await hang(mover, name)
    await mover.calm()
    await mover.command("start", name)
    await mover.up_to(name, 5_000)
    await (falsify(site, mover) if name == "dashboard" else misunderstand(mover, name, options.wrong))
    await mover.command("rollback", name)  # from the shadow: the service is stopped, and begins anew
    await mover.calm()
    await mover.command("start", name)
    await mover.up_to(name, 5_000)
    await mover.command("promote", name, "--force")
    await mover.calm()
    await mover.kill(name)
    await mover.calm()
    await mover.until_retired(name)
    await mover.calm()
    await mover.kill("monolith")
    await mover.kill("traffic")
    await mover.calm()
    await mover.command("rollback", name, "--reason", "benchmark")
    await mover.calm()
    await mover.command("start", name)
    await mover.command("promote", name, "--force")
    await mover.calm()


class Talkers:
    """All talk at once, in real time, again and again until it is over."""

    def __init__(self, site: Site, talks: list[Talk], undisturbed: list[Heard]) -> None:
        self._site = site
        self._each = list(zip(talks, undisturbed, strict=True))
        self.heard: list[tuple[Heard, Heard]] = []
        """Each conversation, and what the same sound gives undisturbed."""
        self.moves = Moves()
        self.stalls: list[float] = []
        """Seconds for which this process could not send: after one, speech that goes on is another utterance."""

    async def feel(self) -> None:
        """Note when this process did nothing for long."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(LOOK_S)
            if (late := time.monotonic() - began - LOOK_S) > STALL_S:
                self.stalls.append(round(late, 2))

    async def run(self, over: asyncio.Event) -> None:
        key = await asyncio.to_thread(self._site.key)

        async def one(said: Talk, undisturbed: Heard) -> None:
            while not over.is_set():
                watcher = Watcher(self.moves, said)
                found = await stream(self._site.url, key, said.samples.tobytes(), watcher, paced=True)
                self.heard.append((found, undisturbed))

        await asyncio.gather(*(one(*each) for each in self._each))


@asynccontextmanager
async def editors_of(site: Site, options: argparse.Namespace) -> AsyncIterator[list[Editor]]:
    """Live clients with keys of their own, so that they are spread over both sides."""
    editors = [Editor(number, options.seed, EDIT_EVERY_S) for number in range(options.editors)]
    keys = [(await asyncio.to_thread(site.new_key, "admin")).key for _ in editors]
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(client(site, key=key)) for key in keys]
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        begun = [asyncio.Event() for _ in editors]
        pairs = list(zip(editors, sessions, begun, strict=True))
        looking = [tasks.create_task(each.page.look(site, session, event)) for each, session, event in pairs]
        await asyncio.gather(*(each.wait() for each in begun))
        editing = [tasks.create_task(each.edit_forever(session)) for each, session, _ in pairs]
        reading = [tasks.create_task(read_forever(session)) for session in sessions[:READERS]]
        yield editors
        for task in (*editing, *reading, *looking):
            task.cancel()


async def read_forever(session: Any) -> None:
    """A program that polls a list, as some do."""
    while True:
        await asyncio.sleep(1.0)
        with contextlib.suppress(Exception):
            async with session.get("/v1/tasks", params={"limit": "50"}) as answer:
                await answer.read()


async def move_all(site: Site, mover: Mover, delays: Cards, options: argparse.Namespace) -> Json:
    """Measure it as it is, then move all modules; return the memory of processes before and afterwards."""
    await asyncio.sleep(WARMING_S)
    delays.phase = "before"
    memory = {"before": await asyncio.to_thread(memory_mb, site)}
    await asyncio.sleep(max(0.0, options.before - 20))
    await mover.measured("before", 20.0, options.talkers)
    modules = options.modules.split(",")
    for name in ORDER[: ORDER.index(modules[0])]:
        await mover.command("start", name)
        await mover.command("promote", name, "--force")
    for name in modules:
        delays.phase = f"while {name} moves"
        await move(site, mover, name, options)
    return memory | {"at the end": await asyncio.to_thread(memory_mb, site)}


@asynccontextmanager
async def yielding_browser(site: Site) -> AsyncIterator[Shown | None]:
    """As `browser`, where Chromium yields to all of the site."""
    before = below(os.getpid())
    async with browser(site) as shown:
        for process in below(os.getpid()) - before:
            os.setpriority(os.PRIO_PROCESS, process, YIELDING + LEAST)
        yield shown


def checked(site: Site, *flags: str) -> list[str]:
    """Return the first findings of `quickcomm check`, and its last line."""
    found = quickcomm("check", *flags, "--data-dir", str(site.data_dir), timeout=300, statuses=(0, 1, 2)).strip()
    return [*found.splitlines()[:-1][:FINDINGS], found.splitlines()[-1]]


async def measure(site: Site, options: argparse.Namespace) -> Json:
    lengths = (LENGTHS_S[each % len(LENGTHS_S)] for each in range(options.talkers))
    talks = [talk(each, seconds, PAUSE_S) for each, seconds in enumerate(lengths)]
    key = await asyncio.to_thread(site.key)
    undisturbed = await asyncio.gather(*(stream(site.url, key, each.samples.tobytes()) for each in talks))
    delays, over, people = Cards(), asyncio.Event(), Talkers(site, talks, undisturbed)
    mover = Mover(site, options.pause, delays)
    async with AsyncExitStack() as stack:
        cards = await stack.enter_async_context(watching(site))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        shown = await stack.enter_async_context(yielding_browser(site))
        editors = await stack.enter_async_context(editors_of(site, options))
        looking = tasks.create_task(delays.watch(cards))
        talking = tasks.create_task(people.run(over))
        feeling = tasks.create_task(people.feel())
        print("People talk and edit.", file=sys.stderr)
        memory = await move_all(site, mover, delays, options)
        over.set()
        await talking
        feeling.cancel()
        print("All of it is over; now it is compared.", file=sys.stderr)
        await asyncio.to_thread(site.wait_ready)
        toll = Toll(seed=options.seed, kills=mover.kills)
        for now, calm in people.heard:
            count(toll, now, calm)
        await seen_everywhere(site, toll, [now for now, _ in people.heard], cards)
        verdict = await judge(site, editors)
        if shown is not None:
            verdict |= await judge_page(site, shown)
        looking.cancel()
    return {
        "conversations": toll.conversations,
        "utterances": toll.utterances,
        "faults": toll.faults,
        "kills": mover.kills,
        "stalls_of_the_clients_s": sorted(people.stalls)[-FINDINGS:],
        "candidates": mover.faults,
        "commands": mover.commands,
        "cards": delays.told(),
        "cpu_a_second_of_sound": mover.cpu,
        "reconnect_to_ready": spread(people.moves.ready),
        "reconnect_to_words": spread(people.moves.words),
        "reconnect_to_words_in_mid_speech": spread(people.moves.words_talking),
        "memory_mb": memory,
        "both_sides": await asyncio.to_thread(checked, site, "--sides"),
        "check": await asyncio.to_thread(checked, site),
        **verdict,
    }


def memory_mb(site: Site) -> dict[str, int]:
    """Resident memory of each process of the site."""
    rows = topology_status(site.data_dir) or []
    return {row["process"]: round(usage(row["pid"]).rss_mb) for row in rows if row["pid"]}


def _planted(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Have all processes load the fault, which is there while a file exists."""
    options.wrong = folder / "wrong"
    return {"PYTHONPATH": str(WRONG_MIND), "BENCH_WRONG": str(options.wrong)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", default="dashboard,intelligence", help="in their order")
    parser.add_argument("--talkers", type=int, default=16)
    parser.add_argument("--editors", type=int, default=20)
    parser.add_argument("--pause", type=float, default=6.0, help="seconds between two steps")
    parser.add_argument("--before", type=float, default=60.0, help="seconds that are measured before anything moves")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        topology("monolith", Tuning(settings=SETTINGS | _planted(options, Path(folder)))) as site,
    ):
        os.nice(YIELDING)
        rows = asyncio.run(measure(site, options))
    for name, value in rows.items():
        print(f"{name:34} {json.dumps(value) if isinstance(value, dict | list) else value}")
    print(json.dumps({"what": "migrate", "seed": options.seed, **rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
