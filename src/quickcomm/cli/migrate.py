"""`quickcomm migrate`: a module moves out of the monolith into a service of its own, or back, while people talk."""

import asyncio
import contextlib
import getpass
import json
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import click
import msgspec

from quickcomm.cli.migration_report import lines, stage, time_of
from quickcomm.cli.options import json_option, print_rows, server_option
from quickcomm.contracts.commands import Command, Scale
from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.migration import (
    ALL,
    MAX_ENTRIES,
    GetMigration,
    ListMigrationAudit,
    MigrationDone,
    MigrationStatus,
    MoveAction,
    OverrideMigration,
    WeighMigration,
    asked_for,
    with_decider,
)
from quickcomm.contracts.routes import SERVICE
from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.runtime.admin_socket import Rows, ask
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag, is_trusted
from quickcomm.operate.up.layout import Layout

T = TypeVar("T")
POLL_S: Final = 0.3
STARTS_WITHIN_S: Final = 30.0
BACK_WITHIN_S: Final = 15.0
"""So long a controller may take that was killed, and is started again."""
PER_CENT: Final = BUCKETS // 100
NS: Final = 10**9
MAX_SHOWN: Final = 5
"""Differences; all are in the answer with --json."""
SIDES: Final = click.Choice(["service", "monolith"])

module_argument = click.argument("module")
force_option = click.option("--force", is_flag=True, help="Whatever the gate says; the audit tells so.")
why_option = click.option("--reason", "--why", "why", default="", help="The reason, for the audit.")


class NoControllerError(ConfigurationError):
    code = "migration.no_controller"


@click.group("migrate")
def migrate_group() -> None:
    """Move a module out of the monolith into a service of its own, step by step, or back.

    A module goes from off over shadow (the service is kept complete, without requests) and canary (1, 5, 25,
    50 %) to full and retired (the monolith has stopped the module). The order is dashboard, intelligence, audio. The
    usual way, while the site runs with quickcomm up:

    \b
      quickcomm migrate start dashboard        # the service starts, in the shadow
      quickcomm migrate status                 # gate, figures, what is missing
      quickcomm migrate step dashboard         # 1 % of the page sessions
      quickcomm migrate auto dashboard         # or: each step by itself, when its gate has passed
      quickcomm migrate weight dashboard 10    # a share between the steps
      quickcomm migrate rollback dashboard     # back at once, from anywhere
      quickcomm migrate start dashboard --to monolith    # back step by step

    A command comes back when the change is in force everywhere. Else it exits with 1 and says why; the change goes on.
    See docs/migrate.md.
    """  # noqa: D301 - click wants the character itself


@migrate_group.command("start")
@module_argument
@click.option("--to", "goal", type=SIDES, default="service", show_default=True, help="The goal.")
@click.option("--force", is_flag=True, help="Whatever the order of the modules.")
@server_option
def start_command(module: str, goal: Any, data_dir: Path, *, force: bool) -> None:
    """Set the goal of a module, and take the first step to it. Starts the controller where none runs."""
    start_controller(data_dir)
    _move(data_dir, "start" if goal == SERVICE else "return", module, force=force)


@migrate_group.command("step")
@module_argument
@force_option
@why_option
@server_option
def step_command(module: str, why: str, data_dir: Path, *, force: bool) -> None:
    """One step to the goal. Refused while the gate has not passed."""
    _move(data_dir, "step", module, why, force=force)


@migrate_group.command("promote")
@module_argument
@force_option
@why_option
@server_option
def promote_command(module: str, why: str, data_dir: Path, *, force: bool) -> None:
    """All to the service at once, without the steps between. Refused while the gate has not passed."""
    _move(data_dir, "promote", module, why, force=force)


@migrate_group.command("weight")
@module_argument
@click.argument("percent", type=click.FloatRange(0, 100, min_open=True, max_open=True))
@force_option
@why_option
@server_option
def weight_command(module: str, percent: float, why: str, data_dir: Path, *, force: bool) -> None:
    """Another share of a canary, between the steps, such as 10 or 0.5. Sticky, and only in the direction of the goal.

    A higher share is refused while the gate has not passed.
    """
    weight = min(max(1, round(percent * PER_CENT)), BUCKETS - 1)
    _change(data_dir, WeighMigration(name=module, weight=weight, force=force, why=why, by=getpass.getuser()), module)


