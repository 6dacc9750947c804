"""`quickcomm up`, `down`, `scale`, `restart`: a whole site on one machine, behind one public port."""

import asyncio
import ipaddress
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from quickcomm import __version__
from quickcomm.cli.logs import LEVELS, say, set_up_logs
from quickcomm.cli.options import data_dir_option, server_option
from quickcomm.cli.serve import ELSEWHERE, WILDCARDS, first_start, is_terminal
from quickcomm.contracts.commands import AwaitReady, CreateKey, GetOptions, ListKeys, Restart, Scale, Stop
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag
from quickcomm.operate.administration import administer
from quickcomm.operate.servers import listed
from quickcomm.operate.up.client import NotRunningError, tell
from quickcomm.operate.up.installed import check_installed
from quickcomm.operate.up.layout import Layout

if TYPE_CHECKING:
    from quickcomm.edge.module import Tls

SERVICES: Final = "services"
SHAPES: Final = ("monolith", SERVICES)
ENGINES: Final = ("pack", "stt_model", "llm_url", "llm_model")
"""Options that go on to the processes that hear and understand."""
DOWN_WITHIN_S: Final = 120.0
LOOK_EVERY_S: Final = 0.1


@click.command("up")
@click.option("--deployment", "--shape", "shape", type=click.Choice(SHAPES), default="monolith", show_default=True)
@click.option("--host", help="Address of the edge [default: 127.0.0.1, this machine only].")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the edge [default: 8080]; 0 takes a free one.")
@click.option("--tls-cert", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="PEM, with its chain.")
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="PEM.")
@click.option("--redis-url", help="Valkey or Redis [default: one of its own is started].")
@click.option("--new-store", is_flag=True, help="Begin with an empty store: what it has of QuickComm is deleted.")
@data_dir_option
@click.option("--pack", help="Site pack: a name (hospitality, callcentre) or a folder [default: hospitality].")
@click.option("--stt-model", help="Whisper model: tiny.en, base, or a folder [default: tiny.en].")
@click.option("--llm-url", help="OpenAI-compatible language model [default: none].")
@click.option("--llm-model", help="Its name [default: the only one that the endpoint offers].")
@click.option("--autoscale", is_flag=True, help="Start and stop processes of audio and intelligence by their load.")
@click.option("--log-level", type=click.Choice(list(LEVELS)), default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="The processes log JSON lines instead of text.")
@click.option("--detach", is_flag=True, help="Come back when it is ready; it goes on in the background.")
@click.option("--detached", is_flag=True, hidden=True)
@click.pass_context
def up_command(context: click.Context, /, data_dir: Path, *, detach: bool, detached: bool, **given: Any) -> None:
    """Run a whole site on this machine: an edge (Envoy) with the only public port, a store (Valkey), the processes.

    Ctrl-C or `quickcomm down` stops all of it, and finishes what was said first. After a crash, the next `up` takes
    over what still runs, with the options that it had; those that are given now come before them. See
    docs/from-one-process-to-services.md.
    """
    check_installed()
    layout = Layout(DataDirectory(data_dir))
    if detach and not layout.is_owned():
        _detach(layout)
        return
    from quickcomm.operate.settings import load_settings  # noqa: PLC0415 - not needed for --help
    from quickcomm.operate.up.asked import in_force, written  # noqa: PLC0415
    from quickcomm.operate.up.site import Options, Topology  # noqa: PLC0415
    from quickcomm.operate.up.stream import Own  # noqa: PLC0415

    before = {} if layout.is_owned() else _as_before(context, layout.options)
    given |= before
    settings = load_settings(data_dir, {"host": given["host"], "port": given["port"]})
    wanted = in_force(given, settings)
    if detach:
        _runs_already(layout, {name: wanted[name] for name in wanted if _is_given(context, name)})
        return
    set_up_logs(given["log_level"], as_json=False, to=Own())
    options = Options(
        shape=given["shape"],
        settings=settings,
        tls=_tls(given["tls_cert"], given["tls_key"]),
        redis_url=given["redis_url"] or settings.redis_url,
        autoscale=_autoscales(given),
        new_store=given["new_store"],
        flags=("--log-level", given["log_level"], *(["--log-json"] if given["log_json"] else [])),
        engines={name: str(given[name]) for name in ENGINES if given[name] is not None},
        in_force=wanted,
    )
    if not _loopback(settings.host) and options.tls is None:
        click.echo(f"Listening on {settings.host} without TLS: give --tls-cert and --tls-key.", err=True)

    if before:
        say(f"As before, for it was cut off: {' '.join(map(written, before))}. `quickcomm down` forgets them.")

    async def ready(url: str) -> None:
        file.write(url)
        say(f"QuickComm {__version__} is ready: {url}")
        if settings.host in WILDCARDS:
            say(ELSEWHERE)
        if not detached:  # else standard output is a log
            await _first_key(data_dir, url)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Topology(options, layout, dict(os.environ)).run(ready, stop)

    with layout.own(), listed(layout.directory) as file:
        _keep(layout, {name: given[name] for name in given if name in before or _is_given(context, name)})
        asyncio.run(run())


@click.command("down")
@server_option
def down_command(data_dir: Path) -> None:
    """Stop what `quickcomm up` runs: no new connections, what was said is finished, then nothing is left."""
    layout = Layout(DataDirectory(data_dir))
    try:
        [row] = tell(data_dir, Stop())
    except NotRunningError:
        _clear(layout)
        return
    from quickcomm.topology.adapters.processes import RecordedProcesses  # noqa: PLC0415 - not needed for --help

    async def gone() -> None:
        async with asyncio.timeout(DOWN_WITHIN_S):
            await RecordedProcesses(layout.processes).gone(row["pid"])

    try:
        asyncio.run(gone())
    except TimeoutError:
        message = f"Process {row['pid']} is still stopping after {DOWN_WITHIN_S:.0f} s. See {layout.logs}."
        raise ConfigurationError(message) from None
    click.echo("Stopped.")


