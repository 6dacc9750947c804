"""`quickcomm trace`: where the time of one utterance went, from its stored receipt; no tracing backend is needed."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from quickcomm.cli.options import json_option, server_option
from quickcomm.contracts.commands import GetTrace
from quickcomm.operate.administration import administer

WIDTH: Final = 40
BAR: Final = "█"
THIN: Final = "▏"
SIDE_WIDTH: Final = len("monolith")


@click.command("trace")
@click.argument("utterance_id")
@click.option("--site", help="Where several sites have an utterance of that id.")
@server_option
@json_option
def trace_command(utterance_id: str, site: str | None, data_dir: Path, *, as_json: bool) -> None:
    """The waterfall of an utterance: its stages against their budgets, and which of them broke its own.

    UTTERANCE_ID is on the card, and in GET /v1/utterances. Works while the server runs and while it does not. Exits
    with 1 where there is no such utterance.
    """
    [view] = asyncio.run(administer(data_dir, GetTrace(utterance_id=utterance_id, site=site)))
    if as_json:
        click.echo(json.dumps(view, ensure_ascii=False))
        return
    for line in drawn(view, bar=_bar_that_prints()):
        click.echo(line)


def drawn(view: dict[str, Any], *, bar: str = BAR) -> list[str]:
    """Lines for a terminal: what an answer of the `trace` command says."""
    steps: list[dict[str, Any]] = view["steps"]
    span = max([view["budget_ms"], view["total_ms"], *(step["start_ms"] + step["ms"] for step in steps)])
    words = max([len(step["words"]) for step in steps], default=0)
    stages = max([len(step["stage"]) for step in steps], default=0)
    lines = [f"{view['utterance_id']} on {view['channel']}, spoken at {view['spoken_at'] or 'an unknown time'}", ""]
    moving = any("side" in step for step in steps)
    for step in steps:
        over = ("  FAILED" if step["fault"] else "") + ("  OVER BUDGET" if step["over"] else "")
        side = f"  {step.get('side', ''):<{SIDE_WIDTH}}" if moving else ""
        name = f"{step['words']:<{words}}  {step['stage']:<{stages}}{side}"
        figures = f"{step['ms']:>8.1f} ms of {step['budget_ms']:>5.0f} ms"
        lines.append(f"{name} {figures}  {_line(step['start_ms'], step['ms'], span, bar)}{over}".rstrip())
    state = "" if view["complete"] else " so far: it has not reached the page"
    over = "  OVER BUDGET" if view["over"] else ""
    lines += ["", f"End of speech to page: {view['total_ms']:.1f} ms of {view['budget_ms']:.0f} ms{state}{over}"]
    lines.append(view["verdict"])
    if view["trace_id"]:
        lines.append(f"Trace id: {view['trace_id']}")
    return lines


def _line(start_ms: float, ms: float, span_ms: float, bar: str) -> str:
    scale = WIDTH / max(span_ms, 1e-9)
    before = min(WIDTH - 1, int(start_ms * scale))
    length = min(WIDTH - before, round(ms * scale))
    drawn_bar = bar * length if length else (THIN if bar == BAR else "|")
    return f"{' ' * before}{drawn_bar}".ljust(WIDTH)


def _bar_that_prints() -> str:
    try:
        (BAR + THIN).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return BAR
