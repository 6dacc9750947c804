"""`quickcomm prompts`: prompt versions are looked at, evaluated, deployed and taken back while the site runs."""

import asyncio
import contextlib
import getpass
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from quickcomm.cli.options import json_option, print_rows, server_option
from quickcomm.cli.prompt_report import report
from quickcomm.contracts.commands import (
    AuditPrompts,
    Command,
    DeployPrompt,
    EvaluatePrompt,
    GetProgress,
    ListPrompts,
    RollBackPrompt,
    ShowPrompt,
)
from quickcomm.kernel.errors import ConfigurationError, InvalidInputError, QuickCommError
from quickcomm.operate.administration import administer

Rows = list[dict[str, Any]]
POLL_S: Final = 0.5
MAX_FILE: Final = 65_536
FULL: Final = 100


@click.group("prompts")
def prompts_group() -> None:
    """Prompt versions: what the language model is told, changed in seconds and with a way back.

    A version is a TOML file with an id made from its content. The usual way:

    \b
      quickcomm prompts show live > mine.toml     # begin with what is live, and edit it
      quickcomm prompts evaluate mine.toml        # score it against the live version
      quickcomm prompts deploy mine.toml --canary 10
      quickcomm prompts deploy mine.toml          # on all conversations
      quickcomm prompts rollback                  # back to the version before

    A deployment is in force within seconds; nothing restarts and no conversation is disturbed. It is refused unless an
    evaluation found the version as good as the live one, or --force is given. The audit keeps who did what, when and on
    what evidence. See docs/change-a-prompt.md.
    """  # noqa: D301 - click wants the character itself


def _ask(data_dir: Path, request: Command) -> Rows:
    return asyncio.run(administer(data_dir, request))


@prompts_group.command("list")
@server_option
@json_option
def list_command(data_dir: Path, *, as_json: bool) -> None:
    """All versions, newest first, and which of them conversations have now. Works without a server, too."""
    rows = _ask(data_dir, ListPrompts())
    columns = ("id", "name", "state", "weight", "added_at", "added_by", "note")
    print_rows(rows, as_json=as_json, columns=columns, empty="No prompts.")
    for problem in {row["problem"] for row in rows if row["problem"]}:
        click.echo(f"WARNING: {problem}", err=True)


@prompts_group.command("show")
@click.argument("name", metavar="[ID|live|canary|built-in]", default="live")
@server_option
@json_option
def show_command(name: str, data_dir: Path, *, as_json: bool) -> None:
    """The file of a version, to look at or to begin a new one with. The beginning of an id is enough."""
    [row] = rows = _ask(data_dir, ShowPrompt(prompt=name))
    if as_json:
        print_rows(rows, as_json=True, columns=(), empty="")
        return
    click.echo(f"{row['id']} {row['name']}", err=True)
    click.echo(row["source"], nl=not row["source"].endswith("\n"))


@prompts_group.command("audit")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many entries.")
@server_option
@json_option
def audit_command(limit: int, data_dir: Path, *, as_json: bool) -> None:
    """Who did what, when, on what evidence; newest first. Works without a server, too."""
    rows = _ask(data_dir, AuditPrompts(limit=limit))
    if not as_json:
        rows = [{**row, "evidence": _evidence(row["evidence"])} for row in rows]
    columns = ("at", "by", "action", "prompt_id", "name", "weight", "against_id", "forced", "evidence", "note")
    print_rows(rows, as_json=as_json, columns=columns, empty="Nothing was done with prompts yet.")


