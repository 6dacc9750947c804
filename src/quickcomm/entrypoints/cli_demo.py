"""`quickcomm demo`: serve, play the sample shift, show what came out and how good it was."""

import asyncio
import sys
import tempfile
from pathlib import Path

import click
import msgspec

from quickcomm.client.assembly import UtteranceReport
from quickcomm.demo_shift import Shift, load_shift
from quickcomm.demo_shift.score import Score
from quickcomm.entrypoints.child import server
from quickcomm.entrypoints.cli_options import json_option
from quickcomm.entrypoints.demo import DemoResult, interrupted, new_key, run_shift, terminal_link


@click.command("demo")
@click.option("--once", is_flag=True, help="End when the shift is over instead of leaving the page open.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@json_option
def demo_command(port: int, *, once: bool, as_json: bool) -> None:
    """Start a server with a data directory of its own, and play a recorded hotel shift into it, three minutes long.

    Exits with 0 only if every utterance reached the page.
    """
    with tempfile.TemporaryDirectory(prefix="quickcomm-demo-") as folder:
        ok = asyncio.run(_demo(Path(folder), port, once=once, as_json=as_json))
    sys.exit(0 if ok else 1)


async def _demo(folder: Path, port: int, *, once: bool, as_json: bool) -> bool:
    shift = load_shift()
    stop = interrupted()
    _say("Starting QuickComm (the first start prepares the models, which takes a minute) …")
    async with server(folder / "data", port, folder / "server.log") as url:
        link = terminal_link(f"{url}/#key={await new_key(folder / 'data', 'admin')}")
        _say(f"Open the page:  {link}")
        _say(f"Playing “{shift.title}”: {shift.utterances} utterances on {len(shift.channels)} channels …\n")
        report = _print_json if as_json else _print_line
        playing = asyncio.ensure_future(run_shift(shift, url, folder / "data", report))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((playing, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not playing.done():
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
            _say("Stopped before the shift was over.")
            return False
        result = playing.result()
        _say("\n" + summary(shift, result))
        if not once:
            _say("\nThe page stays open; Ctrl-C ends it.")
            await stopping
        stopping.cancel()
        return result.ok


def summary(shift: Shift, result: DemoResult) -> str:
    figures: Score = result.score
    rows = [
        ("utterances heard", f"{figures.matched} of {shift.utterances}", f"{figures.extra} extra"),
        ("on the page", "all" if not result.missing else f"{len(result.missing)} MISSING", ""),
        ("words wrong (WER)", f"{figures.word_error_rate:.1%}", ""),
        ("rooms exact", f"{figures.rooms_exact:.0%}", "≥ 90 %"),
        ("intent right", f"{figures.intents_right:.0%}", "≥ 80 %"),
        ("department right", f"{figures.departments_right:.0%}", ""),
        (
            "emergencies found",
            f"{figures.emergencies_found} of {figures.emergencies}",
            f"{figures.false_emergencies} false",
        ),
        ("end of speech → card, p50", _ms(figures.latency_p50_ms), ""),
        ("end of speech → card, p95", _ms(figures.latency_p95_ms), "≤ 1000 ms"),
    ]
    lines = [f"  {name:28} {value:>12}   {note}".rstrip() for name, value, note in rows]
    wrong = [line for line in figures.lines if line.word_errors or not line.rooms_exact or not line.intents_right]
    if wrong:
        lines.append("  What was not quite right (said → heard):")
        lines += [f"    {line.channel}: {line.expected} → {line.heard or '(nothing)'}" for line in wrong]
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _print_json(report: UtteranceReport) -> None:
    click.echo(msgspec.json.encode(report).decode())


def _print_line(report: UtteranceReport) -> None:
    total = report.latency_ms.total
    click.echo(f"{report.channel or '':14} {'' if total is None else f'{total:5.0f} ms'}  {report.text}")
    for insight in report.insights:
        click.echo(f"{'':25}→ {insight.urgency:8} {insight.department:15} {insight.summary}")


def _say(text: str) -> None:
    """For people: beside the results, not among them."""
    click.echo(text, err=True)
