"""`quickcomm simulate` against this machine: p95 and capacity, measured and simulated, with the error.

`python -m benchmarks.simulated [--talkers 4,12,20,24,32,40] [--deployments monolith,services] [--runs 3]` (needs
QUICKCOMM_SPEECH_DATA). Each number is measured as `benchmarks.capacity` does, under `quickcomm up`, in both deployments
in turn, `--runs` times; the median counts. The simulator is given when each talker speaks (from the same sound, cut by
the same voice detection), and what the load itself took of the cores; of what was measured nothing else.

p95: end of speech → utterance event. Capacity: the most talkers with p95 ≤ 2 s, between two numbers by a straight line;
for it, the numbers of `--beyond` are measured once each, up to the first that is late. `--units FILE`: unit costs
instead of the defaults. `--no-measuring` only simulates.
"""

import argparse
import asyncio
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, get_args

import msgspec

from benchmarks.capacity import LEAD_S, REACH_S, TAIL_S, Row, run_talkers, talks_of
from benchmarks.shapes import TUNED, under_up
from benchmarks.talkers import RATE, Talk
from quickcomm.audio.adapters.silero import Silero
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.model.track import Span, Track, TrackEvent
from quickcomm.audio.service.front_end import FrontEnd
from quickcomm.capacity.model.timing import Timing
from quickcomm.capacity.model.units import Deployment, UnitCosts, read_units
from quickcomm.capacity.simulation.people import Said, Scripted
from quickcomm.capacity.simulation.result import Result
from quickcomm.capacity.simulation.run import Course, simulate
from quickcomm.capacity.simulation.site import Plan
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.kernel.clock import SystemClock

Rows = dict[tuple[str, int], list[Row]]
"""By deployment and talkers."""
SEEDS: Final = 3
"""Simulations of each number; the median counts, as with what is measured."""
LOAD_CORES: Final = 0.002
"""Cores that a talker of the load takes, where nothing is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One number of talkers in one deployment. `error`: of the simulated p95 against the measured one, in percent."""

    deployment: str
    talkers: int
    measured: tuple[float, ...]
    simulated: float
    simulated_cores: float
    measured_cores: float

    @property
    def p95(self) -> float:
        return statistics.median(self.measured) if self.measured else math.nan

    @property
    def error(self) -> float:
        return 100 * (self.simulated / self.p95 - 1)


def scripts(talks: Sequence[Talk]) -> list[list[Said]]:
    """Return when each talker speaks, as voice detection cuts it."""
    spans: list[list[Span]] = [[] for _ in talks]
    front_end = FrontEnd(Silero(), SystemClock(), capacity=len(talks), snapshot_every_s=3_600.0)

    def hear_into(found: list[Span]) -> Callable[[Track, Sequence[TrackEvent]], None]:
        def hear(_: Track, events: Sequence[TrackEvent]) -> None:
            found.extend(event for event in events if isinstance(event, Span) and event.complete)

        return hear

    tracks = []
    for talk, found in zip(talks, spans, strict=True):
        track = Track(0, AudioFormat(), AudioSettings().segmenter)
        front_end.attach(track, hear_into(found))
        track.feed(talk.samples)
        track.end()
        tracks.append(track)
    while any(track.has_work for track in tracks):
        front_end.tick()
    front_end.close()
    return [_script(found) for found in spans]


def _script(spans: Sequence[Span]) -> list[Said]:
    said, at = [], 0
    for span in spans:
        said.append(Said(max(0, span.start - at) / RATE, (span.end - span.start) / RATE))
        at = span.end
    return said