@prompts_group.command("evaluate")
@click.argument("prompt", metavar="FILE|ID")
@click.option(
    "--set",
    "labelled",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Labelled phrases to judge by, JSONL like the pack's phrases.jsonl [default: a part of the pack's phrases].",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=200,
    show_default=True,
    help="Without --set: how many of the pack's phrases; the same ones every time.",
)
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Calls at the same time.")
@click.option("--disagreements", type=int, default=10, show_default=True, help="Show so many cases of disagreement.")
@server_option
@json_option
def evaluate_command(
    prompt: str,
    labelled: Path | None,
    limit: int,
    concurrency: int,
    disagreements: int,
    data_dir: Path,
    *,
    as_json: bool,
) -> None:
    """Score a version against the live one, both through the connected model, and keep the result for `deploy`.

    Fields are compared with the labels: intent, department, urgency, rooms (exactly), items (F1). A phrase that is
    judged is never among the examples that go along. Both versions ask the model for every case: this costs what that
    costs. Exits with 1 if the version falls below the live one.
    """
    name, source = _meant(prompt)
    request = EvaluatePrompt(
        prompt=name,
        source=source,
        labels=str(labelled.absolute()) if labelled is not None else None,
        limit=limit,
        concurrency=concurrency,
        by=getpass.getuser(),
        ticket=secrets.token_hex(8),
    )
    rows = asyncio.run(_evaluate(data_dir, request))
    if as_json:
        print_rows(rows, as_json=True, columns=(), empty="")
    else:
        click.echo(report(rows[0], disagreements))
    sys.exit(1 if rows[0]["comparison"]["falls_below"] else 0)


@prompts_group.command("deploy")
@click.argument("prompt", metavar="FILE|ID")
@click.option(
    "--canary",
    type=click.IntRange(1, FULL - 1),
    metavar="PERCENT",
    help="Only on so many per cent of the conversations. A conversation keeps its version as the share grows.",
)
@click.option("--force", is_flag=True, help="Without the evidence of an evaluation; the audit says so.")
@server_option
@json_option
def deploy_command(prompt: str, canary: int | None, data_dir: Path, *, force: bool, as_json: bool) -> None:
    """Put a version in force, on all conversations or on a share of them.

    Refused where its newest evaluation falls below the live version, is against another one than is live now, or is
    missing.
    """
    name, source = _meant(prompt)
    request = DeployPrompt(prompt=name, source=source, weight=canary or FULL, force=force, by=getpass.getuser())
    _print_done(_ask(data_dir, request), as_json=as_json)


@prompts_group.command("rollback")
@server_option
@json_option
def rollback_command(data_dir: Path, *, as_json: bool) -> None:
    """Take back the canary; where there is none, go back to the version that was live before. Needs no evidence."""
    _print_done(_ask(data_dir, RollBackPrompt(by=getpass.getuser())), as_json=as_json)


def _meant(prompt: str) -> tuple[str, str | None]:
    """Return the name and the text of a file that exists; anything else is the id of a version."""
    path = Path(prompt)
    if not path.is_file():
        if path.suffix == ".toml" or "/" in prompt:
            raise InvalidInputError(f"There is no file {prompt}.")
        return prompt, None
    try:
        if path.stat().st_size > MAX_FILE:
            raise InvalidInputError(f"{prompt}: a prompt file has at most {MAX_FILE:,} bytes.")
        return prompt, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{prompt} cannot be read: {error}") from error


async def _evaluate(data_dir: Path, request: EvaluatePrompt) -> Rows:
    """The one long call, and beside it questions how far it is."""
    rows: Rows = []
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch(data_dir, request.ticket))
            rows = await administer(data_dir, request, needs_server=True, timeout_s=None)
            watching.cancel()
    except* QuickCommError as errors:
        raise errors.exceptions[0] from None
    return rows


async def _watch(data_dir: Path, ticket: str) -> None:
    shown = 0
    while True:
        await asyncio.sleep(POLL_S)
        with contextlib.suppress(QuickCommError):  # the long call itself tells what is wrong
            [row] = await administer(data_dir, GetProgress(ticket=ticket), needs_server=True)
            if row["done"] > shown:
                shown = row["done"]
                click.echo(f"{shown} of {row['total']} answers", err=True)


def _evidence(evidence: dict[str, Any] | None) -> str | None:
    if evidence is None:
        return None
    candidate, live = evidence["candidate"], evidence["live"]
    return f"{candidate['score']:.1%}, live {live['score']:.1%}, {candidate['cases']} cases"


def _print_done(rows: Rows, *, as_json: bool) -> None:
    columns: Sequence[str] = ("action", "prompt_id", "weight", "against_id", "forced", "note")
    print_rows(rows, as_json=as_json, columns=columns, empty="")
