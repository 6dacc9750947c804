"""`quickcomm audio`, `intelligence`, `dashboard`: the processes of `up --deployment services`, which starts them."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import uvloop

from quickcomm import __version__
from quickcomm.cli.logs import LEVELS, set_up_logs
from quickcomm.cli.options import data_dir_option
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.declaration import Module, moving, service

if TYPE_CHECKING:
    from quickcomm.kernel.runtime.app import More

F = TypeVar("F", bound=Callable[..., Any])
LEVEL: Final = click.Choice(list(LEVELS))
PACK: Final = click.option("--pack", help="Site pack [default: hospitality].")


def _common(function: F) -> F:
    for option in (
        click.option("--log-json", is_flag=True, help="Log JSON lines instead of text."),
        click.option("--log-level", type=LEVEL, default="info", show_default=True),
        data_dir_option,
    ):
        function = option(function)
    return function


@click.command("dashboard")
@_common
def dashboard_command(**given: Any) -> None:
    """The page, REST and live push as a service of its own. Started by: quickcomm up --deployment services.

    Settings as for `serve`. Keeps its database in the directory `dashboard` of the data directory.
    """
    _run("dashboard", given)


@click.command("audio")
@PACK
@click.option("--stt-model", help="Whisper model [default: tiny.en].")
@_common
def audio_command(**given: Any) -> None:
    """Sound in, transcripts out, as a service of its own; one of several processes. Started by: quickcomm up.

    Settings as for `serve`. Conversations are kept in the store.
    """
    _run("audio", given)


@click.command("intelligence")
@PACK
@click.option("--llm-url", help="OpenAI-compatible language model [default: none].")
@click.option("--llm-model", help="Its name.")
@_common
def intelligence_command(**given: Any) -> None:
    """Understands what is said, as a service of its own. Started by: quickcomm up --deployment services.

    Settings as for `serve`. Keeps prompts, costs and results in the site's database, or in PostgreSQL:
    QUICKCOMM_INTELLIGENCE_DATABASE_URL. Then there can be several.
    """
    _run("intelligence", given)


@click.command("relay")
@_common
def relay_command(**given: Any) -> None:
    """Hold the sockets of audio clients while audio moves, restarts or dies. Started by: quickcomm scale relay=1.

    Settings as for `serve`. Keeps nothing but sound that is not acknowledged yet, in memory.
    """
    _run("relay", given)


@click.command("operations")
@_common
def operations_command(**given: Any) -> None:
    """Execute operations that span services, durably. Started by: quickcomm up.

    Settings as for `serve`. Keeps what is under way in the directory `operations` of the data directory.
    """
    from quickcomm.operate.erasure_desk import build  # noqa: PLC0415 - heavy, and not needed for --help

    _run("operations", given, build)


@click.command("traffic")
@_common
def traffic_command(**given: Any) -> None:
    """The controller of migrations, as a process beside the monolith. Started by: quickcomm migrate start.

    Keeps its state and audit in the directory `traffic` of the data directory.
    """
    _run("traffic", given)


def engine_flags(given: Mapping[str, str | int | None]) -> dict[str, object]:
    """Return the settings that options of a command stand for."""
    flags: dict[str, object] = {name.replace("llm_", "llm."): value for name, value in given.items()}
    model = flags.pop("stt_model", None)
    if isinstance(model, str) and model:
        flags["stt.model_path" if Path(model).is_dir() else "stt.model"] = model
    return flags


def leave() -> None:
    """End at once: an engine's thread may be deep in native code, which would abort the process on its way out."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _run(name: str, given: dict[str, Any], *more: "More") -> None:
    """Run a module alone. Its declaration, and what that needs, is loaded for this command only.

    `more`: builds further parts of the process.
    """
    from quickcomm.kernel.runtime.app import serve  # noqa: PLC0415 - heavy, and not needed for --help
    from quickcomm.kernel.runtime.settings import read_sections  # noqa: PLC0415

    data_dir = given.pop("data_dir")
    set_up_logs(given.pop("log_level"), as_json=given.pop("log_json"))
    module: Module = getattr(importlib.import_module(f"quickcomm.{name}.declaration"), name.upper())
    settings = read_sections([module], data_dir, engine_flags(given))

    def ready(_started: object) -> None:
        """Name the service alone: that the whole site is ready, `up` says."""
        click.echo(f"{name} {__version__} is ready.")

    app = moving(module) if settings.instance.side else service(module)
    if not uvloop.run(serve(app, settings, DataDirectory(data_dir), ready, more=more)):
        click.echo("Stopped while starting.", err=True)
    leave()
