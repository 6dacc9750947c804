"""Monolith (under `up`) and services, taking turns: who serves more talkers in time, and what a second of speech costs.

`python -m benchmarks.compare [--quick] [--loads audio,audio+llm,rush] [--seconds 60]` (needs QUICKCOMM_SPEECH_DATA).
Same cores, audio, speech model and fake language model (median 0.8 s, p99 2.5 s) for both; each measurement is a site
of its own. *audio*: talk and one page. *audio+llm*: with the language model. *rush*: that, 200 queries a second and 50
pages with the captions of all channels.

For each load both go up in steps, A B A B, to the most talkers with p95 (end of speech → utterance) ≤ 2 s: each number
twice, a third time where the two do not agree. Three figures tell how far the noise goes: `surely` (no measurement
failed up to here), `most` (two of three), `perhaps` (one went well here). CPU is that of all processes of a side,
Envoy, Valkey and `up` included, against the speech heard; the load comes from the same cores: `load cores`.

`--set SHAPE:NAME=VALUE` sets an environment variable for one shape, `--processes MODULE=N` has more of a module.
`--quick` is a trial: one short measurement of each number. Its figures are no result.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from benchmarks.capacity import LEAD_S, Row, run_talkers
from benchmarks.house import fake_llm
from benchmarks.most import Search
from benchmarks.rush import LOADS, MODEL, Load, Queries, beside
from benchmarks.shapes import TUNED, Tuning, under_up

SHAPES: Final = ("monolith", "services")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how often. `steps`: first number of talkers, step, finest step."""

    seconds: float
    lead: float
    steps: tuple[int, int, int]
    runs: int
    most_runs: int


