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

from quickcomm.capacity.adapters.samples import read_input
from quickcomm.capacity.model.assessment import NEEDED, Verdict, assess
from quickcomm.capacity.model.findings import Limits
from quickcomm.capacity.model.samples import Sample, read_samples, record
from quickcomm.cli.options import json_option
from quickcomm.kernel.errors import QuickCommError
from quickcomm.operate.measuring import found_ready, samples_of_site, samples_of_urls
from quickcomm.operate.servers import find_data_dir

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
@click.option(
    "--gpu-in-each-copy",
    is_flag=True,
    help="Judge as if each copy of the monolith had to have its own GPU. QuickComm's can share one over HTTP.",
)
@json_option
def assess_command(
    files: tuple[str, ...],
    *,
    as_json: bool,
    gpu_in_each_copy: bool,
    gpus: int | None,
    have: tuple[str, ...],
    **given: Any,
) -> None:
    """Say "stay", or "split MODULE first, because …", from the metrics of a site over a time.

    Reads FILES of samples (or a sample day by its name), or records a running site into a file first. What it looks
    at, the rules, and days to try it on: docs/should-we-split.md. Exits with 2 where too little was seen, else with 0.
    """
    known = {"gpus": float(gpus)} if gpus is not None else {}
    known |= {f"ready.{name}": 1.0 for name in have}
    samples = [sample for file in files for sample in read_samples(read_input("days", file))]
    if given["urls"] and given["data_dir"] is not None:
        raise click.UsageError("Give --data-dir or --url, not both.")
    if not files:
        samples = asyncio.run(_recorded(known=known, **given))
    if known:
        samples = [msgspec.structs.replace(each, levels={**each.levels, **known}) for each in samples]
    verdict = assess(record(samples), Limits(gpu_in_each_copy=gpu_in_each_copy))
    if as_json:
        click.echo(msgspec.json.encode(verdict).decode())
    else:
        _say(verdict)
    sys.exit(2 if verdict.advice == "not enough" else 0)


# -- inside -----------------------------------------------------------------------------------------------------------


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
    if urls:
        read: Read = partial(samples_of_urls, urls, key)
    else:
        directory = find_data_dir(data_dir, None)
        known = await asyncio.to_thread(found_ready, directory) | known
        read = partial(samples_of_site, directory)
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
