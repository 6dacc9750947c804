"""`quickcomm close`, `correct`, `dispatch` and `sagas`: operations over several modules."""

import asyncio
import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from quickcomm.cli.options import json_option, print_rows, server_option
from quickcomm.contracts.commands import Command
from quickcomm.contracts.correcting import CorrectUtterance
from quickcomm.contracts.operations import (
    CompensateOperation,
    GetOperation,
    ListOperations,
    ResumeOperation,
    StartOperation,
)
from quickcomm.operate.administration import administer

COLUMNS = ("id", "name", "subject", "status", "step", "started", "by", "why")


def _ask(data_dir: Path, request: Command) -> list[dict[str, Any]]:
    return asyncio.run(administer(data_dir, request, needs_server=True, timeout_s=None))


@click.command("close")
@click.argument("conversation_id")
@click.option(
    "--tasks",
    type=click.Choice(["keep", "close"]),
    default="keep",
    show_default=True,
    help="What becomes of its open tasks.",
)
@click.option("--hand-over-to", "assignee", metavar="NAME", help="Who gets its open tasks.")
@click.option("--site", default="main", show_default=True)
@server_option
@json_option
def close_command(
    conversation_id: str, tasks: str, assignee: str | None, site: str, data_dir: Path, *, as_json: bool
) -> None:
    """Close a conversation: no more sound, a final summary, off the page of what goes on.

    It is done as a whole. Exits with 1 if it is not done yet; then see: quickcomm sagas list
    """
    given: dict[str, Any] = {"conversation_id": conversation_id, "tasks": tasks}
    if assignee:
        given |= {"tasks": "hand_over", "assignee": assignee}
    [row] = _ask(data_dir, StartOperation(operation="close", site=site, by=getpass.getuser(), given=given))
    _print([row], as_json=as_json)
    sys.exit(0 if row["status"] == "done" else 1)


@click.command("correct")
@click.argument("utterance_id")
@click.option("--text", required=True, help="The correct text.")
@click.option("--site", default="main", show_default=True)
@server_option
@json_option
def correct_command(utterance_id: str, text: str, site: str, data_dir: Path, *, as_json: bool) -> None:
    """Correct a misheard utterance: its text, then its insights, card and tasks.

    Exits with 1 if it is not done yet; then see: quickcomm sagas list
    """
    [row] = _ask(data_dir, CorrectUtterance(site=site, utterance_id=utterance_id, text=text, by=getpass.getuser()))
    _print([row], as_json=as_json)
    sys.exit(0 if row["status"] == "done" else 1)


@click.command("dispatch")
@click.argument("task_id", metavar="TASK")
@click.option("--to", "assignee", metavar="NAME", required=True, help="Who gets it.")
@click.option("--expected", type=click.IntRange(0), metavar="VERSION", help="Only if the task is in this version.")
@click.option("--site", default="main", show_default=True)
@server_option
@json_option
def dispatch_command(
    task_id: str, assignee: str, expected: int | None, site: str, data_dir: Path, *, as_json: bool
) -> None:
    """Give a task to a person, and tell them through the webhook of the site (operations.webhook_url).

    Where the notice is not delivered, the task is released. Exits with 1 if the person is not told yet; then see:
    quickcomm sagas list
    """
    given = {"task_id": task_id, "assignee": assignee.strip(), "expected": expected}
    [row] = _ask(data_dir, StartOperation(operation="dispatch", site=site, by=getpass.getuser(), given=given))
    _print([row], as_json=as_json)
    sys.exit(0 if row["status"] == "done" else 1)


@click.group("sagas")
def sagas_group() -> None:
    """Operations over several modules: what is under way, and what waits for an operator."""


@sagas_group.command("list")
@click.option("--unfinished", is_flag=True, help="Only those at work, and those that are parked.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@server_option
@json_option
def sagas_list(limit: int, data_dir: Path, *, unfinished: bool, as_json: bool) -> None:
    """The newest first."""
    _print(_ask(data_dir, ListOperations(limit=limit, unfinished=unfinished)), as_json=as_json)


@sagas_group.command("show")
@click.argument("operation_id")
@server_option
@json_option
def sagas_show(operation_id: str, data_dir: Path, *, as_json: bool) -> None:
    """One with its history."""
    [row] = _ask(data_dir, GetOperation(id=operation_id))
    if as_json:
        print_rows([row], as_json=True, columns=(), empty="")
        return
    _print([row], as_json=False)
    for event in row["history"]:
        click.echo(
            "  ".join(part for part in (_time(event["at_ns"]), event["what"], event["step"], event["text"]) if part)
        )
    for step, reply in row["results"].items():
        click.echo(f"{step}: {', '.join(f'{name} {value}' for name, value in reply.items())}")
    if row["status"] == "parked":
        click.echo(
            f"Go on: quickcomm sagas resume {row['id']}. Take back: quickcomm sagas compensate {row['id']}", err=True
        )


@sagas_group.command("resume")
@click.argument("operation_id")
@server_option
@json_option
def sagas_resume(operation_id: str, data_dir: Path, *, as_json: bool) -> None:
    """Have a parked one go on where it stopped. Exits with 1 if it is parked again."""
    [row] = _ask(data_dir, ResumeOperation(id=operation_id, by=getpass.getuser()))
    _print([row], as_json=as_json)
    sys.exit(1 if row["status"] == "parked" else 0)


@sagas_group.command("compensate")
@click.argument("operation_id")
@server_option
@json_option
def sagas_compensate(operation_id: str, data_dir: Path, *, as_json: bool) -> None:
    """Take a parked one back; what cannot be taken back stays, and its history says so."""
    [row] = _ask(data_dir, CompensateOperation(id=operation_id, by=getpass.getuser()))
    _print([row], as_json=as_json)
    sys.exit(1 if row["status"] == "parked" else 0)


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if not as_json:
        rows = [row | {"started": _time(row["started_ns"])} for row in rows]
    print_rows(rows, as_json=as_json, columns=COLUMNS, empty="No operations yet.")


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