FULL: Final = Plan(seconds=60.0, lead=LEAD_S, steps=(16, 16, 4), runs=2, most_runs=24)
QUICK: Final = Plan(seconds=10.0, lead=5.0, steps=(4, 8, 8), runs=1, most_runs=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measurement. Its `row.load_cores` is what the talkers, queries and pages took themselves."""

    shape: str
    row: Row
    queries: dict[str, Any]


@dataclass(slots=True)
class Side:
    """One shape under one load."""

    shape: str
    search: Search
    measured: list[Measured] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        most = {name: getattr(self.search, name) for name in ("surely", "most", "perhaps")}
        return {**most, "measured": [asdict(each) for each in self.measured]}

    def cpu(self, talkers: int) -> float:
        """Seconds a second of speech, at so many talkers: the median."""
        found = [each.row.cpu for each in self.measured if each.row.talkers == talkers]
        return statistics.median(found) if found else math.nan

    def parts(self, talkers: int) -> str:
        """Where the cores went, at so many talkers: medians."""
        found = [each.row.parts for each in self.measured if each.row.talkers == talkers]
        cores = {name: statistics.median(each[name] for each in found) for name in (found[0] if found else ())}
        most_first = sorted(cores.items(), key=lambda each: -each[1])
        return ", ".join(f"{name} {taken:.2f}" for name, taken in most_first)


async def measure(shape: str, load: Load, talkers: int, plan: Plan, tuning: Tuning) -> Measured:
    queries = Queries()
    async with contextlib.AsyncExitStack() as around:
        flags: tuple[str, ...] = ()
        if load.model:
            fake = await around.enter_async_context(fake_llm(**MODEL))
            flags = ("--llm-url", fake.url)
        row = await run_talkers(
            talkers,
            plan.seconds,
            lead=plan.lead,
            start=under_up(shape, tuning, *flags),
            beside=beside(load, queries),
        )
    return Measured(shape=shape, row=row, queries=queries.told() if load.queries else {})


def compare(load: Load, plan: Plan, tuned: dict[str, Tuning]) -> dict[str, Side]:
    """Both sides in turn, until each has found its most."""
    first, step, finest = plan.steps
    sides = {shape: Side(shape, Search(first, step, finest, plan.runs, plan.most_runs)) for shape in SHAPES}
    heading(load)
    while any(side.search.next() is not None for side in sides.values()):
        for side in sides.values():
            talkers = side.search.next()
            if talkers is None:
                continue
            one = asyncio.run(measure(side.shape, load, talkers, plan, tuned[side.shape]))
            side.search.note(talkers, one.row.in_time)
            side.measured.append(one)
            say(one)
    return sides


def heading(load: Load) -> None:
    others = f"{load.queries:.0f} queries a second, {load.pages + 1} pages"
    print(f"\n-- {load.name}: {others}; load average {os.getloadavg()[0]:.1f}")
    print(
        f"{'':10}{'talkers':>8}{'p50 s':>7}{'p95 s':>7}{'card p50':>10}{'card p95':>10}{'CPU/speech':>12}{'cores':>7}"
        f"{'RSS MB':>8}{'WER %':>7}{'late by':>9}{'query p95':>11}{'load cores':>12}",
        flush=True,
    )


def say(one: Measured) -> None:
    row, asked = one.row, one.queries.get("query_p95_ms")
    print(
        f"{one.shape:10}{row.talkers:>8}{row.p50:>7.2f}{row.p95:>7.2f}{row.card_p50:>10.2f}{row.card_p95:>10.2f}"
        f"{row.cpu:>12.4f}{row.cores:>7.2f}{row.rss_mb:>8.0f}{row.wer:>7.2f}{row.late_by:>9.2f}"
        f"{'-' if asked is None else f'{asked:.0f} ms':>11}{row.load_cores:>12.2f}"
        f"{'' if row.in_time else '  too late'}",
        flush=True,
    )


def summary(load: Load, sides: dict[str, Side], talkers: int) -> dict[str, Any]:
    """`talkers`: where both were measured, and their costs are compared."""
    one, many = (sides[shape] for shape in SHAPES)
    ratios = {
        "talkers": _ratio(many.search.most, one.search.most),
        "talkers_at_least": _ratio(many.search.surely, one.search.perhaps),
        "talkers_at_most": _ratio(many.search.perhaps, one.search.surely),
        "cpu_at": talkers,
        "cpu": _ratio(many.cpu(talkers), one.cpu(talkers)),
    }
    for side in sides.values():
        search = side.search
        print(
            f"{side.shape}: {search.most} talkers in time (surely {search.surely}, perhaps {search.perhaps}); "
            f"cores at {talkers}: {side.parts(talkers)}"
        )
    print(
        f"services ÷ monolith: talkers {_said(ratios['talkers'])} ({_said(ratios['talkers_at_least'])} … "
        f"{_said(ratios['talkers_at_most'])}), CPU a second of speech at {talkers} talkers {_said(ratios['cpu'])}",
        flush=True,
    )
    return {"load": asdict(load), "sides": {shape: side.told() for shape, side in sides.items()}, "ratios": ratios}


def _ratio(over: float, under: float) -> float | None:
    return round(over / under, 3) if under and math.isfinite(over / under) else None


def _said(ratio: float | None) -> str:
    return "not known" if ratio is None else f"{ratio:.2f}"


def tunings(settings: Sequence[str], processes: Sequence[str]) -> dict[str, Tuning]:
    """What is given on the command line, over what is known to serve each shape best."""
    found = dict(TUNED)
    for given in settings:
        shape, _, setting = given.partition(":")
        name, _, value = setting.partition("=")
        if shape not in found or not value:
            raise SystemExit(f"--set {given}: say it as SHAPE:NAME=VALUE, such as services:QUICKCOMM_STT_WORKERS=1")
        found[shape] = replace(found[shape], settings={**found[shape].settings, name: value})
    for given in processes:
        module, _, count = given.partition("=")
        if not (module and count.isdigit()):
            raise SystemExit(f"--processes {given}: say it as MODULE=N, such as audio=2")
        found["services"] = replace(found["services"], processes={**found["services"].processes, module: int(count)})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", default=",".join(LOADS), help="out of: audio, audio+llm, rush")
    parser.add_argument("--seconds", type=float, help="scored time of a measurement, after a lead of 30 s")
    parser.add_argument("--first", type=int, help="talkers to begin with")
    parser.add_argument("--set", action="append", default=[], metavar="SHAPE:NAME=VALUE")
    parser.add_argument("--processes", action="append", default=[], metavar="MODULE=N")
    parser.add_argument("--quick", action="store_true", help="a trial: its figures are no result")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    plan = replace(plan, seconds=options.seconds or plan.seconds)
    plan = replace(plan, steps=(options.first or plan.steps[0], *plan.steps[1:]))
    tuned = tunings(options.set, options.processes)
    unknown = [name for name in options.loads.split(",") if name not in LOADS]
    if unknown:
        parser.error(f"no load {', '.join(unknown)}; there are: {', '.join(LOADS)}")
    found = {}
    for name in options.loads.split(","):
        sides = compare(LOADS[name], plan, tuned)
        found[name] = summary(LOADS[name], sides, plan.steps[0])
    told = {"quick": options.quick, "tuned": {shape: asdict(each) for shape, each in tuned.items()}, "loads": found}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
