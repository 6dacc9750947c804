"""Commands for the site's operator; they work beside a running server through its local socket."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from quickcomm.cli.options import json_option, print_rows, server_option
from quickcomm.contracts.commands import (
    Command,
    CreateKey,
    DropDeadLetter,
    GetLedgers,
    GetStatus,
    ListDeadLetters,
    ListKeys,
    ReplayDeadLetter,
    RevokeKey,
    Role,
)
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag
from quickcomm.operate.administration import administer
from quickcomm.operate.servers import server_on
from quickcomm.operate.up.client import topology_status

Rows = list[dict[str, Any]]


def _ask(data_dir: Path, request: Command, *, needs_server: bool = False) -> Rows:
    return asyncio.run(administer(data_dir, request, needs_server=needs_server))


@click.command("status")
@server_option
@json_option
def status_command(data_dir: Path, *, as_json: bool) -> None:
    """What is running, a line a process. Exits with 1 if nothing runs or something is unwell."""
    try:
        rows = topology_status(data_dir) or _ask(data_dir, GetStatus(), needs_server=True)
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    columns = ["module", "pid", "healthy", "version", "url", "sessions", "stt_backlog_s", "stt_model", "classifier"]
    if any("state" in row for row in rows):
        columns[2:2] = ["state", "restarts"]
    if any(row["module"] == "store" for row in rows):
        columns += ["memory_mb", "policy", "persistence"]
    print_rows(rows, as_json=as_json, columns=columns, empty="Nothing runs.")
    if any(row.get("state") == "left behind" for row in rows):
        click.echo(
            "`up` itself has ended. Take these over with: quickcomm up. Stop them with: quickcomm down", err=True
        )
    for row in rows:
        for line in _autoscaled(row.get("autoscale")):
            click.echo(line, err=True)
    slow = [stage for row in rows for stage in row.get("stages", ()) if stage["breach"]]
    for stage in slow:
        click.echo(f"OVER BUDGET ({stage['stage']}): {stage['breach']}", err=True)
    alarms = {alarm["message"]: alarm for row in rows for alarm in row.get("alarms", ())}
    for alarm in alarms.values():
        click.echo(f"ALARM since {alarm['since']}: {alarm['message']}", err=True)
    sys.exit(0 if all(row["healthy"] for row in rows) else 1)


def _autoscaled(found: dict[str, Any] | None) -> Iterator[str]:
    """Yield a line a module that is scaled by its load."""
    if found is None:
        return
    modules = {name: each for name, each in found.items() if name != "not_read"}
    for name, each in modules.items():
        bounds = f"{each['wanted']} of {each['least']} to {each['most']} wanted since {each['since']}"
        yield f"AUTOSCALE {name}: {bounds}: {each['why']}"
    if not modules:
        yield "AUTOSCALE: nothing is read yet"
    if "not_read" in found:
        yield f"AUTOSCALE changes nothing now: {found['not_read']}"


@click.command("ledger")
@click.argument("conversation_id", required=False)
@server_option
@json_option
def ledger_command(conversation_id: str | None, data_dir: Path, *, as_json: bool) -> None:
    """Samples received = speech + silence + declared gap, for each conversation, durable up to its last ack.

    Exits with 1 if any ledger does not balance.
    """
    rows = _ask(data_dir, GetLedgers(conversation_id=conversation_id))
    columns = ("conversation_id", "channel", "state", "sample_rate", "received", "speech", "silence", "gap", "balanced")
    print_rows(rows, as_json=as_json, columns=columns, empty="No conversations yet.")
    sys.exit(0 if all(row["balanced"] for row in rows) else 1)


@click.group("keys")
def keys_group() -> None:
    """Create, list and revoke API keys. Roles: ingest sends sound, read looks, admin does everything."""


@keys_group.command("create")
@click.option("--role", type=click.Choice(["ingest", "read", "admin"]), required=True)
@click.option("--name", default="", help="Whose key it is, to recognise it later.")
@click.option("--site", default="main", show_default=True, help="Whose conversations it may touch.")
@server_option
@json_option
def keys_create(role: Role, name: str, site: str, data_dir: Path, *, as_json: bool) -> None:
    """Make a key. It is shown once; only its hash is kept."""
    rows = _ask(data_dir, CreateKey(role=role, holder=name, site=site))
    if as_json:
        print_rows(rows, as_json=True, columns=(), empty="")
        return
    key = rows[0]["key"]
    click.echo(key)
    click.echo(f"Role {role}, id {rows[0]['id']}. This key is not shown again.", err=True)
    click.echo(_use(key, role, data_dir), err=True)


def _use(key: str, role: str, data_dir: Path) -> str:
    """Say where the key is good. The key itself is repeated only on a terminal: standard error may be a log."""
    server = server_on(data_dir)
    if server is None:
        path = DataDirectory(data_dir).path
        return f"No server runs on {path}. It is good for one that you start: quickcomm serve{data_dir_flag(path)}"
    if role == "ingest" or not server.url:
        return f"It is good for {server}."
    shown, how = (key, "") if sys.stderr.isatty() else ("KEY", ", with the key in place of KEY")
    return f"It is good for {server}.\nSign in with this link{how}:\n  {server.url}/#key={shown}"


@keys_group.command("list")
@server_option
@json_option
def keys_list(data_dir: Path, *, as_json: bool) -> None:
    """All keys, without their secrets."""
    rows = _ask(data_dir, ListKeys())
    columns = tuple(rows[0]) if rows else ()
    print_rows(rows, as_json=as_json, columns=columns, empty="No keys yet. Make one with: quickcomm keys create")


@keys_group.command("revoke")
@click.argument("key_id")
@server_option
@json_option
def keys_revoke(key_id: str, data_dir: Path, *, as_json: bool) -> None:
    """Refuse a key from now on, by its id."""
    print_rows(_ask(data_dir, RevokeKey(id=key_id)), as_json=as_json, columns=("id", "revoked"), empty="")


@click.group("dead-letters")
def dead_letters_group() -> None:
    """Messages that could not be handled, and why."""


@dead_letters_group.command("list")
@server_option
@json_option
def dead_letters_list(data_dir: Path, *, as_json: bool) -> None:
    """What lies there."""
    columns = ("id", "stream", "group", "conversation_id", "attempts", "reason")
    print_rows(_ask(data_dir, ListDeadLetters()), as_json=as_json, columns=columns, empty="No dead letters.")


@dead_letters_group.command("replay")
@click.argument("letter_id", type=int)
@server_option
@json_option
def dead_letters_replay(letter_id: int, data_dir: Path, *, as_json: bool) -> None:
    """Have a message handled again."""
    rows = _ask(data_dir, ReplayDeadLetter(id=letter_id))
    print_rows(rows, as_json=as_json, columns=("id", "replayed"), empty="")


@dead_letters_group.command("drop")
@click.argument("letter_id", type=int)
@server_option
@json_option
def dead_letters_drop(letter_id: int, data_dir: Path, *, as_json: bool) -> None:
    """Forget a message."""
    rows = _ask(data_dir, DropDeadLetter(id=letter_id))
    print_rows(rows, as_json=as_json, columns=("id", "dropped"), empty="")
