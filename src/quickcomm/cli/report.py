"""`quickcomm report`: the shift in a few sentences and what is still open, from the running server."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from quickcomm.cli.options import json_option, print_rows, server_option
from quickcomm.contracts.commands import GetReport
from quickcomm.operate.administration import administer

HOUR_NS: Final = 3_600 * 10**9
MAX_HOURS: Final = 31 * 24 - 1


@click.command("report")
@click.option(
    "--since", type=click.IntRange(1, MAX_HOURS), default=8, show_default=True, help="From so many hours ago."
)
@click.option("--site", default="main", show_default=True, help="Whose shift.")
@server_option
@json_option
def report_command(since: int, site: str, data_dir: Path, *, as_json: bool) -> None:
    """What came in, what is open and what was slow. With --json all of it, as GET /v1/reports/shift gives it."""
    request = GetReport(since_ns=time.time_ns() - since * HOUR_NS, site=site)
    rows = asyncio.run(administer(data_dir, request, needs_server=True))
    if as_json:
        print_rows(rows, as_json=True, columns=(), empty="")
        return
    [report] = rows
    click.echo(report["narrative"]["text"])
    if report["open"]:
        click.echo()
        columns = ("said", "department", "urgency", "rooms", "what", "status")
        print_rows([_open(one["task"]) for one in report["open"]], as_json=False, columns=columns, empty="")


def _open(task: dict[str, Any]) -> dict[str, Any]:
    said = datetime.fromisoformat(task["created_at"]).astimezone(UTC)
    return {
        "said": said.strftime("%Y-%m-%d %H:%MZ"),
        "department": task["department"],
        "urgency": task["urgency"],
        "rooms": ", ".join(task["rooms"]) or "-",
        "what": task["summary"],
        "status": task["status"],
    }
