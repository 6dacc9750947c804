"""The manager's page in a real Chromium: misplaced clicks, moving cards, false alarms, and a complete board.

`python -m benchmarks.page [--only clicks,alarms,load,shift,full] [--open 239,1000] [--loads 5] [--quick]`.

*clicks*: the mouse clicks twice on a *Done* without moving, 120, 350 and 800 ms apart, in each section; how many
tasks are closed then. All cards of a section have the same height there, so that the next button comes to lie where
the clicked one was. *shift*: the demo's shift (three minutes, real speech) before an empty board at 1440x900:
layout shifts without a pointer, and how often the card under a resting pointer became another one in 100 s. *full*:
the same before a board with 40 open tasks, for two minutes. *alarms*: nobody speaks, 340 cards, three pages are
opened one after another; what they say about lateness, and how many paint times the server counts for it.
*load*: milliseconds from the start of the navigation until the board shows all open tasks, requests, bytes, heap.

Each part has a server and a data directory of its own, filled by the dashboard's projector. Loads come from one
signed-in browser, so scripts are in its cache. `--quick`: the first 60 s of the shift, one gap, two loads.
The same program runs on any checkout: it knows the page by its `data-testid`s and counts closed tasks by REST.
Exit status 1 if a figure misses its aim.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser

from benchmarks.board import ALIKE
from benchmarks.page_browser import browsers, site
from benchmarks.page_parts import (
    ALARMS_S,
    GAPS_MS,
    UNDO_S,
    Alarms,
    Clicks,
    Load,
    Moved,
    alarms,
    clicks,
    loads,
    moved,
)

QUIET_SITE: Final = 239
CLICKED_SITE: Final = 100
FULL_BOARD: Final = 40
FULL_S: Final = 120.0
QUICK_S: Final = 60.0
PAGES: Final = 3
GOOD_SHIFT: Final = 0.1
"""What web.dev calls a good layout shift."""
COMPLETE_MS: Final = 1_000


@dataclass(kw_only=True)
class Run:
    """The options, the browser, and what has been found until now."""

    browser: Browser
    folder: Path
    quick: bool
    open_tasks: tuple[int, ...]
    loads: int
    found: dict[str, Any] = field(default_factory=dict)
    load_average: dict[str, list[float]] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def room(self, name: str) -> Path:
        """Make a folder for the server of a part."""
        room = self.folder / name
        room.mkdir()
        return room

    def aim(self, what: str, *, met: bool) -> str:
        """Note whether a figure meets its aim; return the mark for the table."""
        if met:
            return ""
        self.missed.append(what)
        return "  ✗"


async def measure_clicks(run: Run) -> None:
    async with site(run.browser, run.room("clicks"), CLICKED_SITE, ALIKE) as here:
        rows: list[Clicks] = await clicks(here, GAPS_MS[:1] if run.quick else GAPS_MS, UNDO_S)
    print(f"{'two clicks on Done':22}{'section':>10}{'gap ms':>8}{'closed':>8}   second click met   (aim: 1 closed)")
    for row in rows:
        mark = run.aim(f"clicks {row.wanted_ms} {row.section}", met=row.closed == 1)
        told = f"{row.wanted_ms} ms apart"
        print(f"{told:22}{row.section:>10}{row.gap_ms:>8.0f}{row.closed:>8}   {row.under_second}{mark}")
    run.found["clicks"] = [asdict(row) for row in rows]


async def measure_alarms(run: Run) -> None:
    async with site(run.browser, run.room("alarms"), QUIET_SITE) as here:
        row: Alarms = await alarms(here, PAGES, ALARMS_S)
    each = " · ".join(str(len(codes)) for codes in row.each_page)
    mark = run.aim("alarms", met=row.worst == 0)
    print(f"{'quiet site, ' + str(row.cards) + ' cards':34}{'found':>14}   aim")
    print(f"{'alarms about lateness, each page':34}{each:>14}   0{mark}")
    counted = "-" if row.painted_counted is None else str(row.painted_counted)
    mark = run.aim("painted", met=(row.painted_sent if row.painted_counted is None else row.painted_counted) == 0)
    print(f"{'paint times counted by the server':34}{counted:>14}   0{mark}")
    print(f"{'paint times sent by the pages':34}{row.painted_sent:>14}")
    print("".join(f"    {text}\n" for text in row.texts), end="")
    run.found["alarms"] = asdict(row)


async def measure_loads(run: Run) -> None:
    run.found["load"] = {}
    for open_tasks in run.open_tasks:
        async with site(run.browser, run.room(f"load-{open_tasks}"), open_tasks) as here:
            rows = await loads(here, open_tasks, run.loads)
        tell_loads(run, open_tasks, here.cards, rows)
        run.found["load"][str(open_tasks)] = {"cards": here.cards, "loads": [asdict(row) for row in rows]}


def tell_loads(run: Run, open_tasks: int, cards: int, rows: Sequence[Load]) -> None:
    name = f"{len(rows)} loads, {open_tasks} open of {cards} cards"
    print(f"{name:34}{'min':>10}{'median':>10}{'max':>10}   aim")

    def line(what: str, values: Sequence[float | None], aim: str = "", *, met: bool = True) -> None:
        mark = run.aim(f"load {open_tasks}: {what}", met=met)
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            aim += f" (never in {len(values) - len(known)} of {len(values)})"
        three = (min(known), statistics.median(known), max(known)) if known else ()
        numbers = "".join(f"{value:>10,.0f}" if value >= 100 else f"{value:>10.4g}" for value in three) or f"{'-':>30}"
        print(f"{what:34}{numbers}   {aim}{mark}".rstrip())

    complete = [row.complete_ms for row in rows]
    line("first contentful paint, ms", [row.first_paint_ms for row in rows])
    line("first card, ms", [row.first_card_ms for row in rows])
    line("open tasks shown in the end", [row.open_shown for row in rows], f"{open_tasks}")
    in_time = all(value is not None and value <= COMPLETE_MS for value in complete)
    line("number of open tasks right, ms", complete, f"≤ {COMPLETE_MS:,}", met=in_time)
    line("last change on the board, ms", [row.settled_ms for row in rows])
    line("times that number changed", [row.count_changes for row in rows])
    line("times the cards changed", [row.card_changes for row in rows])
    line("requests", [row.requests for row in rows])
    line("kB over HTTP", [row.http_bytes / 1e3 for row in rows])
    line("kB over the WebSocket, unpacked", [row.websocket_bytes / 1e3 for row in rows])
    line("JS heap, MB", [row.heap_mb for row in rows])
    line("script, kB", [row.script_bytes / 1e3 for row in rows])
    gzipped = [row.script_gzip_bytes / 1e3 for row in rows]
    line("script gzipped, kB", gzipped, "≤ 150", met=max(gzipped) <= 150)


async def measure_shift(run: Run) -> None:
    await _moved(run, "shift", 0, QUICK_S if run.quick else None)


async def measure_full(run: Run) -> None:
    await _moved(run, "full", FULL_BOARD, QUICK_S if run.quick else FULL_S)


async def _moved(run: Run, name: str, open_tasks: int, seconds: float | None) -> None:
    async with site(run.browser, run.room(name), open_tasks) as here:
        row: Moved = await moved(here, seconds)
    print(f"{row.seconds:.0f} s of the demo's shift, {open_tasks} open tasks before it")
    print(f"  layout shifts, no pointer: {row.shifts}, sum {row.shift_sum} ({row.shift_sum_90_s} in the first 90 s)")
    mark = run.aim(f"{name}: worst layout shift", met=row.worst <= GOOD_SHIFT)
    print(f"  worst {row.worst} at {row.worst_at_s} s, of {', '.join(row.worst_moved)}   aim ≤ {GOOD_SHIFT}{mark}")
    for one in row.pointers:
        what = "pointer rests" if one.resting else "no pointer, same point"
        mark = run.aim(f"{name}: pointer in {one.column}", met=one.other_card == 0 or not one.resting)
        aim = "   aim 0" if one.resting else ""
        told = f"  {one.column + ', ' + what:36}another card {one.other_card} times, none {one.no_card} times"
        print(f"{told} in {one.seconds:.0f} s ({one.samples} looks){aim}{mark}")
    total = sum(one.other_card for one in row.pointers if one.resting)
    print(f"  both pointers together: another card {total} times")
    if not row.pointers:
        print("  no card with a button came in time: pointers were not measured")
    run.found[name] = asdict(row)


PARTS: Final[dict[str, Callable[[Run], Awaitable[None]]]] = {
    "clicks": measure_clicks,
    "alarms": measure_alarms,
    "load": measure_loads,
    "shift": measure_shift,
    "full": measure_full,
}


async def measure(arguments: argparse.Namespace, names: Sequence[str], folder: Path) -> int:
    async with browsers() as browser:
        run = Run(
            browser=browser,
            folder=folder,
            quick=arguments.quick,
            open_tasks=tuple(int(number) for number in arguments.open.split(",")),
            loads=2 if arguments.quick else arguments.loads,
        )
        for name in names:
            before = os.getloadavg()[0]
            await PARTS[name](run)
            run.load_average[name] = [round(before, 2), round(os.getloadavg()[0], 2)]
            print(f"  (load of the machine {before:.1f} before, {os.getloadavg()[0]:.1f} after)\n", flush=True)
        version = browser.version
    facts = {"chromium": version, "cores": os.cpu_count(), "quick": run.quick, "load_average": run.load_average}
    print(json.dumps({**facts, "missed": run.missed, **run.found}))
    return 1 if run.missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--open", default=f"{QUIET_SITE},1000", help="numbers of open tasks to load")
    parser.add_argument("--loads", type=int, default=5, help="of each number")
    parser.add_argument("--quick", action="store_true", help="less of each, for a first look")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"unknown parts: {', '.join(unknown)}. There are {', '.join(PARTS)}.")
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(arguments, names, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
