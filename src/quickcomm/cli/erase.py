"""`quickcomm erase`: deletion with a receipt."""

import asyncio
import getpass
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from quickcomm.cli.options import json_option, server_option
from quickcomm.contracts.erasing import ERASE, Scope, Wanted
from quickcomm.contracts.operations import StartOperation
from quickcomm.kernel.runtime.data_directory import data_dir_flag
from quickcomm.operate.erasing import Erasing
from quickcomm.operate.erasures import Erasures, Receipt
from quickcomm.operate.operating import operate

POLL_S = 1.0
TIME = click.DateTime(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


def what_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what all commands have that erase something."""
    function = click.option("--yes", is_flag=True, help="Do not ask.")(function)
    function = click.option("--site", default="main", show_default=True, help="The site whose data it is.")(function)
    return server_option(json_option(function))


@click.group("erase")
def erase_group() -> None:
    """Delete what was said, everywhere, and show a receipt. It cannot be taken back.

    It goes through recordings, conversation logs, messages, dead letters, results, notes for summaries, answers of the
    model, cards, tasks, decisions and the search index, on all sides of a migration, running or not. What comes late,
    is replayed or restored stays erased. Ledgers, costs and other figures stay. Backups are not changed: the receipt
    lists them.

    \b
      quickcomm erase conversation shift-7
      quickcomm erase name "Maria Lopez"
      quickcomm erase time --since 2026-05-01 --until 2026-05-02

    Where a site runs, it is an operation of its own (`quickcomm sagas list`): cut off, it goes on by itself.

    With --json, one object a receipt. See docs/erase.md.
    """  # noqa: D301 - click wants the character itself


@erase_group.command("conversation")
@click.argument("conversation_id")
@what_options
def erase_conversation(conversation_id: str, site: str, data_dir: Path, *, yes: bool, as_json: bool) -> None:
    """Erase all of one conversation. One that goes on ends."""
    _erase(Wanted(site=site, conversation=conversation_id), data_dir, yes=yes, as_json=as_json)


@erase_group.command("name")
@click.argument("name")
@what_options
def erase_name(name: str, site: str, data_dir: Path, *, yes: bool, as_json: bool) -> None:
    """Erase what a name stands for.

    That is each utterance with the name as a word in its text, in what it asks for, or in the name of its channel; and
    each whose task was given to a person of that name or done by one. Exits with 1 where nothing was found.
    """
    _erase(Wanted(site=site, name=name), data_dir, yes=yes, as_json=as_json)


@erase_group.command("time")
@click.option("--since", type=TIME, required=True, help="What was spoken from this time on (UTC).")
@click.option("--until", type=TIME, help="What was spoken before this time (UTC); now without it.")
@what_options
def erase_time(since: datetime, until: datetime | None, site: str, data_dir: Path, *, yes: bool, as_json: bool) -> None:
    """Erase what was spoken in a time range. Exits with 1 where nothing was found."""
    wanted = Wanted(site=site, since_ns=_ns(since), until_ns=_ns(until or datetime.now(UTC)))
    _erase(wanted, data_dir, yes=yes, as_json=as_json)


@erase_group.command("list")
@server_option
@json_option
def erase_list(data_dir: Path, *, as_json: bool) -> None:
    """Show the receipts there are."""
    _show(Erasures(data_dir).list(), as_json=as_json)


@erase_group.command("show")
@click.argument("erasure_id")
@server_option
@json_option
def erase_show(erasure_id: str, data_dir: Path, *, as_json: bool) -> None:
    """Show one receipt."""
    _show([Erasures(data_dir).of(erasure_id)], as_json=as_json)


@erase_group.command("resume")
@server_option
@json_option
def erase_resume(data_dir: Path, *, as_json: bool) -> None:
    """Finish erasures that were cut off, or have stopped for an operator."""
    erasing = Erasing(data_dir)
    left = [each for each in erasing.erasures.list() if each.state == "running"]
    _show(_done(erasing, left, data_dir, resume=True), as_json=as_json)


@erase_group.command("again")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="By the tombstones of this data directory, and not by the site's own.",
)
@server_option
@json_option
def erase_again(source: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Erase once more whatever was erased before, by the tombstones: such as after a restore into another directory."""
    erasing = Erasing(data_dir)
    _show(_done(erasing, erasing.begin_again(getpass.getuser(), source), data_dir), as_json=as_json)


# -- inside -----------------------------------------------------------------------------------------------------------


def _erase(wanted: Wanted, data_dir: Path, *, yes: bool, as_json: bool) -> None:
    erasing = Erasing(data_dir)
    scope = asyncio.run(erasing.find(wanted))
    if scope.is_empty:
        click.echo("Nothing was found.", err=True)
        sys.exit(1)
    if not yes:
        click.confirm(f"Erase {_count(scope)}? It cannot be taken back", abort=True, err=True)
    _show(_done(erasing, [erasing.begin(wanted, scope, getpass.getuser())], data_dir), as_json=as_json)
    if not as_json:
        click.echo(f"Look for what may be left: quickcomm check{data_dir_flag(data_dir)}")


def _done(erasing: Erasing, receipts: Sequence[Receipt], data_dir: Path, *, resume: bool = False) -> list[Receipt]:
    """Have the site do it, where it runs; else do it here."""
    if not erasing.runs:
        return [asyncio.run(erasing.finish(each)) for each in receipts]
    for each in receipts:
        asked = StartOperation(
            operation=ERASE, site=each.scope.site, by=each.by, given={"erasure": each.id}, wait_s=POLL_S
        )
        asyncio.run(operate(data_dir, asked, _tell, resume=resume))
    return [erasing.erasures.of(each.id) for each in receipts]


def _tell(step: str) -> None:
    click.echo(f"done: {step}", err=True)


def _ns(at: datetime) -> int:
    return int(at.replace(tzinfo=UTC).timestamp()) * 10**9


def _count(scope: Scope) -> str:
    parts = []
    if scope.conversations:
        parts.append(f"the conversation {', '.join(scope.conversations)}")
    if scope.utterances:
        more = "more " if scope.conversations else ""
        parts.append(f"{len(scope.utterances):,} {more}utterances in {len(scope.touched()):,} conversations")
    if scope.operations:
        parts.append(f"names in {len(scope.operations):,} records of operations")
    return " and ".join(parts)


def _show(receipts: Sequence[Receipt], *, as_json: bool) -> None:
    for receipt in receipts:
        if as_json:
            click.echo(json.dumps(msgspec.to_builtins(receipt), ensure_ascii=False))
            continue
        click.echo(f"{receipt.id}  {receipt.kind}, {receipt.state}, by {receipt.by}: {_count(receipt.scope)}")
        for line in receipt.erased:
            later = f"  (gone: {line.gone})" if line.gone and line.count else ""
            click.echo(f"  {line.store:<44} {line.what:<22} {line.count:>8,}{later}")
        for copy in receipt.copies:
            until = f", out of retention {copy.kept_until}" if copy.kept_until else ""
            click.echo(f"  not changed: {copy.where}, taken {copy.taken_at}{until}. Delete it if it must go.")
    if not receipts and not as_json:
        click.echo("No erasures.")
