"""`quickcomm bench`: measures this machine, by the benchmarks that come with the source.

They need the tests' tools and real speech, and so are no part of the installed package.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

import quickcomm
from quickcomm.cli.options import json_option
from quickcomm.kernel.errors import ConfigurationError

_PASSED_ON: Final = {"ignore_unknown_options": True, "allow_extra_args": True}
_HOW: Final = """The benchmarks come with QuickComm's source and are no part of the installed package.
In a checkout of the source:
  make install
  export QUICKCOMM_SPEECH_DATA=…        # a folder of real speech with a manifest.jsonl
  .venv/bin/quickcomm bench {name}"""


@click.group("bench")
def bench_group() -> None:
    """Measure this machine. Needs a checkout of the source, and real speech: QUICKCOMM_SPEECH_DATA.

    Further options are handed on: `python -m benchmarks.NAME --help` lists them. All benchmarks: docs/benchmarks.md.
    """


@bench_group.command("capacity", context_settings=_PASSED_ON)
@json_option
@click.pass_context
def capacity_command(ctx: click.Context, *, as_json: bool) -> None:
    """Continuous talkers: how soon their words and cards are back, and the CPU that takes.

    \b
      quickcomm bench capacity --talkers 8,32,48 --seconds 60
    """  # noqa: D301 - click wants the character itself
    _run("capacity", ctx.args, as_json=as_json)


@bench_group.command("hops", context_settings=_PASSED_ON)
@json_option
@click.pass_context
def hops_command(ctx: click.Context, *, as_json: bool) -> None:
    """What each hop costs when idle: a question between services, a message on the bus, a push to a browser.

    \b
      quickcomm bench hops --count 500
    """  # noqa: D301
    _run("hops", ctx.args, as_json=as_json)


@bench_group.command("compare", context_settings=_PASSED_ON)
@click.option("--quick", is_flag=True, help="A trial of minutes; its figures are no result.")
@json_option
@click.pass_context
def compare_command(ctx: click.Context, *, quick: bool, as_json: bool) -> None:
    """Monolith and services taking turns: the most talkers in time, CPU, words wrong; also in rush hour.

    \b
      quickcomm bench compare --loads audio,rush --seconds 60
    """  # noqa: D301
    _run("compare", [*(["--quick"] if quick else []), *ctx.args], as_json=as_json)


@bench_group.command("units", context_settings=_PASSED_ON)
@json_option
@click.pass_context
def units_command(ctx: click.Context, *, as_json: bool) -> None:
    """What one second of speech, utterance, page, query or process costs here: input of `plan` and `simulate`.

    \b
      quickcomm bench units --json > units.json
    """  # noqa: D301
    _run("units", ctx.args, as_json=as_json)


def _run(name: str, arguments: list[str], *, as_json: bool) -> None:
    source = _source()
    if source is None:
        raise ConfigurationError(_HOW.format(name=name))
    with subprocess.Popen(  # noqa: S603 - ours, from our own source
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=source,
        stdout=subprocess.PIPE if as_json else None,
        text=True,
    ) as child:
        last = ""
        for line in child.stdout or ():
            if last:
                click.echo(last, err=True)  # the table, for who watches
            last = line.rstrip("\n")
    if as_json:
        for row in _rows(last):
            click.echo(row)
    sys.exit(child.returncode)


def _rows(last: str) -> Iterator[str]:
    """The last line of a benchmark is its JSON: one object, or a list of them."""
    try:
        told = json.loads(last)
    except ValueError:
        click.echo(last, err=True)  # it failed, and this says why
        return
    for row in told if isinstance(told, list) else [told]:
        yield json.dumps(row, ensure_ascii=False)


def _source() -> Path | None:
    """The checkout that this package is run from."""
    package = Path(quickcomm.__file__).parent
    root = package.parents[1]
    ours = package.parent.name == "src" and (root / "benchmarks" / "capacity.py").is_file()
    return root if ours and (root / "tests" / "support").is_dir() else None
