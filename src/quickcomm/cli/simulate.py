"""`quickcomm simulate`: a site over a day, or minutes, in simulated time."""

import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import click
import msgspec

from quickcomm.capacity.model.load import DAY_H, Load, read_load
from quickcomm.capacity.model.scaling import ScalingPolicy
from quickcomm.capacity.model.timing import Timing
from quickcomm.capacity.model.units import Deployment, UnitCosts, read_units
from quickcomm.cli.options import json_option
from quickcomm.kernel.errors import InvalidInputError

if TYPE_CHECKING:
    from quickcomm.capacity.simulation.people import Day
    from quickcomm.capacity.simulation.result import Result
    from quickcomm.capacity.simulation.run import Course
    from quickcomm.capacity.simulation.site import Plan

MODULES: Final = ("audio", "intelligence", "dashboard")
STEP_S: Final = 1_800.0
LOOK_S: Final = 120.0
"""Of a whole day so much of each step is simulated."""
TALK_MINUTES: Final = 10.0
LEAD_S: Final = 30.0
"""Simulated before what is scored, where minutes are simulated in full."""
HOUR_S: Final = 3_600.0
DEFAULT_CORES: Final = 2
REACH_S: Final = 2.0
TELL_S: Final = 0.5
SHOWN: Final = 12
STAGES: Final = {
    "endpoint": "silence until it counts as over",
    "wait": "waiting for a decode worker",
    "decode": "decoding",
    "publish": "stored and published",
    "heard": "end of speech → utterance",
    "shown": "end of speech → card on the pages",
    "understood": "end of speech → insights on the pages",
    "query": "questions to the dashboard",
}


class _When(click.ParamType[tuple[bool, float]]):
    """HH:MM of the day, or minutes since the beginning. Gives `(is of the day, seconds)`."""

    name = "at"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[bool, float]:
        of_day = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", value)
        if of_day:
            return True, int(of_day[1]) * HOUR_S + int(of_day[2]) * 60.0
        if not re.fullmatch(r"\d+(\.\d+)?", value):
            self.fail(f"{value}: say HH:MM of the day, such as 13:30, or minutes from the beginning, as 5", param, ctx)
        return False, float(value) * 60.0


class _Deploy(click.ParamType[tuple[str, tuple[bool, float]]]):
    name = "module@at"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[bool, float]]:
        module, _, at = value.partition("@")
        if module not in MODULES or not at:
            self.fail(f"{value}: say it as MODULE@AT, such as dashboard@13:30; of {', '.join(MODULES)}", param, ctx)
        return module, _When().convert(at, param, ctx)


class _Processes(click.ParamType[tuple[str, int]]):
    name = "module=n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        module, _, count = value.partition("=")
        if module not in MODULES or not re.fullmatch(r"[1-9]\d{0,2}", count):
            self.fail(f"{value}: say it as MODULE=N, such as audio=2; of {', '.join(MODULES)}", param, ctx)
        return module, int(count)


FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("simulate")
@click.option("--load", "load_file", type=FILE, required=True, help="The site's day: a TOML file (docs/simulate.md).")
@click.option(
    "--units",
    "units_file",
    type=FILE,
    help="Unit costs of `quickcomm bench units --json`. [default: those of docs/benchmarks.md]",
)
@click.option(
    "--deployment",
    "deployments",
    multiple=True,
    type=click.Choice(get_args(Deployment)),
    help="[default: both, one after the other]",
)
@click.option(
    "--talkers",
    type=click.IntRange(1, 20_000),
    help="So many conversations all the time, instead of the day's curve; all else as in its busiest hour.",
)
@click.option(
    "--start",
    type=_When(),
    metavar="HH:MM",
    help="Time of day at which it begins. [default: midnight; with --minutes the busiest hour]",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.5),
    help="Simulate so many in full. [default: a whole day, two minutes of every 30; with --talkers 10]",
)
@click.option(
    "--hosts",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Machines; each has a whole monolith, or its share of the services.",
)
@click.option("--cores", type=click.IntRange(1, 256), help="Of each machine. [default: as in the unit costs, else 2]")
@click.option(
    "--processes",
    type=_Processes(),
    multiple=True,
    metavar="MODULE=N",
    help="Processes of a service. [default: 1 of each]",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), help="Decode workers in each process of audio. [default: 2 on a machine]"
)
@click.option(
    "--autoscale", is_flag=True, help="Start and stop processes of services, as `quickcomm up --autoscale` does."
)
@click.option("--kill-host", "lost_at", type=_When(), metavar="AT", help="One machine, the last, is lost then.")
@click.option(
    "--lost-for", type=click.FloatRange(min=1), default=120.0, show_default=True, help="Seconds until it is back."
)
@click.option("--deploy", "deploys", type=_Deploy(), multiple=True, metavar="MODULE@AT", help="A module restarts then.")
@click.option("--price", type=click.FloatRange(min=0), help="Of one machine for an hour, for the cost of a month.")
@click.option("--capacity", "wants_capacity", is_flag=True, help="Also look for the most talkers in time (p95 ≤ 2 s).")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same result.")
@json_option
def simulate_command(
    load_file: Path,
    units_file: Path | None,
    deployments: tuple[Deployment, ...],
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Simulate a site: how late utterances are, what is busy, what a lost host or a deploy does.

    Nothing is started and nothing is measured: the times of each step come from --units, or from the published
    figures of a machine with two cores. What is modelled and what is not: docs/simulate.md.

    \b
      quickcomm simulate --load hotel.toml                         its day, as monolith and as services
      quickcomm simulate --load hotel.toml --talkers 24            ten minutes of 24 people who talk
      quickcomm simulate --load hotel.toml --capacity              the most talkers in time
      quickcomm simulate --load hotel.toml --hosts 2 --kill-host 13:30 --deploy intelligence@15:00
      quickcomm simulate --load hotel.toml --deployment services --hosts 3 --autoscale --price 0.08

    AT is a time of day (13:30), or minutes since the beginning (5). With --json, one object for each deployment.
    """  # noqa: D301 - click wants the character itself
    from quickcomm.capacity.simulation.run import capacity, simulate  # noqa: PLC0415 - SimPy; not for --help

    load = read_load(load_file.read_bytes())
    units = None if units_file is None else read_units(units_file.read_bytes())
    seen = _Progress()
    for deployment in deployments or get_args(Deployment):
        plan, crowd, course = _built(load, units, deployment, options)
        seen.begin(deployment, course.lead_s + course.seconds)
        result = simulate(plan, crowd, course, seen.passed)
        if options["wants_capacity"]:
            most = capacity(plan, load, seen.trying)
            result = msgspec.structs.replace(result, capacity=most)
        seen.over()
        if as_json:
            click.echo(json.dumps(msgspec.to_builtins(result), ensure_ascii=False))
        else:
            _show(result)


def _built(
    load: Load, units: UnitCosts | None, deployment: Deployment, options: dict[str, Any]
) -> "tuple[Plan, Day, Course]":
    """Return what to simulate. Raise `InvalidInputError` where options contradict each other."""
    from quickcomm.capacity.simulation.people import Calendar, Day  # noqa: PLC0415 - as above
    from quickcomm.capacity.simulation.run import Course  # noqa: PLC0415
    from quickcomm.capacity.simulation.site import Plan  # noqa: PLC0415

    minutes, talkers = options["minutes"], options["talkers"]
    if minutes is None and talkers is not None:
        minutes = TALK_MINUTES
    start_s = options["start"][1] if options["start"] else None
    if minutes is None:
        calendar = Calendar(start_h=(start_s or 0.0) / HOUR_S, step_s=STEP_S, look_s=LOOK_S)
        length_s, lead_s = DAY_H * HOUR_S / STEP_S * LOOK_S, 0.0
    else:
        calendar = Calendar(start_h=load.busiest.at_h if start_s is None else start_s / HOUR_S)
        length_s, lead_s = minutes * 60.0, LEAD_S
    passed_s = DAY_H * HOUR_S if minutes is None else lead_s + length_s

    def since(at: tuple[bool, float], option: str) -> float:
        of_day, seconds = at
        found = (seconds - calendar.start_h * HOUR_S) % (DAY_H * HOUR_S) if of_day else seconds
        if found >= passed_s:
            raise InvalidInputError(f"{option}: it is over before that. Begin later (--start), or give more --minutes.")
        return found

    machine = units.machine.cores if units else DEFAULT_CORES
    plan = Plan(
        deployment=deployment,
        timing=(units.timing if units else None) or Timing(),
        units=units,
        hosts=options["hosts"],
        cores=options["cores"] or machine,
        workers=options["workers"] or 0,
        processes=dict(options["processes"]),
        model=load.model,
        seed=options["seed"],
    )
    course = Course(
        seconds=length_s,
        lead_s=lead_s,
        calendar=calendar,
        burst=load.burst if talkers is None else 1.0,
        autoscale=ScalingPolicy() if options["autoscale"] and deployment == "services" else None,
        deploys=tuple((module, since(at, "--deploy")) for module, at in options["deploys"]),
        lost_at_s=since(options["lost_at"], "--kill-host") if options["lost_at"] else None,
        lost_for_s=options["lost_for"],
        price=options["price"],
    )
    return plan, Day(load=load, hour=calendar, talkers=talkers), course


class _Progress:
    """How far it is, on a terminal; nothing in a file or a pipe."""

    def __init__(self) -> None:
        self._what, self._end_s, self._told_at = "", 1.0, 0.0
        self._shown = sys.stderr.isatty()

    def begin(self, what: str, end_s: float) -> None:
        self._what, self._end_s = what, end_s

    def passed(self, seconds: float) -> None:
        self._tell(f"{self._what}: {seconds / self._end_s:.0%}")

    def trying(self, talkers: int) -> None:
        self._tell(f"{self._what}: {talkers} talkers …")

    def over(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)

    def _tell(self, text: str) -> None:
        now = time.monotonic()
        if self._shown and now - self._told_at > TELL_S:
            self._told_at = now
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)


def _show(result: "Result") -> None:
    click.echo(f"{result.deployment}: {result.seconds / 60:.0f} minutes simulated, {result.arrived:,} utterances")
    click.echo(f"  {'seconds':38}{'p50':>8}{'p95':>8}{'p99':>8}{'worst':>8}")
    for stage, words in STAGES.items():
        found = result.stages[stage]
        if found.count:
            cells = "".join(f"{value:8.2f}" for value in (found.p50, found.p95, found.p99, found.worst))
            click.echo(f"  {words:38}{cells}")
    taken = ", ".join(f"{name} {cores:.2f}" for name, cores in result.cores.items())
    click.echo(f"  cores taken: {taken}; {result.utilisation:.0%} of all")
    if result.in_hand:
        click.echo(f"  still in hand at the end: {result.in_hand}")
    _show_late(result)
    if result.capacity is not None:
        click.echo(f"  capacity: {result.capacity} talkers with p95 of end of speech → utterance ≤ {REACH_S:g} s")
    if result.cost_a_month is not None:
        click.echo(f"  cost: {result.machine_hours_a_month:,.0f} machine-hours a month, {result.cost_a_month:,.2f}")
    click.echo()


def _show_late(result: "Result") -> None:
    for happening in result.happened[:SHOWN]:
        click.echo(f"  {_clock(happening.at_h)}  {happening.what}")
    if len(result.happened) > SHOWN:
        click.echo(f"  … and {len(result.happened) - SHOWN} more (--json has all)")
    click.echo(f"  late (> {REACH_S:g} s): {result.late} of {result.stages['heard'].count}")
    worst = sorted(result.late_minutes, key=lambda each: -each.late)[:SHOWN]
    for minute in sorted(worst, key=lambda each: each.minute):
        because = f": {'; '.join(minute.happened)}" if minute.happened else ""
        click.echo(f"    {_clock(minute.at_h)}  {minute.late} of {minute.utterances}, p95 {minute.p95:.1f} s{because}")


def _clock(hour: float) -> str:
    minutes = round(hour * 60) % (24 * 60)
    return f"{minutes // 60:02}:{minutes % 60:02}"
