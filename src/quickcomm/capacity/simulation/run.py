"""Runs a simulation, and looks for the most talkers that are heard in time."""

import math
from collections.abc import Callable
from typing import Final

import msgspec

from quickcomm.capacity.model.load import Load
from quickcomm.capacity.model.scaling import ScalingPolicy
from quickcomm.capacity.simulation.events import Events, Happening
from quickcomm.capacity.simulation.people import Calendar, Crowd, Day, People
from quickcomm.capacity.simulation.result import REACH_S, Result, Scored, cpu, result
from quickcomm.capacity.simulation.site import Module, Plan, Site

LEAD_S: Final = 30.0
CAPACITY_S: Final = 180.0
MOST_TALKERS: Final = 20_000

Progress = Callable[[float], None]
"""Called with the seconds simulated so far."""


def _unwatched(_seconds: float) -> None:
    """Do nothing."""


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What happens when. Times are seconds since the beginning, of the day where not all of it is simulated."""

    seconds: float
    """Of simulation, after the lead."""
    lead_s: float = LEAD_S
    """Before it; not scored."""
    calendar: Calendar = Calendar()
    burst: float = 1.0
    autoscale: ScalingPolicy | None = None
    deploys: tuple[tuple[Module, float], ...] = ()
    lost_at_s: float | None = None
    lost_for_s: float = 120.0
    price: float | None = None


def simulate(plan: Plan, crowd: Crowd, course: Course, progress: Progress = _unwatched) -> Result:
    """Return what came of it. Deterministic: the same arguments give the same result."""
    site = Site(plan)
    people = People(site, crowd, course.burst)
    events = Events(site, course.calendar)
    if course.autoscale is not None:
        events.autoscale(course.autoscale)
    for module, at_s in course.deploys:
        events.deploy(module, at_s)
    if course.lost_at_s is not None:
        events.lose_host(plan.hosts - 1, course.lost_at_s, course.lost_for_s)
    end_s, scored = course.lead_s + course.seconds, Scored(since_s=0.0, cpu_s={})
    while site.env.now < end_s:
        if site.env.now == course.lead_s:
            scored = Scored(since_s=course.lead_s, cpu_s=cpu(site))
            site.queries.clear()
        following = course.lead_s if site.env.now < course.lead_s else site.env.now + 60.0
        site.env.run(until=min(end_s, following))
        progress(site.env.now)
    bursts = [Happening(at_s, course.calendar.at(at_s), "a burst begins") for at_s in people.bursts]
    return result(site, course.calendar, sorted([*events.told, *bursts]), scored, course.price)


def capacity(plan: Plan, load: Load, progress: Callable[[int], None] | None = None) -> int:
    """Return the most talkers of whom 95 % of utterances are heard within `REACH_S`; 0: none.

    Doubles until it fails, then halves the distance, to about 5 %. `progress` is called with each number tried.
    """

    def in_time(talkers: int) -> bool:
        if progress is not None:
            progress(talkers)
        day = Day(load=load, hour=Calendar(), talkers=talkers)
        found = simulate(plan, day, Course(seconds=CAPACITY_S))
        p95 = found.stages["heard"].p95
        return p95 is not None and p95 <= REACH_S

    good, bad = 0, 4
    while bad < MOST_TALKERS and in_time(bad):
        good, bad = bad, bad * 2
    while bad - good > max(1, math.floor(good * 0.05)):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if in_time(middle) else (good, middle)
    return good
