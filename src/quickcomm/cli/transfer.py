"""`quickcomm export` and `quickcomm import`."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
import msgspec

from quickcomm.cli.backup import Progress
from quickcomm.cli.logs import set_up_logs
from quickcomm.cli.options import data_dir_option, json_option, server_option
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag

PARTS: Final = {
    "cards": "dashboard_utterances",
    "tasks": "dashboard_tasks",
    "conversations": "audio_conversations",
    "prompts": "intelligence_prompts",
    "recordings": "transfer_recordings",
}
"""What an export contains, in an operator's words, and the tables that have it."""
LISTED: Final = 20


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--site", metavar="NAME", help="Only what belongs to this site. [default: all sites of the server]")
@click.option("--live-left-out", is_flag=True, help="Go on without the conversations that are under way.")
@click.option("--recordings", is_flag=True, help="With the sound that is kept.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@server_option
@json_option
def export_command(
    file: Path,
    data_dir: Path,
    *,
    site: str | None,
    live_left_out: bool,
    recordings: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write what people said and did to FILE, for another site, while this one runs.

    In it: cards, tasks, decisions, summaries, conversations with their ledgers and event logs, results, the backlog,
    prompts, costs, and what was erased (ids). Databases in PostgreSQL are in it, too. FILE is verified before it gets
    its name; only you can read it (mode 600). It contains what people said: keep it as carefully as the data directory.

    Not in it: keys, resume tokens, messages that are not handled yet, and conversations that are under way. To save the
    whole site, use: quickcomm backup FILE
    """
    from quickcomm.operate.backup import whereabouts  # noqa: PLC0415 - not needed for --help
    from quickcomm.operate.exporting import ExportOptions, export_site  # noqa: PLC0415

    set_up_logs("warning", as_json=False)
    options = ExportOptions(site=site, live_left_out=live_left_out, recordings=recordings, force=force)
    taken = asyncio.run(export_site(whereabouts(data_dir), file.absolute(), Progress(), options))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(taken), ensure_ascii=False))
        return
    click.echo(f"{file}: {taken.bytes / 1e6:.1f} MB, complete and checked.")
    _show({name: total.rows for name, total in taken.manifest.tables.items()})
    left = taken.manifest.left_out
    for each in left[:LISTED]:
        click.echo(f"NOT in it, under way: conversation {each.conversation_id} of {each.site}", err=True)
    if len(left) > LISTED:
        click.echo(f"NOT in it, under way: {len(left) - LISTED} more conversations (--json has all)", err=True)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--site", metavar="NAME", help="Only what belongs to this site. [default: all that FILE has]")
@data_dir_option
@json_option
def import_command(file: Path, data_dir: Path, *, site: str | None, as_json: bool) -> None:
    """Add what `quickcomm export` has written to a site, while nothing runs on the data directory.

    The directory may be new, or that of a site which `quickcomm serve` ran. What a setting puts into PostgreSQL
    (dashboard.database_url, intelligence.database_url) goes there. Nothing is replaced: an export with a conversation
    that is there already is refused. What was erased on either side stays erased.

    An import that is cut off goes on when the command is repeated; no server starts before it is done.
    """
    from quickcomm.operate.importing import import_site  # noqa: PLC0415 - not needed for --help

    set_up_logs("warning", as_json=False)
    directory = DataDirectory(data_dir)
    done = asyncio.run(import_site(file.absolute(), directory, Progress(), site))
    if as_json:
        row = {"file": str(file), "data_dir": str(directory.path), **msgspec.to_builtins(done)}
        click.echo(json.dumps(row, ensure_ascii=False))
        return
    flag = data_dir_flag(directory.path)
    if done.again:
        click.echo(f"{file} was imported into {directory.path} before: nothing to do.")
        return
    click.echo(f"Imported {file}, of {done.manifest.taken_at}, into {directory.path}.")
    _show(done.rows)
    click.echo(f"Go on with: quickcomm serve{flag}, or: quickcomm up [--deployment services]{flag}")


def _show(rows: Mapping[str, int]) -> None:
    for name, table in PARTS.items():
        click.echo(f"  {name:<18}{rows.get(table, 0):>12,}")
