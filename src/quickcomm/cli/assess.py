"""`quickcomm assess`: looks at a running site, or at samples of one, and says whether to split it."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
import msgspec

import quickcomm.capacity
from quickcomm.capacity.adapters.metrics import sample_of
from quickcomm.capacity.model.assessment import NEEDED, Verdict, assess
from quickcomm.capacity.model.findings import MODULES
from quickcomm.capacity.model.samples import Sample, read_samples, record
from quickcomm.cli.options import json_option
from quickcomm.contracts.commands import GetMetrics
from quickcomm.kernel.errors import ConfigurationError, NotFoundError, QuickCommError
from quickcomm.kernel.runtime.admin_socket import Rows, ask
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.operate.administration import administer
from quickcomm.operate.erasures import copies
from quickcomm.operate.servers import find_data_dir
from quickcomm.operate.settings import load_settings
from quickcomm.operate.up.client import topology_status
from quickcomm.operate.up.layout import Layout

MONOLITH: Final = "monolith"
BACKUP_DAYS: Final = 7
DAYS: Final = Path(quickcomm.capacity.__file__).parent / "samples" / "days"
"""Of made-up sites, to try it on."""
ANSWER_S: Final = 10.0
UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
Read = Callable[[], Awaitable[list[Sample]]]


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    try:
        return float(value[:-1]) * UNITS[value[-1:]]
    except (ValueError, KeyError):
        raise click.BadParameter(f"{value!r} is no time; write it as 90s, 10m or 24h") from None


@click.command("assess")
@click.argument("files", nargs=-1, metavar="[FILE…]")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="QUICKCOMM_DATA_DIR",
    show_default="that of the one running server",
    help="Of a site on this machine.",
)
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="[MODULE=]URL",
    help="Of the metrics of a process, such as http://host:8080/metrics; several of services.",
)
@click.option("--key", envvar="QUICKCOMM_KEY", help="API key with role `read`, for --url [env: QUICKCOMM_KEY].")
@click.option(
    "--for", "seconds", callback=_seconds, default="10m", show_default=True, help="How long to look; a day says most."
)
@click.option("--every", callback=_seconds, default="10s", show_default=True, help="Between two samples.")
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    default="assess.jsonl",
    show_default=True,
    help="Where samples are added, to be read again.",
)
@click.option("--gpus", type=click.IntRange(0), help="GPUs of this machine that are there for the language model.")
@click.option(
    "--have", multiple=True, type=click.Choice(list(NEEDED)), help="What is there, where it is not found by itself."
)
@json_option
def assess_command(
    files: tuple[str, ...], *, as_json: bool, gpus: int | None, have: tuple[str, ...], **given: Any
) -> None:
    """Say "stay", or "split MODULE first, because …", from the metrics of a site over a time.

    Reads FILES of samples (or a sample day by its name), or records a running site into a file first. What it looks
    at, the rules, and days to try it on: docs/should-we-split.md. Exits with 2 where too little was seen, else with 0.
    """
    known = {"gpus": float(gpus)} if gpus is not None else {}
    known |= {f"ready.{name}": 1.0 for name in have}
    samples = [sample for file in files for sample in read_samples(_content(file))]
    if not files:
        samples = asyncio.run(_recorded(known=known, **given))
    if known:
        samples = [msgspec.structs.replace(each, levels={**each.levels, **known}) for each in samples]
    verdict = assess(record(samples))
    if as_json:
        click.echo(msgspec.json.encode(verdict).decode())
    else:
        _say(verdict)
    sys.exit(2 if verdict.advice == "not enough" else 0)


# -- inside -----------------------------------------------------------------------------------------------------------


def _content(name: str) -> bytes:
    """Read a file, or the sample day of this name."""
    path = Path(name)
    if not path.is_file():
        path = DAYS / f"{name}.jsonl"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in DAYS.glob("*.jsonl")))
        raise NotFoundError(f"{name} is no file, and no sample day. There are: {known}.")
    return path.read_bytes()


def _say(verdict: Verdict) -> None:
    click.echo(verdict.says)
    for finding in verdict.findings:
        click.echo(f"  {finding.rule:14} {finding.says}")
    for heading, lines in (("What would change this:", verdict.would_change), ("Not known:", verdict.missing)):
        if lines:
            click.echo("\n".join([heading, *(f"  {line}" for line in lines)]))


async def _recorded(
    *,
    data_dir: Path | None,
    urls: Sequence[str],
    key: str | None,
    seconds: float,
    every: float,
    save: Path,
    known: dict[str, float],
) -> list[Sample]:
    """Take samples for so long, and add each to a file. Raises `QuickCommError` where the first one fails."""
    if urls and data_dir is not None:
        raise click.UsageError("Give --data-dir or --url, not both.")
    if urls:
        read: Read = partial(_of_urls, urls, key)
    else:
        directory = find_data_dir(data_dir, None)
        known = await asyncio.to_thread(_ready, directory) | known
        read = partial(_of_site, directory)
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    click.echo(
        f"Looking until {until:%H:%M}Z. Samples go to {save}; read them again with: quickcomm assess {save}", err=True
    )
    samples: list[Sample] = []
    end = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        try:
            found = [msgspec.structs.replace(each, levels={**each.levels, **known}) for each in await read()]
        except (QuickCommError, aiohttp.ClientError, OSError, TimeoutError) as error:
            if not samples:
                raise
            click.echo(f"No sample at {datetime.now(UTC):%H:%M:%S}Z: {error}", err=True)
            found = []
        with save.open("ab") as file:
            file.writelines(msgspec.json.encode(each) + b"\n" for each in found)
        samples += found
        if began + every > end:
            return samples
        await asyncio.sleep(began + every - time.monotonic())


async def _of_urls(urls: Sequence[str], key: str | None) -> list[Sample]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    found = []
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as client:
        for given in urls:
            named, is_named, address = given.partition("=http")
            module, url = (named, f"http{address}") if is_named else (MONOLITH, given)
            async with client.get(url) as answer:
                if answer.status in {401, 403}:
                    raise ConfigurationError(f"{url} wants a key that may read: --key. {await answer.text()}")
                answer.raise_for_status()
                text, machine = await answer.text(), answer.url.host or ""
            found.append(sample_of(text, time.time(), f"{module}@{answer.url.authority}", module, machine=machine))
    return found


async def _of_site(data_dir: Path) -> list[Sample]:
    """Return a sample of each process that has metrics: of `serve` one, of `up` those of its modules."""
    status = await asyncio.to_thread(topology_status, data_dir)
    if not status:
        rows = await administer(data_dir, GetMetrics(), needs_server=True, timeout_s=ANSWER_S)
        return [sample_of(rows[0]["text"], time.time(), MONOLITH, MONOLITH)]
    layout = Layout(DataDirectory(data_dir))
    own = {MONOLITH: layout.directory.socket, "dashboard": layout.directory.dashboard.socket}
    found = []
    for row in status:
        for socket in (layout.administration(row["process"]), own.get(row["module"])):
            if socket is not None and socket.exists():
                rows = await _asked(socket)
                found += [sample_of(each["text"], time.time(), row["process"], row["module"]) for each in rows]
                break
    return [each for each in found if each.module in {MONOLITH, *MODULES}]


async def _asked(socket: Path) -> Rows:
    """Return nothing for a process that has just ended: its steps are missing then."""
    try:
        return await ask(socket, GetMetrics(), ANSWER_S)
    except (QuickCommError, aiohttp.ClientError, OSError, TimeoutError):
        return []


def _ready(data_dir: Path) -> dict[str, float]:
    """Return what of the things that a split needs is found in the data directory."""
    last = max((datetime.fromisoformat(each.taken_at) for each in copies(DataDirectory(data_dir))), default=None)
    found = {
        "tracing": bool(load_settings(data_dir).telemetry.otlp_url),
        "tokens": Layout(DataDirectory(data_dir)).is_owned(),
        "backups": last is not None and last > datetime.now(UTC) - timedelta(days=BACKUP_DAYS),
    }
    return {f"ready.{name}": float(value) for name, value in found.items()}