def simulated(plan: Plan, said: Sequence[Sequence[Said]], seconds: float) -> Result:
    """Return the simulation with the median p95 of some seeds."""
    found = [
        simulate(msgspec.structs.replace(plan, seed=seed), Scripted(said), Course(seconds=seconds, lead_s=LEAD_S))
        for seed in range(SEEDS)
    ]
    return sorted(found, key=_p95)[SEEDS // 2]


def _p95(result: Result) -> float:
    return result.stages["heard"].p95 or math.inf


def measured(deployments: Sequence[Deployment], numbers: Sequence[int], runs: int, seconds: float) -> Rows:
    """Return the rows of each deployment and number: all numbers in both deployments in turn, `runs` times."""
    found: Rows = {}
    for run in range(runs):
        for talkers in numbers:
            for deployment in deployments:
                start = under_up(deployment, TUNED[deployment])
                row = asyncio.run(run_talkers(talkers, seconds, start=start))
                found.setdefault((deployment, talkers), []).append(row)
                print(f"run {run + 1}: {deployment:10}{talkers:>4} talkers, p95 {row.p95:.2f} s", flush=True)
    return found


def measured_beyond(deployment: Deployment, numbers: Sequence[int], seconds: float) -> Rows:
    """Return a row of each number, up to the first that is late."""
    found: Rows = {}
    for talkers in numbers:
        row = asyncio.run(run_talkers(talkers, seconds, start=under_up(deployment, TUNED[deployment])))
        found[deployment, talkers] = [row]
        print(f"beyond: {deployment:10}{talkers:>4} talkers, p95 {row.p95:.2f} s", flush=True)
        if not row.in_time:
            break
    return found


def points(options: argparse.Namespace, units: UnitCosts | None, rows: Rows) -> list[Point]:
    """Return the simulated beside the measured figures."""
    every = [*options.talkers, *options.beyond]
    said = scripts(talks_of(max(every), LEAD_S + options.seconds + TAIL_S))
    found = []
    for deployment in options.deployments:
        for talkers in every:
            own = rows.get((deployment, talkers), [])
            beside = statistics.median(row.load_cores for row in own) if own else talkers * LOAD_CORES
            timing = (units.timing if units else None) or Timing()
            plan = Plan(deployment=deployment, timing=timing, units=units, beside=beside)
            made = simulated(plan, said[:talkers], options.seconds)
            point = Point(
                deployment=deployment,
                talkers=talkers,
                measured=tuple(row.p95 for row in own),
                measured_cores=statistics.median(row.cores for row in own) if own else math.nan,
                simulated=_p95(made),
                simulated_cores=sum(made.cores.values()),
            )
            found.append(point)
            say(point)
    return found


def most(found: Sequence[tuple[int, float]]) -> float | None:
    """Return where the line through (talkers, p95) crosses `REACH_S`; None where it does not."""
    for (few, early), (many, late) in pairwise(sorted(found)):
        if early <= REACH_S < late:
            return few + (many - few) * (REACH_S - early) / (late - early)
    return None


def say(point: Point) -> None:
    print(
        f"{point.deployment:10}{point.talkers:>8}{point.p95:>12.2f}{point.simulated:>12.2f}{point.error:>+9.0f} %"
        f"{point.measured_cores:>12.2f}{point.simulated_cores:>12.2f}",
        flush=True,
    )


def capacities(found: Sequence[Point], deployment: str) -> dict[str, float | None]:
    """Return the most talkers in time, measured and simulated, and the error in percent."""
    own = [point for point in found if point.deployment == deployment]
    true = most([(point.talkers, point.p95) for point in own if point.measured])
    guess = most([(point.talkers, point.simulated) for point in own])
    error = None if true is None or guess is None else round(100 * (guess / true - 1), 1)
    print(f"{deployment:10}capacity: measured {_said(true)}, simulated {_said(guess)}, error {_said(error)} %")
    return {"measured": true, "simulated": guess, "error": error}


def _said(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


def numbers(given: str) -> list[int]:
    return sorted({int(each) for each in given.split(",") if each})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talkers", default="4,12,20,24,32,40")
    parser.add_argument("--beyond", default="48,56,64", help="for the capacity")
    parser.add_argument("--deployments", default="monolith,services")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="scored time of a measurement, after a lead of 30 s"
    )
    parser.add_argument("--units", type=Path, help="unit costs of `quickcomm bench units --json`")
    parser.add_argument("--no-measuring", action="store_true", help="simulate only")
    options = parser.parse_args()
    options.talkers, options.beyond = numbers(options.talkers), numbers(options.beyond)
    options.deployments = options.deployments.split(",")
    if unknown := set(options.deployments) - set(get_args(Deployment)):
        parser.error(f"no deployment {', '.join(unknown)}; there are: {', '.join(get_args(Deployment))}")
    units = None if options.units is None else read_units(options.units.read_bytes())
    rows = {}
    if not options.no_measuring:
        rows = measured(options.deployments, options.talkers, options.runs, options.seconds)
        for deployment in options.deployments:
            rows |= measured_beyond(deployment, options.beyond, options.seconds)
    print(
        f"{'':10}{'talkers':>8}{'measured s':>12}{'simulated s':>12}{'error':>11}{'cores meas.':>12}{'cores sim.':>12}"
    )
    found = points(options, units, rows)
    most_in_time = {deployment: capacities(found, deployment) for deployment in options.deployments}
    told = [{**asdict(point), "p95": point.p95, "error": point.error} for point in found]
    told = [{name: None if value != value else value for name, value in row.items()} for row in told]  # noqa: PLR0124
    raw = [{"deployment": key[0], "row": asdict(row)} for key, own in rows.items() for row in own]
    print(json.dumps({"points": told, "capacity": most_in_time, "measured": raw}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
