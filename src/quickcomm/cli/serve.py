"""`quickcomm serve`: the monolith in the foreground, until Ctrl-C."""

import contextlib
import ipaddress
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import uvloop

from quickcomm import __version__
from quickcomm.cli.logs import LEVELS, say, set_up_logs
from quickcomm.cli.options import data_dir_option
from quickcomm.cli.services import engine_flags, leave
from quickcomm.client.options import DEFAULT_URL
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag
from quickcomm.operate.servers import listed
from quickcomm.operate.settings import load_settings

if TYPE_CHECKING:
    from quickcomm.kernel.runtime.app import Started

WILDCARDS: Final = frozenset({"0.0.0.0", "::"})
ELSEWHERE: Final = "From another device, put this machine's address in place of 127.0.0.1."


@click.command("serve")
@click.option("--host", help="Address to listen on [default: 127.0.0.1, this machine only].")
@click.option("--port", type=click.IntRange(0, 65535), help="Port [default: 8080]; 0 takes a free one.")
@data_dir_option
@click.option("--pack", help="Site pack: a name (hospitality, callcentre) or a folder [default: hospitality].")
@click.option("--stt-model", help="Whisper model: tiny.en, base, or a folder [default: tiny.en].")
@click.option("--llm-url", help="OpenAI-compatible language model, such as http://127.0.0.1:8000/v1 [default: none].")
@click.option("--llm-model", help="Its name [default: the only one that the endpoint offers].")
@click.option("--log-level", type=click.Choice(list(LEVELS)), default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="Log JSON lines instead of text.")
def serve_command(data_dir: Path, log_level: str, *, log_json: bool, **given: str | int | None) -> None:
    """Run QuickComm: one process, everything embedded.

    Prints its address, and at the very first start a link to sign in with. Settings come from quickcomm.toml in the
    data directory and from QUICKCOMM_… variables (docs/settings.md); the key of a language model from
    QUICKCOMM_LLM_KEY (docs/connect-a-model.md). Ctrl-C finishes what was said, then stops.
    """
    set_up_logs(log_level, as_json=log_json)
    settings = load_settings(data_dir, engine_flags(given))
    if not _loopback(settings.host):
        click.echo(f"Listening on {settings.host}: others can reach this. Put TLS in front of it.", err=True)

    async def ready(started: "Started") -> None:
        say(f"QuickComm {__version__} is ready: {started.url}")
        # Behind an edge, `up` looks after the first key.
        if settings.instance.registry is None and not any(key.role == "admin" for key in await started.keys.list()):
            made = await started.keys.create("admin", "first start") if is_terminal() else None
            say(*first_start(data_dir, started.url, made.key if made else None))
        if settings.host in WILDCARDS:
            say(ELSEWHERE)

    directory = DataDirectory(data_dir)
    # Behind an edge, `up` is what commands look for.
    listing = contextlib.nullcontext() if settings.instance.registry else listed(directory)
    with directory.own(), listing:
        # Seconds go by until all is loaded; commands wait for us from now on.
        from quickcomm.apps import MONOLITH  # noqa: PLC0415 - and --help does without
        from quickcomm.kernel.runtime.app import serve  # noqa: PLC0415
        from quickcomm.operate.erasure_desk import build  # noqa: PLC0415
        from quickcomm.operate.moving import prepare  # noqa: PLC0415

        moved = partial(prepare, directory, settings.redis_url)
        more = () if settings.instance.registry else (build,)  # else a process of its own executes operations
        if not uvloop.run(serve(MONOLITH, settings, directory, ready, prepare=moved, more=more)):
            click.echo("Stopped while starting.", err=True)
    with contextlib.suppress(OSError):  # standard output is on a full disk
        leave()
    os._exit(0)


def is_terminal() -> bool:
    """Return True if a person reads standard output. A key must not end up in a log, such as a service's journal."""
    return sys.stdout.isatty()


def first_start(data_dir: Path, url: str, admin_key: str | None) -> list[str]:
    """Return what to do first, in lines. `admin_key`: None where it cannot be shown."""
    if admin_key is None:
        command = f"quickcomm keys create --role admin{data_dir_flag(data_dir)}"
        way_in = [
            "First start. Make a key to sign in with (none is shown here, for this may be a log):",
            f"  {command}",
        ]
    else:
        way_in = ["First start. Sign in with this link (it is shown only once):", f"  {url}/#key={admin_key}"]
    commands = (f"  {line}" for line in first_commands(data_dir, url))
    return [*way_in, "Send it sound with a key of its own:", *commands]


def first_commands(data_dir: Path, url: str) -> list[str]:
    """Return the commands that send sound to this server, complete as they are but for FILE and KEY."""
    where = "" if url == DEFAULT_URL else f" --url {url}"
    return [
        f"quickcomm keys create --role ingest --name radio{data_dir_flag(data_dir)}",
        f"quickcomm ingest FILE --key KEY{where}",
    ]


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