@migrate_group.command("override")
@module_argument
@click.option("--channel", help="All conversations on this channel.")
@click.option("--site", help="All conversations of this site.")
@click.option("--conversation", help="The conversation of this id.")
@click.option("--to", "to", type=click.Choice(["monolith", "services", "service"]), help="The side that it gets.")
@click.option("--remove", is_flag=True, help="It goes by its bucket again.")
@why_option
@server_option
def override_command(
    module: str, why: str, data_dir: Path, *, to: str | None, remove: bool, **named: str | None
) -> None:
    """Give a channel, a site or a conversation to a side, whatever the share; only while both sides serve.

    The narrower one counts: a conversation, then its channel, then its site. A rollback removes all of them.
    """
    chosen = [(kind, of) for kind, of in named.items() if of]
    if len(chosen) != 1 or remove == (to is not None):
        raise click.UsageError("Name one of --channel, --site and --conversation, and either --to or --remove.")
    [(kind, of)] = chosen
    side = None if to is None else "monolith" if to == "monolith" else "service"
    asked = {"kind": kind, "of": of, "side": side, "name": module, "why": why, "by": getpass.getuser()}
    _change(data_dir, msgspec.convert(asked, OverrideMigration), module)


@migrate_group.command("rollback")
@module_argument
@why_option
@server_option
def rollback_command(module: str, why: str, data_dir: Path) -> None:
    """All back to the monolith at once, also in the middle of a step.

    The service goes on in the shadow, so that a new start is quick. From the shadow, it is stopped.
    """
    _move(data_dir, "rollback", module, why)


@migrate_group.command("kill-switch")
@click.argument("module", metavar="MODULE|all")
@why_option
@click.option("--clear", is_flag=True, help="Allow steps again.")
@server_option
def kill_switch_command(module: str, why: str, data_dir: Path, *, clear: bool) -> None:
    """All of a module, or of all that have moved, back to the monolith at once, and no step until it is cleared.

    No gate is asked. A module that never moved is left alone, unless it is named.
    """
    if clear:
        for name in _paused(data_dir) if module == ALL else [module]:
            _note(data_dir, "resume", name, "may go on")
        return
    request = asked_for("kill", module, by=getpass.getuser(), why=why)
    rows = asyncio.run(asked(data_dir, request))
    for row in rows:
        _print_done(row)
    if not rows:
        stays = "" if module == ALL else f" {module} stays there until the switch is cleared."
        click.echo(f"All is with the monolith.{stays}")


@migrate_group.command("auto")
@module_argument
@click.argument("wanted", type=click.Choice(["on", "off"]), default="on")
@server_option
def auto_command(module: str, wanted: str, data_dir: Path) -> None:
    """Have the controller take the steps: each when its gate has passed and its bake time is over."""
    _note(data_dir, "auto" if wanted == "on" else "manual", module, f"auto {wanted}")


@migrate_group.command("pause")
@module_argument
@server_option
def pause_command(module: str, data_dir: Path) -> None:
    """No further steps until `resume`. A breach still rolls back."""
    _note(data_dir, "pause", module, "paused")


@migrate_group.command("resume")
@module_argument
@server_option
def resume_command(module: str, data_dir: Path) -> None:
    """Allow further steps again."""
    _note(data_dir, "resume", module, "goes on")


@migrate_group.command("status")
@server_option
@json_option
def status_command(data_dir: Path, *, as_json: bool) -> None:
    """Where each module is, its gate with figures and what is missing, and who follows which version."""
    [row] = asyncio.run(asked(data_dir, GetMigration()))
    if as_json:
        click.echo(json.dumps(row, ensure_ascii=False))
        return
    for line in lines(msgspec.convert(row, MigrationStatus)):
        click.echo(line)


@migrate_group.command("history")
@click.option("--limit", type=click.IntRange(1, MAX_ENTRIES), default=50, show_default=True, help="At most so many.")
@click.option("--module", help="Only of this module.")
@server_option
@json_option
def history_command(limit: int, module: str | None, data_dir: Path, *, as_json: bool) -> None:
    """Who did what, when and why, on what evidence; newest first."""
    rows = asyncio.run(asked(data_dir, ListMigrationAudit(limit=limit, name=module)))
    if not as_json:
        rows = [row | {"at": time_of(row["at_ns"]), "module": row["name"]} for row in rows]
    columns = ("at", "who", "module", "action", "before", "after", "version", "why")
    print_rows(rows, as_json=as_json, columns=columns, empty="Nothing was moved yet.")


