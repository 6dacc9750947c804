"""`quickcomm check`: whether everything is there, once, on every side; and whether two dashboards are alike."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from quickcomm.cli.options import json_option, server_option
from quickcomm.kernel.checking.checker import Report
from quickcomm.kernel.checking.compare import Finding
from quickcomm.kernel.errors import QuickCommError
from quickcomm.operate import check as checking
from quickcomm.operate.servers import find_data_dir

HOUR_NS: Final = 3_600 * 10**9
SHOWN: Final = 20
"""Findings of one kind that people are shown."""
CLEAN, FOUND, NOT_CHECKED = 0, 1, 2


@click.command("check")
@click.option(
    "--since", type=click.FloatRange(min=0, min_open=True), help="Only conversations of the last so many hours."
)
@click.option("--against", metavar="URL|DIR", help="Compare the dashboard with that of another site on this machine.")
@click.option("--sides", "both", is_flag=True, help="Compare the dashboards of both sides of a migration.")
@click.option("--online", is_flag=True, help="Take a tenth of a core at most.")
@click.option(
    "--settle",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Seconds that what was just said may take.",
)
@click.option("--repair", is_flag=True, help="Replay dead letters, classify what was not, check again.")
@server_option
@json_option
def check_command(
    since: float | None,
    against: str | None,
    settle: float,
    data_dir: Path,
    *,
    both: bool,
    online: bool,
    repair: bool,
    as_json: bool,
) -> None:
    """Check that everything is there, once, on every side.

    Compares what audio, intelligence and the dashboard have: every utterance has its card and its insights, every task
    its utterance, every ledger adds up, every recording is there, no message is stuck or lies among the dead letters.
    It works while the site runs, and on the data of a stopped one. What was just said is given time to arrive
    (--settle) before it is said to be missing.

    Each finding says what is wrong, where, since when, by which event, and what to do. With --json, one object a
    finding, then one with the totals.

    \b
      quickcomm check                          all that is kept
      quickcomm check --since 1 --online       the last hour, beside a busy site
      quickcomm check --repair                 has handled again what was not
      quickcomm check --against OTHER_DIR      are two dashboards alike? counts, digests, then rows
      quickcomm check --sides                  the same, of both sides of a migration

    Exits with 0 if nothing is wrong, 1 if something is, 2 if not all could be checked. See docs/check.md.
    """  # noqa: D301 - click wants the character itself
    try:
        if both:
            report = asyncio.run(checking.compare_sides(data_dir, settle))
        else:
            report = asyncio.run(_checked(data_dir, since, against, settle, online=online, repair=repair))
    except QuickCommError as error:
        click.echo(str(error), err=True)
        sys.exit(NOT_CHECKED)
    for line in _objects(report) if as_json else _lines(report):
        click.echo(line)
    for why in dict.fromkeys(report.unavailable.values()):
        sides = ", ".join(side for side, reason in report.unavailable.items() if reason == why)
        click.echo(f"Not checked: {sides}. {why}", err=True)
    sys.exit(FOUND if report.findings else NOT_CHECKED if report.unavailable else CLEAN)


async def _checked(
    data_dir: Path, since: float | None, against: str | None, settle: float, *, online: bool, repair: bool
) -> Report:
    if against is not None:
        return await checking.compare(data_dir, _other(against), settle)
    since_ns = None if since is None else time.time_ns() - int(since * HOUR_NS)
    report = await checking.check(data_dir, since_ns=since_ns, settle_s=settle, online=online)
    if repair and (done := await checking.repair(data_dir, report)):
        for line in done:
            click.echo(line, err=True)
        await asyncio.sleep(settle)
        report = await checking.check(data_dir, since_ns=since_ns, settle_s=settle, online=online)
    return report


def _other(against: str) -> Path:
    if "://" in against:
        return find_data_dir(None, against)
    if not (path := Path(against)).is_dir():
        raise click.BadParameter(f"{against} is no data directory, and no URL.", param_hint="--against")
    return path


def _objects(report: Report) -> Iterator[str]:
    for finding in report.findings:
        row: dict[str, Any] = msgspec.to_builtins(finding)
        row["since"] = _time(row.pop("since_ns"))
        yield json.dumps(row, ensure_ascii=False)
    totals = {"utterances": report.utterances, "ranges": report.ranges, "seconds": report.seconds}
    yield json.dumps({**totals, "findings": len(report.findings), "unavailable": report.unavailable})


def _lines(report: Report) -> Iterator[str]:
    shown: Counter[str] = Counter()
    for finding in report.findings:
        shown[finding.code] += 1
        if shown[finding.code] <= SHOWN:
            yield from _told(finding)
    for code, count in shown.items():
        if count > SHOWN:
            yield f"{code}: {count - SHOWN} more; see all of them with --json"
    found = f"{len(report.findings)} findings" if report.findings else "nothing is wrong"
    found += ", as far as could be checked" if report.unavailable else ""
    yield f"{report.utterances:,} utterances compared in {report.seconds:.1f} s: {found}."


def _told(finding: Finding) -> Iterator[str]:
    yield " ".join(part for part in (f"{finding.code}:", finding.site, finding.id) if part)
    since = _time(finding.since_ns)
    told = [f"since {since}" if since else "", f"by {finding.event}" if finding.event else ""]
    yield f"    {', '.join(part for part in (*told, finding.detail) if part)}"
    if finding.repair:
        yield f"    → {finding.repair}"


def _time(at_ns: int) -> str | None:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at_ns else None
