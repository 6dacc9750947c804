"""`quickcomm ingest`: parses, runs, prints. Results go to standard output, progress to standard error."""

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import click
import msgspec

from quickcomm.client.assembly import UtteranceReport
from quickcomm.client.ingest import Ingest, IngestOptions, IngestResult
from quickcomm.client.level import bar
from quickcomm.client.options import DEFAULT_URL, Patience, socket_url
from quickcomm.contracts.audio_socket import ENCODINGS, SAMPLE_RATES, AudioFormat
from quickcomm.kernel.errors import QuickCommError

_FAREWELL_S: Final = 10.0
_INTERRUPTED: Final = 130


@click.command("ingest")
@click.argument("files", nargs=-1, metavar="[FILE…|-]")
@click.option("--url", default=DEFAULT_URL, show_default=True, help="The server.")
@click.option("--key", envvar="QUICKCOMM_KEY", required=True, help="API key with role `ingest` [env: QUICKCOMM_KEY].")
@click.option("--channel", help="Radio channel that the conversations belong to.")
@click.option("--fast", is_flag=True, help="As fast as the server takes it, instead of in real time.")
@click.option("--device", metavar="NAME", help="Sound device: part of its name, or its number.")
@click.option(
    "--watch",
    metavar="DIR",
    help="Folder of recorded calls, sent as they come; channel, radio and time from the JSON beside each.",
)
@click.option(
    "--speakers", type=click.IntRange(1, 2), default=1, help="2: the channels of a stereo file are two speakers."
)
@click.option(
    "--rate",
    type=click.Choice([str(rate) for rate in SAMPLE_RATES]),
    default="16000",
    help="Raw audio and device: samples a second.",
)
@click.option(
    "--encoding", type=click.Choice(ENCODINGS), default="linear16", help="Raw audio: how a sample is written."
)
@click.option(
    "--channels", type=click.IntRange(1, 2), default=1, help="Raw audio and device: 2 = two speakers, interleaved."
)
@click.option("--together", is_flag=True, help="Several files: all at once instead of one after the other.")
@click.option("--conversation", "conversation_id", metavar="ID", help="Id of the conversation (one source only).")
@click.option("--resume-token", metavar="TOKEN", help="Go on with a conversation that was begun with this token.")
@click.option(
    "--give-up-after",
    type=float,
    default=60.0,
    show_default=True,
    help="Files: seconds without any connection. A live source (a device, a pipe in real time) never gives up.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object an utterance, a line each.")
def ingest_command(*, as_json: bool, **given: Any) -> None:
    """Stream FILES, raw audio on standard input (-), a sound device, or the calls of a folder, as a client does.

    A live source goes on by itself whatever the server does: it keeps the last 10 minutes of sound, and begins
    another conversation where the server has ended the one before.

    Exits with 0 only if every conversation ended with a balanced ledger.
    """
    try:
        result = asyncio.run(_run(_options(given), _print_json if as_json else _print_line))
    except QuickCommError as error:
        raise click.ClickException(str(error)) from error
    if result.interrupted:
        sys.exit(_INTERRUPTED)
    sys.exit(0 if result.ok else 1)


def _options(given: dict[str, Any]) -> IngestOptions:
    raw = AudioFormat(
        encoding=given.pop("encoding"), sample_rate=int(given.pop("rate")), speakers=given.pop("channels")
    )
    patience = Patience(give_up_after=given.pop("give_up_after"))
    socket_url(given["url"])  # A wrong address is told before anything is opened.
    given["key"] = given["key"].strip()  # Keys come from files and variables, line end and all.
    return IngestOptions(raw=raw, patience=patience, **given)


async def _run(options: IngestOptions, report: Callable[[UtteranceReport], None]) -> IngestResult:
    """Ctrl-C ends the conversations properly and waits a little; a second one leaves at once."""
    ingest = Ingest(options, report=report, progress=_progress, level=_level)
    loop = asyncio.get_running_loop()
    interrupted = False
    try:
        async with asyncio.timeout(None) as farewell:

            def interrupt() -> None:
                nonlocal interrupted
                farewell.reschedule(loop.time() + (0.0 if interrupted else _FAREWELL_S))
                if not interrupted:
                    interrupted = True
                    ingest.finish()

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, interrupt)
            return await ingest.run()
    except TimeoutError:
        _progress("left before the server had finished; what it acked is safe")
        return IngestResult(conversations=(), interrupted=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _level(level: float) -> None:
    """Show the level of a device, in one line that is written over; a log is told only that nothing comes."""
    if sys.stderr.isatty():
        click.echo(f"\r{bar(level)}", nl=False, err=True)


def _print_json(report: UtteranceReport) -> None:
    click.echo(msgspec.json.encode(report).decode())


def _print_line(report: UtteranceReport) -> None:
    total = report.latency_ms.total
    took = "" if total is None else f" ({total:.0f} ms)"
    click.echo(f"{report.channel or report.conversation_id} [{report.speaker}] {report.text}{took}")
    for insight in report.insights:
        click.echo(f"    {insight.urgency} {insight.intent} → {insight.department}: {insight.summary}")