# -- asking -----------------------------------------------------------------------------------------------------------


async def asked(data_dir: Path, request: Command, within_s: float = BACK_WITHIN_S) -> Rows:
    """Ask the controller; where the site runs, wait for one that is started again.

    Raises `NoControllerError`, and what the controller answers.
    """
    directory = DataDirectory(data_dir)
    socket, flag = directory.traffic.socket, data_dir_flag(directory.path)
    deadline, told = asyncio.get_running_loop().time() + within_s, False
    while True:
        try:
            if is_trusted(socket, directory.path):
                return await ask(socket, request, timeout_s=None)
        except (aiohttp.ClientConnectorError, FileNotFoundError):
            pass  # it was asked for nothing
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise NoControllerError(
                "The controller ended before it had answered. What it has stored goes on by itself. "
                f"See how far it is, before you ask again: quickcomm migrate status{flag}"
            ) from error
        is_back_soon = directory.traffic.path.exists() and Layout(directory).is_owned()
        if not is_back_soon or asyncio.get_running_loop().time() >= deadline:
            raise NoControllerError(
                f"No migration controller answers on {directory.path}. Run the site (quickcomm up{flag}), "
                f"then start one: quickcomm migrate start MODULE{flag}"
            )
        if not told:
            click.echo("Waiting for the migration controller …", err=True)
        told = True
        await asyncio.sleep(POLL_S)


def start_controller(data_dir: Path) -> None:
    """Have `up` start the controller, unless it answers. Raises `NotRunningError`."""
    from quickcomm.operate.up.client import tell  # noqa: PLC0415 - seldom needed

    with contextlib.suppress(NoControllerError):
        asyncio.run(asked(data_dir, GetMigration(entries=0), 0.0))
        return
    click.echo("Starting the migration controller …", err=True)
    tell(data_dir, Scale(process="traffic", replicas=1))
    asyncio.run(_until_it_answers(data_dir))


async def _until_it_answers(data_dir: Path) -> None:
    deadline = asyncio.get_running_loop().time() + STARTS_WITHIN_S
    while True:
        try:
            await asked(data_dir, GetMigration(entries=0), 0.0)
        except NoControllerError:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(POLL_S)  # it tells nobody when it is ready
        else:
            return


def _move(data_dir: Path, action: MoveAction, module: str, why: str = "", *, force: bool = False) -> None:
    _change(data_dir, asked_for(action, module, by=getpass.getuser(), why=why, force=force), module)


def _change(data_dir: Path, request: Command, module: str) -> None:
    _print_done(asyncio.run(changed(data_dir, request, module)))


async def changed(data_dir: Path, request: Command, name: str) -> dict[str, Any]:
    """Ask, and say meanwhile how far it is."""
    row: dict[str, Any] = {}
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch(data_dir, name))
            [row] = await asked(data_dir, request)
            watching.cancel()
    except* QuickCommError as errors:
        raise errors.exceptions[0] from None
    return row


async def _watch(data_dir: Path, name: str) -> None:
    """Print a line for each phase, to standard error."""
    shown = ""
    while True:
        await asyncio.sleep(POLL_S)
        with contextlib.suppress(QuickCommError):  # the command itself tells what is wrong
            [row] = await asked(data_dir, GetMigration(entries=0), 0.0)
            phase = next((each["phase"] for each in row["modules"] if each["name"] == name), "")
            if phase and phase != shown:
                shown = phase
                click.echo(f"{name}: {phase} …", err=True)


def _note(data_dir: Path, action: MoveAction, module: str, words: str) -> None:
    asyncio.run(asked(data_dir, asked_for(action, module, by=getpass.getuser())))
    click.echo(f"{module}: {words}.")


def _paused(data_dir: Path) -> list[str]:
    [row] = asyncio.run(asked(data_dir, GetMigration(entries=0)))
    return [module["name"] for module in row["modules"] if module["paused"]]


# -- telling ----------------------------------------------------------------------------------------------------------


def _print_done(row: dict[str, Any]) -> None:
    done = msgspec.convert(row, MigrationDone)
    reached = with_decider(stage(done.mode, done.weight), done.name, done.decides)
    click.echo(f"{done.name}: {reached} (version {done.version}, {done.seconds:.1f} s).")
    for note in done.notes:
        click.echo(f"  {note}")
