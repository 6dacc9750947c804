"""What came of a simulation: delays by stage, CPU, what was late and when, cost."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from quickcomm.capacity.simulation.events import Happening
from quickcomm.capacity.simulation.people import Calendar
from quickcomm.capacity.simulation.site import Process, Site, Utterance

REACH_S: Final = 2.0
"""An utterance that is heard later is late."""
MONTH_H: Final = 730.0


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; None where there was none."""

    count: int
    p50: float | None
    p95: float | None
    p99: float | None
    worst: float | None


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """A minute of the simulation in which something was late. `at_h`: time of day at its beginning."""

    minute: int
    at_h: float
    utterances: int
    late: int
    p95: float
    happened: tuple[str, ...]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    `stages`: `endpoint` + `wait` + `decode` + `publish` = `heard` (the utterance is known); `shown`: its card is on
    the pages; `understood`: with its insights. `cores`: cores taken, on average, by each module.
    """

    deployment: str
    seconds: float
    arrived: int
    done: int
    in_hand: int
    stages: dict[str, Delays]
    late: int
    refused: int
    """Questions that the dashboard refused."""
    late_minutes: tuple[Minute, ...]
    cores: dict[str, float]
    utilisation: float
    speech_s: float
    processes: dict[str, int]
    """At the end."""
    happened: tuple[Happening, ...]
    machine_hours_a_month: float
    cost_a_month: float | None = None
    capacity: int | None = None
    """The most talkers in time, where that was asked for."""


def delays(values: Iterable[float]) -> Delays:
    found = np.fromiter(values, float)
    if not len(found):
        return Delays(count=0, p50=None, p95=None, p99=None, worst=None)
    p50, p95, p99 = (round(float(value), 4) for value in np.quantile(found, (0.5, 0.95, 0.99)))
    return Delays(count=len(found), p50=p50, p95=p95, p99=p99, worst=round(float(found.max()), 4))


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a simulation that counts: utterances that ended from `since_s` on. `cpu_s`: used before that."""

    since_s: float
    cpu_s: dict[str, float]


def cpu(site: Site) -> dict[str, float]:
    """Return the CPU seconds so far, by module."""
    found: dict[str, float] = {}
    for process in (*site.processes, *site.gone):
        found[_name(process)] = found.get(_name(process), 0.0) + process.cpu_s
    found["edge"] = sum(edge.used[0] for edge in site.edges)
    return found


def result(
    site: Site, calendar: Calendar, happened: Sequence[Happening], scored: Scored, price: float | None
) -> Result:
    """Return what came of it. `price`: of one machine for an hour."""
    seconds = site.env.now - scored.since_s
    counted = [one for one in site.utterances if one.ended >= scored.since_s]
    heard = [(one, one.heard - one.ended) for one in counted if one.heard is not None]
    waiting = [one for one in counted if one.heard is None and site.env.now - one.ended > REACH_S]
    cores = {name: (used - scored.cpu_s.get(name, 0.0)) / seconds for name, used in cpu(site).items()}
    done = sum(one.understood is not None for one in site.utterances)
    processes: dict[str, int] = {}
    for process in site.processes:
        processes[_name(process)] = processes.get(_name(process), 0) + 1
    hours = MONTH_H * site.plan.hosts
    return Result(
        deployment=site.plan.deployment,
        seconds=seconds,
        arrived=len(site.utterances),
        done=done,
        in_hand=len(site.utterances) - done,
        stages=_stages(counted, site),
        late=sum(delay > REACH_S for _, delay in heard) + len(waiting),
        refused=site.refused,
        late_minutes=tuple(_late_minutes(heard, calendar, happened)),
        cores={name: round(value, 3) for name, value in cores.items()},
        utilisation=round(sum(cores.values()) / (site.plan.hosts * site.plan.cores), 3),
        speech_s=round(sum(one.seconds for one in counted), 1),
        processes=processes,
        happened=tuple(happened),
        machine_hours_a_month=hours,
        cost_a_month=None if price is None else round(hours * price, 2),
    )


def _name(process: Process) -> str:
    return process.modules[0] if len(process.modules) == 1 else "monolith"


def _stages(counted: Sequence[Utterance], site: Site) -> dict[str, Delays]:
    def between(first: str, last: str) -> Delays:
        pairs = ((getattr(one, first), getattr(one, last)) for one in counted)
        return delays(end - begin for begin, end in pairs if begin is not None and end is not None)

    return {
        "endpoint": between("ended", "closed"),
        "wait": delays(one.queued_s for one in counted if one.decoded is not None),
        "decode": delays(
            one.decoded - one.closed - one.queued_s
            for one in counted
            if one.decoded is not None and one.closed is not None
        ),
        "publish": between("decoded", "heard"),
        "heard": between("ended", "heard"),
        "shown": between("ended", "shown"),
        "understood": between("ended", "understood"),
        "query": delays(site.queries),
    }


def _late_minutes(
    heard: Sequence[tuple[Utterance, float]], calendar: Calendar, happened: Sequence[Happening]
) -> Iterable[Minute]:
    minutes: dict[int, list[float]] = {}
    for one, delay in heard:
        minutes.setdefault(int(one.ended // 60), []).append(delay)
    for minute, found in sorted(minutes.items()):
        late = sum(delay > REACH_S for delay in found)
        if late:
            yield Minute(
                minute=minute,
                at_h=round(calendar.at(minute * 60.0), 3),
                utterances=len(found),
                late=late,
                p95=round(float(np.quantile(found, 0.95)), 3),
                happened=tuple(each.what for each in happened if minute * 60 - 60 <= each.at_s < minute * 60 + 60),
            )
