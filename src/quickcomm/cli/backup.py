"""`quickcomm backup` and `quickcomm restore`."""

import asyncio
import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from quickcomm.cli.options import data_dir_option, json_option, server_option
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag

if TYPE_CHECKING:
    from quickcomm.operate.backup_file import Elsewhere, Manifest, Recordings

TELL_EVERY_S: Final = 2.0
PARTS: Final = {
    "cards": "dashboard_utterances",
    "tasks": "dashboard_tasks",
    "conversations": "audio_conversations",
    "keys": "kernel_keys",
    "prompts": "intelligence_prompts",
    "migration audit": "traffic_audit",
    "waiting messages": "bus_messages",
    "dead letters": "bus_dead_letters",
}
"""What a backup contains, in an operator's words, and the tables that have it."""


class Progress:
    """Says on standard error what is being done, but only if it takes long."""

    def __init__(self) -> None:
        self._due = time.monotonic() + TELL_EVERY_S

    def __call__(self, what: str, done: int, of: int) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + TELL_EVERY_S
            click.echo(f"{what}: {100 * done // of} %" if of else f"{what} …", err=True)


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@server_option
@json_option
def backup_command(file: Path, data_dir: Path, *, force: bool, as_json: bool) -> None:
    """Save the whole site to FILE while it runs, in every deployment.

    In it: cards, tasks, conversations with their ledgers and event logs, API keys and page sessions (digests only),
    prompts, costs, the audit of a migration, and messages that are not handled yet. FILE is read through and compared
    before it gets its name; only you can read it (mode 600). It contains what people said: keep it as carefully as the
    data directory.

    Not in it: recordings (they are counted, and the command that copies them is shown), quickcomm.toml, and databases
    that a setting puts elsewhere, such as PostgreSQL (the pg_dump command is shown). Put it back with: quickcomm
    restore FILE
    """
    from quickcomm.operate.backup import back_up, whereabouts  # noqa: PLC0415 - not needed for --help

    taken = asyncio.run(back_up(whereabouts(data_dir), file.absolute(), Progress(), force=force))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(taken), ensure_ascii=False))
    else:
        click.echo(f"{file}: {taken.bytes / 1e6:.1f} MB, complete and checked.")
        _show(taken.manifest)
    for part in taken.manifest.elsewhere:
        click.echo(_dump(part, file), err=True)
    if taken.manifest.recordings is not None:
        click.echo(_recordings(taken.manifest.recordings), err=True)


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@data_dir_option
@json_option
def restore_command(file: Path, data_dir: Path, *, as_json: bool) -> None:
    """Put a backup in place of the site's data, while nothing runs on the data directory.

    FILE may be of any deployment, and any may go on with it: `quickcomm serve`, or `quickcomm up` with either shape,
    which moves what it needs into its store and its services when it starts. Keys and resume tokens of the backup are
    valid; one that was revoked since then must be revoked again. With another --data-dir the site is set up there.

    What was there is moved into a folder `before-restore-…` in the data directory; delete it when you are content.
    Recordings and quickcomm.toml stay as they are.
    """
    from quickcomm.operate.restore import restore  # noqa: PLC0415 - not needed for --help

    directory = DataDirectory(data_dir)
    restored = restore(file, directory, Progress())
    manifest, flag = restored.manifest, data_dir_flag(directory.path)
    if as_json:
        row: dict[str, Any] = {
            "file": str(file),
            "data_dir": str(directory.path),
            "kept": None if restored.kept is None else str(restored.kept),
            "manifest": msgspec.to_builtins(manifest),
        }
        click.echo(json.dumps(row, ensure_ascii=False))
    else:
        taken = f", taken {manifest.taken_at} of `{manifest.deployment}`" if manifest else ""
        click.echo(f"Restored {directory.path} from {file}{taken}.")
        if manifest is not None:
            _show(manifest)
        if restored.kept is not None:
            click.echo(f"The former data is in {restored.kept}.")
            click.echo(f"A key that was revoked since the backup is valid again. See: quickcomm keys list{flag}")
        click.echo(f"Go on with: quickcomm serve{flag}, or: quickcomm up [--deployment services]{flag}")
    if manifest is None:
        click.echo(
            "An earlier version made this backup. If it was taken under `quickcomm up`, it has no conversations and "
            "no API keys, and of services no cards.",
            err=True,
        )
    else:
        _tell_of_the_rest(manifest, directory)


def _show(manifest: "Manifest") -> None:
    for name, table in PARTS.items():
        click.echo(f"  {name:<18}{manifest.rows.get(table, 0):>12,}")


def _tell_of_the_rest(manifest: "Manifest", directory: DataDirectory) -> None:
    """Say what else the site needs that is not in the backup."""
    for part in manifest.elsewhere:
        click.echo(_undump(part), err=True)
    recordings = manifest.recordings
    if recordings is not None and recordings.files and Path(recordings.where) != directory.recordings:
        click.echo(
            f"Its {recordings.files:,} recordings ({recordings.bytes or 0:,} bytes) were in {recordings.where}. Copy "
            f"them: cp -a {shlex.quote(recordings.where)} {shlex.quote(str(directory.recordings))}",
            err=True,
        )


def _dump(part: "Elsewhere", file: Path) -> str:
    what, where = f"NOT in it: the database of {part.service}", shlex.quote(part.database)
    if part.is_file:
        target = shlex.quote(f'.backup "{file}.{part.service}.sqlite"')
        return f"{what}, which its setting puts elsewhere. Save it with: sqlite3 {where} {target}"
    target = shlex.quote(f"{file}.{part.service}.pgdump")
    return f"{what}, which is in PostgreSQL. Save it with: pg_dump --format=custom --file={target} {where}"


def _undump(part: "Elsewhere") -> str:
    what, where = f"The database of {part.service} is not in the backup.", shlex.quote(part.database)
    if part.is_file:
        return f"{what} Put the file that was saved beside it in place of {where}."
    return f"{what} Restore what pg_dump has written: pg_restore --clean --if-exists --dbname={where} FILE"


def _recordings(found: "Recordings") -> str:
    if found.files is None:
        return f"Not in it: recordings, in {found.where}."
    size = f"{found.files:,} files, {(found.bytes or 0) / 1e6:,.1f} MB"
    return f"Not in it: recordings ({size}). Copy them with: cp -a {shlex.quote(found.where)} TARGET"
