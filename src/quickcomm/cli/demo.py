"""`quickcomm demo`: serve, play the sample shift, show what came out and how good it was."""

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Final

import click
import msgspec

from quickcomm.cli.demo_terminal import (
    Keyboard,
    has_person,
    narrated,
    page_opened,
    show_link,
    unless_interrupted,
)
from quickcomm.cli.options import json_option
from quickcomm.client.assembly import UtteranceReport
from quickcomm.demo_shift import Shift, load_shift
from quickcomm.demo_shift.score import Score
from quickcomm.operate.child import server
from quickcomm.operate.demo import DemoResult, new_key, run_shift

CURTAIN_S: Final = 120
"""How long the shift waits for somebody to open the page."""


@click.command("demo")
@click.option("--once", is_flag=True, help="Play at once, and end when the shift is over.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@json_option
def demo_command(port: int, *, once: bool, as_json: bool) -> None:
    """Start a server with a data directory of its own, and play a recorded hotel shift into it, three minutes long.

    On a terminal it waits until you open the page or press Enter; Enter plays the shift again, Ctrl-C ends. The link
    is printed to standard output; with --json, which has objects only there, to standard error. Exits with 0 only if
    every utterance reached the page.
    """
    with tempfile.TemporaryDirectory(prefix="quickcomm-demo-") as folder:
        demo = Demo(Path(folder), port, once=once, as_json=as_json)
        asyncio.run(unless_interrupted(demo.run()))
    if not demo.ended:
        _say("\nStopped before the shift was over.")
    sys.exit(0 if demo.ok and demo.ended else 1)


class Demo:
    """A server, and the shift as often as it is asked for."""

    def __init__(self, folder: Path, port: int, *, once: bool, as_json: bool) -> None:
        self.ok = True
        """Every utterance reached the page, each time."""
        self.ended = False
        """The shift was played to its end, the last time."""
        self._folder = folder
        self._data = folder / "data"
        self._port = port
        self._once = once
        self._as_json = as_json
        self._shift = load_shift()

    async def run(self) -> None:
        """Play until cancelled; once if told so."""
        _say("Starting QuickComm …")
        log = self._folder / "server.log"
        async with contextlib.AsyncExitStack() as stack:
            async with narrated(log, _say):
                url = await stack.enter_async_context(server(self._data, self._port, log))
                key = await new_key(self._data, "admin")
            show_link(f"{url}/#key={key}", as_json=self._as_json)
            if self._once or self._as_json or not has_person():
                await self._play(url)
                if not self._once:
                    _say("\nThe page stays open; Ctrl-C ends it.")
                    await asyncio.Event().wait()
                return
            keyboard = Keyboard()
            with keyboard.listening():
                await _curtain(url, key, keyboard)
                while True:
                    await self._play(url)
                    _say("\nThe page stays open. Enter plays the shift again, Ctrl-C ends.")
                    await keyboard.enter()

    async def _play(self, url: str) -> None:
        self.ended = False
        shift = self._shift
        _say(f"Playing “{shift.title}”: {shift.utterances} utterances on {len(shift.channels)} channels …\n")
        result = await run_shift(shift, url, self._data, _print_json if self._as_json else _print_line)
        _say("\n" + summary(shift, result))
        self.ok = self.ok and result.ok
        self.ended = True


async def _curtain(url: str, key: str, keyboard: Keyboard) -> None:
    """Wait for the page or for Enter."""
    _say(f"The shift begins when the page is open. Enter begins it now; after {CURTAIN_S} s it begins by itself.")
    waiting = [asyncio.ensure_future(page_opened(url, key)), asyncio.ensure_future(keyboard.enter())]
    try:
        await asyncio.wait(waiting, timeout=CURTAIN_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


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
