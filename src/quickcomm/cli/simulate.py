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
    from quickcomm.capacity.simulation.result import Result
    from quickcomm.capacity.simulation.run import Course
    from quickcomm.capacity.simulation.site import Module, Plan

MODULES: "Final[tuple[Module, ...]]" = ("audio", "intelligence", "dashboard")
STEP_S: Final = 1_800.0
LOOK_S: Final = 120.0
"""Of a whole day so much of each step is simulated."""
TALK_MINUTES: Final = 10.0
HOUR_S: Final = 3_600.0
DAY_S: Final = DAY_H * HOUR_S
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
@click.option("--kill-host", "lost_at", metavar="AT", help="One machine, the last, is lost then.")
@click.option(
    "--lost-for", type=click.FloatRange(min=1), default=120.0, show_default=True, help="Seconds until it is back."
)
@click.option(
    "--deploy", "deploys", multiple=True, metavar="MODULE@AT", help="A module restarts then; a monolith as a whole."
)
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
    from quickcomm.capacity.simulation.people import Day  # noqa: PLC0415 - SimPy; not for --help
    from quickcomm.capacity.simulation.run import capacity, simulate  # noqa: PLC0415 - as above

    load = read_load(load_file.read_bytes())
    units = None if units_file is None else read_units(units_file.read_bytes())
    seen = _Progress()
    for deployment in deployments or get_args(Deployment):
        plan, course = _plan(load, units, deployment, options), _course(load, deployment, options)
        crowd = Day(load=load, hour=course.calendar, talkers=options["talkers"])
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


def _plan(load: Load, units: UnitCosts | None, deployment: Deployment, options: dict[str, Any]) -> "Plan":
    from quickcomm.capacity.simulation.site import Plan  # noqa: PLC0415 - SimPy; not for --help

    processes = [_of_module(each, "=", "--processes") for each in options["processes"]]
    return Plan(
        deployment=deployment,
        timing=(units.timing if units else None) or Timing(),
        units=units,
        hosts=options["hosts"],
        cores=options["cores"] or (units.machine.cores if units else DEFAULT_CORES),
        workers=options["workers"] or 0,
        processes={module: int(count) for module, count in processes},
        model=load.model,
        seed=options["seed"],
    )


def _course(load: Load, deployment: Deployment, options: dict[str, Any]) -> "Course":
    """Return what happens when. Raise `InvalidInputError` for what happens after the end."""
    from quickcomm.capacity.simulation.people import Calendar  # noqa: PLC0415 - as above
    from quickcomm.capacity.simulation.run import LEAD_S, Course  # noqa: PLC0415

    crowd, minutes = options["talkers"] is not None, options["minutes"]
    start_h = None if options["start"] is None else _seconds(options["start"], "--start", of_day=True) / HOUR_S
    if minutes is None and not crowd:
        calendar = Calendar(start_h=start_h or 0.0, step_s=STEP_S, look_s=LOOK_S)
        seconds, lead_s, passed_s = DAY_S / STEP_S * LOOK_S, 0.0, DAY_S
    else:
        calendar = Calendar(start_h=load.busiest.at_h if start_h is None else start_h)
        seconds, lead_s = (minutes or TALK_MINUTES) * 60.0, LEAD_S
        passed_s = lead_s + seconds

    def since(at: str, option: str) -> float:
        found = _seconds(at, option)
        if ":" in at:
            found = (found - calendar.start_h * HOUR_S) % DAY_S
        if found >= passed_s:
            raise InvalidInputError(f"{option}: it is over before that. Begin later (--start), or give more --minutes.")
        return found

    deploys = [_of_module(each, "@", "--deploy") for each in options["deploys"]]
    return Course(
        seconds=seconds,
        lead_s=lead_s,
        calendar=calendar,
        burst=1.0 if crowd else load.burst,
        autoscale=ScalingPolicy() if options["autoscale"] and deployment == "services" else None,
        deploys=tuple((module, since(at, "--deploy")) for module, at in deploys),
        lost_at_s=since(options["lost_at"], "--kill-host") if options["lost_at"] else None,
        lost_for_s=options["lost_for"],
        price=options["price"],
    )


def _seconds(at: str, option: str, *, of_day: bool = False) -> float:
    """Return the seconds of HH:MM since midnight, or of minutes since the beginning."""
    if found := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", at):
        return int(found[1]) * HOUR_S + int(found[2]) * 60.0
    if of_day or not re.fullmatch(r"\d+(\.\d+)?", at):
        also = "" if of_day else ", or minutes since the beginning, such as 5"
        raise click.BadParameter(f"{at}: say HH:MM of the day, such as 13:30{also}.", param_hint=option)
    return float(at) * 60.0


def _of_module(given: str, between: str, option: str) -> "tuple[Module, str]":
    """Return both parts of `MODULE@AT` or `MODULE=N`."""
    name, _, value = given.partition(between)
    module = next((module for module in MODULES if module == name), None)
    if module is None or not value or (between == "=" and not re.fullmatch(r"[1-9]\d{0,2}", value)):
        example = "dashboard@13:30" if between == "@" else "audio=2"
        known = ", ".join(MODULES)
        raise click.BadParameter(f"{given}: say it as {example}; the modules are {known}.", param_hint=option)
    return module, value


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
