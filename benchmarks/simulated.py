"""`quickcomm simulate` against this machine: p95 and capacity, measured and simulated, with the error.

`python -m benchmarks.simulated [--talkers 4,12,20,24,32,40] [--deployments monolith,services] [--runs 3]` (needs
QUICKCOMM_SPEECH_DATA). Each number is measured as `benchmarks.capacity` does, under `quickcomm up`, in both deployments in
turn, `--runs` times; the median counts. The simulator is given when each talker speaks (from the same sound, cut by the
same voice detection), and what the load itself took of the cores; of what was measured nothing else.

p95: end of speech → utterance event. Capacity: the most talkers with p95 ≤ 2 s, between the numbers given by a straight
line. `--units FILE`: unit costs instead of the defaults. `--no-measuring` only simulates.
"""

import argparse
import asyncio
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

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

    def hear_into(found: list[Span]) -> Any:
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
        simulate(
            Plan(deployment=plan.deployment, timing=plan.timing, units=plan.units, beside=plan.beside, seed=seed),
            Scripted(said),
            Course(seconds=seconds, lead_s=LEAD_S),
        )
        for seed in range(SEEDS)
    ]
    return sorted(found, key=lambda each: each.stages["heard"].p95 or math.inf)[SEEDS // 2]
