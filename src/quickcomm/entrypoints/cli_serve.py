"""`quickcomm serve`: the monolith in the foreground, until Ctrl-C."""

import contextlib
import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import uvloop

from quickcomm import __version__
from quickcomm.client.options import DEFAULT_URL
from quickcomm.entrypoints.cli_options import data_dir_option
from quickcomm.entrypoints.logs import LEVELS, say, set_up_logs
from quickcomm.entrypoints.servers import listed
from quickcomm.entrypoints.settings import load_settings
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag

if TYPE_CHECKING:
    from quickcomm.entrypoints.monolith import Ready

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
def serve_command(
    data_dir: Path, stt_model: str | None, log_level: str, *, log_json: bool, **given: str | int | None
) -> None:
    """Run QuickComm: one process, everything embedded.

    Prints its address, and at the very first start a link to sign in with. Settings come from quickcomm.toml in the
    data directory and from QUICKCOMM_… variables (docs/settings.md); the key of a language model from
    QUICKCOMM_LLM_KEY (docs/connect-a-model.md). Ctrl-C finishes what was said, then stops.
    """
    set_up_logs(log_level, as_json=log_json)
    flags: dict[str, object] = {name.replace("llm_", "llm."): value for name, value in given.items()}
    if stt_model:
        flags["stt.model_path" if Path(stt_model).is_dir() else "stt.model"] = stt_model
    settings = load_settings(data_dir, flags)
    if not _loopback(settings.host):
        click.echo(f"Listening on {settings.host}: others can reach this. Put TLS in front of it.", err=True)

    def ready(state: "Ready") -> None:
        say(f"QuickComm {__version__} is ready: {state.url}")
        if state.is_first:
            say(*first_start(data_dir, state.url, state.admin_key))
        if settings.host in WILDCARDS:
            say(ELSEWHERE)

    directory = DataDirectory(data_dir)
    # Behind an edge, `up` is what commands look for.
    listing = contextlib.nullcontext() if settings.instance.registry else listed(directory)
    with directory.own(), listing:
        # Seconds go by until all is loaded; commands wait for us from now on.
        from quickcomm.entrypoints.monolith import serve  # noqa: PLC0415 - and --help does without

        if not uvloop.run(serve(settings, directory, ready, shows_key=is_terminal())):
            click.echo("Stopped while starting.", err=True)
    with contextlib.suppress(OSError):  # they are on a full disk
        sys.stdout.flush()
        sys.stderr.flush()
    # Everything is closed. An engine's thread may still be deep in native code, which would abort the process if the
    # interpreter were taken down around it.
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