@click.command("scale")
@click.argument("wanted", metavar="MODULE=N")
@server_option
def scale_command(wanted: str, data_dir: Path) -> None:
    """Have N processes of a module, while everything runs."""
    module, _, number = wanted.partition("=")
    if not (module and number.isascii() and number.isdigit()):
        raise ConfigurationError("Say it as MODULE=N, such as: quickcomm scale intelligence=2")
    [row] = tell(data_dir, Scale(process=module, replicas=int(number)))
    click.echo(f"{row['module']}: {row['replicas']}")


@click.command("restart")
@click.argument("module")
@server_option
def restart_command(module: str, data_dir: Path) -> None:
    """Replace a module's processes one after the other; each finishes what it has."""
    [row] = tell(data_dir, Restart(process=module))
    click.echo(f"{row['module']} restarted.")


def _clear(layout: Layout) -> None:
    """Nobody answers: perhaps a crash left something."""
    from quickcomm.operate.up.site import clear  # noqa: PLC0415 - seldom needed

    set_up_logs("error", as_json=False)
    with layout.own():
        left = asyncio.run(clear(layout))
    click.echo(f"Stopped what a crash had left: {', '.join(left)}." if left else "Nothing runs.")


def _detach(layout: Layout) -> None:
    """The same command again, in the background, until it says that it is ready."""
    layout.directory.create()
    layout.logs.mkdir(exist_ok=True, mode=0o700)
    file = layout.logs / "up.log"
    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    with file.open("ab") as log:
        began = log.tell()
        child = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "quickcomm.cli.main", *arguments, "--detached"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while True:
        if child.poll() is not None:
            said = file.read_bytes()[began:].decode(errors="replace").splitlines()
            raise ConfigurationError("It did not start:\n" + "\n".join(said[-20:]))
        try:
            [row] = tell(layout.directory.path, AwaitReady())
        except NotRunningError:
            time.sleep(LOOK_EVERY_S)
        else:
            break
    click.echo(f"QuickComm {__version__} is ready: {row['url']}")
    stop = f"quickcomm down{data_dir_flag(layout.directory.path)}"
    click.echo(f"It goes on in the background, and logs to {layout.logs}. Stop it with: {stop}")
    asyncio.run(_first_key(layout.directory.path, row["url"]))


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _autoscales(given: Mapping[str, Any]) -> bool:
    if given["autoscale"] and given["shape"] != SERVICES:
        raise ConfigurationError(
            f"--autoscale needs --deployment {SERVICES}: a {given['shape']} is one process, and services beside it get "
            "their work from a migration."
        )
    return bool(given["autoscale"])


def _tls(certificate: Path | None, key: Path | None) -> "Tls | None":
    from quickcomm.edge.module import Tls  # noqa: PLC0415 - not needed for --help

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigurationError("TLS needs both --tls-cert and --tls-key.")
    if stat.S_IMODE(key.stat().st_mode) & stat.S_IRWXO:
        click.echo(f"Every user of this machine can read the TLS key. Close it: chmod o= {key}", err=True)
    return Tls(certificate=certificate.absolute(), key=key.absolute())


def _keep(layout: Layout, given: Mapping[str, Any]) -> None:
    """Keep the options for an `up` after this one. A disk that is full is no reason not to start."""
    from quickcomm.operate.up.asked import keep  # noqa: PLC0415 - not needed for --help

    try:
        layout.create()
        keep(layout.options, given)
    except OSError as error:
        click.echo(f"The options are not kept, should this be killed: {error}", err=True)


def _as_before(context: click.Context, path: Path) -> dict[str, Any]:
    """Return the options of the `up` that was cut off here, as far as none of them is given now."""
    from quickcomm.operate.up.asked import kept  # noqa: PLC0415 - not needed for --help

    found = kept(path)
    return {
        each.name: each.type_cast_value(context, found[each.name])
        for each in context.command.params
        if each.name in found and not _is_given(context, each.name)
    }


def _runs_already(layout: Layout, wanted: Mapping[str, str]) -> None:
    """Say so, once it is ready. Raises `ConfigurationError` where it runs with other options than are wanted."""
    from quickcomm.operate.up.asked import differences  # noqa: PLC0415 - seldom needed

    data_dir = layout.directory.path
    while True:
        try:
            [running] = tell(data_dir, GetOptions())
            [row] = tell(data_dir, AwaitReady())
            break
        except NotRunningError:
            if not layout.is_owned():  # it was about to stop, or did not start
                raise
            time.sleep(LOOK_EVERY_S)
    ignored = differences(wanted, running)
    if ignored:
        raise ConfigurationError(
            f"QuickComm runs on {data_dir} already, at {row['url']}, with other options. Ignored: "
            f"{', '.join(ignored)}. To change them: quickcomm down{data_dir_flag(data_dir)}, then start it anew."
        )
    click.echo(f"QuickComm runs already: {row['url']}")


async def _first_key(data_dir: Path, url: str) -> None:
    """At the very first start, show a way in: a key to a person at a terminal, else the command that makes one."""
    if any(key["role"] == "admin" for key in await administer(data_dir, ListKeys())):
        return
    key = None
    if is_terminal():
        [made] = await administer(data_dir, CreateKey(role="admin", holder="first start"))
        key = str(made["key"])
    say(*first_start(data_dir, url, key))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
