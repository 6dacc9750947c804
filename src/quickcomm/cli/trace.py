"""`quickcomm trace`: where the time of one utterance went, from its stored receipt; no tracing backend is needed."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from quickcomm.cli.options import json_option, server_option
from quickcomm.contracts.commands import GetTrace
from quickcomm.operate.tracing import Traced, trace

WIDTH: Final = 40
BAR: Final = "█"
THIN: Final = "▏"
SIDE_WIDTH: Final = len("monolith")


@click.command("trace")
@click.argument("identifier", metavar="UTTERANCE_ID")
@click.option("--site", help="Where several sites have an utterance of that id.")
@server_option
@json_option
def trace_command(identifier: str, site: str | None, data_dir: Path, *, as_json: bool) -> None:
    """The waterfall of an utterance: its stages against their budgets, and what held it up.

    UTTERANCE_ID is on the card, and in GET /v1/utterances; of a caption that has no card it is
    CONVERSATION:SPEAKER:OFFSET, or give the id of the conversation. Names the group that does not read, the partition
    that is full, the hop that is slow, the dead letter and the prompt version, each with its process, its side of a
    migration, and the command that helps. Works while the server runs and while it does not. Exits with 1 where nothing
    is known of it. See docs/find-a-slow-utterance.md.
    """
    traced = asyncio.run(trace(data_dir, identifier, site))
    if as_json:
        click.echo(json.dumps(_as_object(traced), ensure_ascii=False))
        return
    for line in (*_card(traced), *_told(traced)):
        click.echo(line)
    for name, why in traced.unanswered.items():
        click.echo(f"Not asked: {name}. {why}", err=True)


def _as_object(traced: Traced) -> dict[str, Any]:
    rest: dict[str, Any] = msgspec.to_builtins(traced)
    return {**(rest.pop("view") or {}), **rest}


def _card(traced: Traced) -> list[str]:
    if traced.view is not None:
        return drawn(traced.view, bar=_bar_that_prints())
    is_asked = GetTrace.module not in traced.unanswered
    return [f"There is no card of {traced.utterance_id}." if is_asked else "It is not known whether there is a card."]


def _told(traced: Traced) -> Iterator[str]:
    for finding in traced.findings:
        yield f"{finding.code}: {finding.detail}"
        yield f"    → {finding.repair}"
    if traced.understood_by:
        yield traced.understood_by
    if traced.back:
        yield f"    → if it is wrong: {traced.back}"


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
