"""`quickcomm audio`, `intelligence`, `dashboard`: the processes of `up --shape services`, which starts them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import uvloop

from quickcomm import __version__
from quickcomm.entrypoints.cli_options import data_dir_option
from quickcomm.entrypoints.logs import LEVELS, set_up_logs

F = TypeVar("F", bound=Callable[..., Any])
LEVEL: Final = click.Choice(list(LEVELS))


def _log_options(function: F) -> F:
    as_json = click.option("--log-json", is_flag=True, help="Log JSON lines instead of text.")(function)
    return click.option("--log-level", type=LEVEL, default="info", show_default=True)(as_json)


@click.command("dashboard")
@data_dir_option
@_log_options
def dashboard_command(data_dir: Path, log_level: str, *, log_json: bool) -> None:
    """The page, REST and live push as a service of its own. Started by: quickcomm up --shape services.

    Settings as for `serve`. Keeps its database in the directory `dashboard` of the data directory.
    """
    from quickcomm.entrypoints.dashboard_service import serve_dashboard  # noqa: PLC0415 - not needed for --help
    from quickcomm.entrypoints.dashboard_settings import DashboardServiceSettings  # noqa: PLC0415
    from quickcomm.entrypoints.setting_sources import read_settings  # noqa: PLC0415

    set_up_logs(log_level, as_json=log_json)
    settings = read_settings(DashboardServiceSettings, data_dir)
    uvloop.run(serve_dashboard(settings, data_dir, _ready("dashboard")))


@click.command("audio")
@data_dir_option
@click.option("--pack", help="Site pack [default: hospitality].")
@click.option("--stt-model", help="Whisper model [default: tiny.en].")
@_log_options
def audio_command(data_dir: Path, pack: str | None, stt_model: str | None, log_level: str, *, log_json: bool) -> None:
    """Sound in, transcripts out, as a service of its own; one of several processes. Started by: quickcomm up.

    Settings as for `serve`. Conversations are kept in the store.
    """
    from quickcomm.entrypoints.audio_service import serve_audio  # noqa: PLC0415 - heavy, and not needed for --help
    from quickcomm.entrypoints.audio_settings import AudioServiceSettings  # noqa: PLC0415
    from quickcomm.entrypoints.setting_sources import read_settings  # noqa: PLC0415

    set_up_logs(log_level, as_json=log_json)
    flags: dict[str, object] = {"pack": pack, **_model_flag(stt_model)}
    settings = read_settings(AudioServiceSettings, data_dir, flags)
    if not uvloop.run(serve_audio(settings, data_dir, _ready("audio"))):
        click.echo("Stopped while starting.", err=True)
    _leave()


@click.command("intelligence")
@data_dir_option
@click.option("--pack", help="Site pack [default: hospitality].")
@click.option("--llm-url", help="OpenAI-compatible language model [default: none].")
@click.option("--llm-model", help="Its name.")
@_log_options
def intelligence_command(data_dir: Path, log_level: str, *, log_json: bool, **given: str | None) -> None:
    """Understands what is said, as a service of its own. Started by: quickcomm up --shape services.

    Settings as for `serve`. Keeps prompts, costs and results in the site's database, or in PostgreSQL:
    QUICKCOMM_INTELLIGENCE_DATABASE_URL. Then there can be several.
    """
    from quickcomm.entrypoints.intelligence_service import serve_intelligence  # noqa: PLC0415 - heavy
    from quickcomm.entrypoints.intelligence_settings import load_intelligence_settings  # noqa: PLC0415

    set_up_logs(log_level, as_json=log_json)
    settings = load_intelligence_settings(
        data_dir, {name.replace("llm_", "llm."): value for name, value in given.items()}
    )
    if not uvloop.run(serve_intelligence(settings, data_dir, _ready("intelligence"))):
        click.echo("Stopped while starting.", err=True)
    _leave()


def _model_flag(stt_model: str | None) -> dict[str, object]:
    if not stt_model:
        return {}
    return {"stt.model_path" if Path(stt_model).is_dir() else "stt.model": stt_model}


def _leave() -> None:
    """As `serve` does: an engine's thread may still be deep in native code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _ready(service: str) -> Callable[[str], None]:
    """Said of the service alone: that the whole site is ready, `up` says."""
    return lambda _url: click.echo(f"{service} {__version__} is ready.")
