"""`quickcomm ingest` from the command line to the exit status, against a scripted server."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import pytest
from tests.support.scripted import INSIGHT, Line, Refuse, scripted, utterance
from tests.support.sounds import tone, write

from quickcomm.cli import ingest as cli_ingest
from quickcomm.client import ingest as ingest_module
from quickcomm.client.ingest import Ingest, IngestOptions, conversation_name, ingest
from quickcomm.client.options import Patience, socket_url
from quickcomm.client.sources import StdinSource
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.contracts.conversations import Ledger
from quickcomm.kernel.errors import InvalidInputError

if TYPE_CHECKING:
    from quickcomm.client.assembly import UtteranceReport

LATENCY = {"endpoint": 500.0, "stt": 120.0, "publish": 2.0, "queue": 1.0, "classify": 9.0, "store": 3.0, "push": 1.0}


class Told:
    def __init__(self) -> None:
        self.reports: list[UtteranceReport] = []
        self.progress: list[str] = []

    @property
    def both(self) -> dict[str, Callable[[Any], None]]:
        return {"report": self.reports.append, "progress": self.progress.append}


def talk(*, receipt: bool = True, ledger: dict[str, int] | None = None) -> Callable[[Line], Any]:
    async def part(line: Line) -> None:
        await line.ready()
        samples = len(await line.until_end()) // 2
        await line.say("utterance", **utterance(1))
        await line.say("insights", seq=2, utterance_id="c-1:0:0", insights=[INSIGHT])
        if receipt:
            await line.say("receipt", utterance_id="c-1:0:0", latency_ms={**LATENCY, "total": 640.0})
        await line.say("utterance", **utterance(3, 1_600))
        await line.ended(**(ledger or {"received": samples, "silence": samples}))

    return part


def options(url: str, *files: Path, **more: Any) -> IngestOptions:
    return IngestOptions(url=url, key="K", files=tuple(str(file) for file in files), fast=True, **more)


async def test_an_utterance_is_reported_when_its_insights_and_its_receipt_are_there(tmp_path: Path) -> None:
    path, told = write(tmp_path / "shift one.wav", 8_000, tone(8_000)), Told()
    async with scripted(talk()) as server:
        result = await ingest(options(server.url, path, channel="hk"), **told.both)
    assert result.ok
    (one,) = result.conversations
    assert one.conversation_id.startswith("shift-one-")
    assert (one.utterances, one.unclassified) == (1, 1)
    (report,) = told.reports
    assert (report.channel, report.text, report.insights[0].rooms) == ("hk", "towels", ("412",))
    assert report.latency_ms.total == 640.0
    assert told.progress[-1].endswith("ended; 8000 samples = 0 speech + 8000 silence + 0 gap")


async def test_without_a_receipt_the_latencies_are_null(tmp_path: Path) -> None:
    path, told = write(tmp_path / "a.wav", 8_000, tone(8_000)), Told()
    async with scripted(talk(receipt=False)) as server:
        assert (await ingest(options(server.url, path), **told.both)).ok
    assert [report.latency_ms.total for report in told.reports] == [None]


async def test_a_receipt_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    reported = asyncio.Event()

    async def part(line: Line) -> None:
        await line.ready()
        await line.until_end()
        await line.say("utterance", **utterance(1))
        await line.say("insights", seq=2, utterance_id="c-1:0:0", insights=[INSIGHT])
        await asyncio.wait_for(reported.wait(), 5)
        await line.ended()

    path = write(tmp_path / "a.wav", 8_000, tone(8_000))
    async with scripted(part) as server:
        hasty = msgspec.structs.replace(options(server.url, path), receipt_wait_s=0.01)
        result = await ingest(hasty, report=lambda _: reported.set(), progress=lambda _: None)
    assert result.ok


async def test_a_pipe_in_real_time_outlives_its_conversation_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def first(line: Line) -> None:
        await line.ready()
        await line.audio(3_200)
        line.cut()

    async def too_late(line: Line) -> None:
        await line.ready(next_offset=800)
        await line.ended(received=800, silence=800)

    async def another(line: Line) -> None:
        assert line.request.query["continues"].startswith("stdin-")
        await line.ready()
        await line.audio(1_600)
        os.close(writing)
        await line.until_end()
        await line.ended(received=800, silence=800)

    reading, writing = os.pipe()
    os.write(writing, tone(8_000)[:1_600].tobytes())
    told = Told()
    monkeypatch.setattr(ingest_module, "StdinSource", partial(StdinSource, descriptor=reading))
    async with scripted(first, Refuse(503), too_late, another) as server:
        raw = AudioFormat(sample_rate=8_000)
        given = IngestOptions(url=server.url, key="K", files=("-",), raw=raw, patience=Patience(give_up_after=0.0))
        result = await ingest(given, **told.both)
    os.close(reading)
    assert result.ok
    assert result.conversations[0].ledger == Ledger(received=1_600, silence=1_600)
    lines = "\n".join(told.progress)
    assert "No connection since" in lines
    assert "keeping the last 10 min of sound" in lines
    assert "the server ended stdin-" in lines
    assert "going on as stdin-" in lines


async def test_a_ledger_that_does_not_balance_is_a_failure(tmp_path: Path) -> None:
    path, told = write(tmp_path / "a.wav", 8_000, tone(8_000)), Told()
    async with scripted(talk(ledger={"received": 8_000, "silence": 7_999})) as server:
        assert not (await ingest(options(server.url, path), **told.both)).ok
    assert "DOES NOT BALANCE" in told.progress[-1]


@pytest.mark.parametrize("together", [False, True])
async def test_each_file_is_a_conversation_and_one_failure_spoils_the_result(tmp_path: Path, together: bool) -> None:  # noqa: FBT001 - a parameter of the test
    files = [write(tmp_path / "a.wav", 8_000, tone(8_000)), tmp_path / "missing.wav", tmp_path / "a.wav"]
    told = Told()
    async with scripted(talk(), talk()) as server:
        result = await ingest(options(server.url, *files, together=together), **told.both)
    assert not result.ok
    assert [each.ok for each in result.conversations] == [True, False, True]
    assert [each.error for each in result.conversations] == [None, "client.source", None]
    assert len({each.conversation_id for each in result.conversations}) == 3


async def test_finish_ends_the_running_one_and_begins_no_other(tmp_path: Path) -> None:
    async def part(line: Line) -> None:
        await line.ready()
        await line.audio(1_600)
        running.finish()
        await line.until_end()
        await line.ended()

    path, told = write(tmp_path / "a.wav", 8_000, tone(8_000, 60)), Told()
    async with scripted(part) as server:
        running = Ingest(IngestOptions(url=server.url, key="K", files=(str(path), str(path))), **told.both)
        result = await running.run()
    assert result.interrupted
    assert len(result.conversations) == 1
    assert result.conversations[0].ledger is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"files": ("a.wav",), "device": "radio"},
        {"files": ("-", "-")},
        {"files": ("a.wav", "b.wav"), "conversation_id": "c"},
    ],
)
async def test_a_command_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        await ingest(IngestOptions(url="http://127.0.0.1:9", key="K", **wrong), **Told().both)


@pytest.mark.parametrize(
    ("url", "socket"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080"),
        ("https://hotel.example/quick/", "wss://hotel.example/quick"),
        ("wss://hotel.example", "wss://hotel.example"),
    ],
)
def test_addresses(url: str, socket: str) -> None:
    assert socket_url(url) == socket


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InvalidInputError):
        socket_url(url)


@pytest.mark.parametrize("source", ["-", "a b.wav", "ä/ö.flac", "x" * 500 + ".mp3"])
def test_conversation_names_are_valid_and_unique(source: str) -> None:
    first, second = conversation_name(source), conversation_name(source)
    assert first != second
    assert len(first) <= 128
    assert set(first) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")


async def test_json_has_the_shape_that_the_contract_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUICKCOMM_KEY", "K")
    path = write(tmp_path / "a.wav", 8_000, tone(8_000))
    async with scripted(talk()) as server:
        arguments = [str(path), "--url", server.url, "--fast", "--json", "--channel", "hk"]
        context = cli_ingest.ingest_command.make_context("ingest", arguments)
        given = dict(context.params)
        assert given.pop("as_json") is True
        result = await cli_ingest._run(cli_ingest._options(given), cli_ingest._print_json)
    assert result.ok
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert list(said) == [
        "utterance_id",
        "conversation_id",
        "channel",
        "speaker",
        "start_offset",
        "end_offset",
        "text",
        "insights",
        "latency_ms",
    ]
    assert {"stt", "publish", "queue", "classify", "store", "push", "total"} <= set(said["latency_ms"])
    assert said["insights"][0]["items"] == [{"name": "towel", "quantity": 2}]


async def test_ctrl_c_ends_the_conversation_properly(tmp_path: Path) -> None:
    async def part(line: Line) -> None:
        await line.ready()
        await line.audio(1_600)
        os.kill(os.getpid(), signal.SIGINT)
        await line.until_end()
        await line.ended()

    path = write(tmp_path / "a.wav", 8_000, tone(8_000, 60))
    async with scripted(part) as server:
        given = IngestOptions(url=server.url, key="K", files=(str(path),))
        result = await cli_ingest._run(given, cli_ingest._print_line)
    assert result.interrupted
    assert result.conversations[0].ledger is not None


def test_the_command_says_what_is_wrong_and_fails() -> None:
    with pytest.raises(click.ClickException, match="looks like http"):
        cli_ingest.ingest_command.main(["a.wav", "--key", "K", "--url", "nowhere"], standalone_mode=False)
    with pytest.raises(SystemExit) as caught:
        cli_ingest.ingest_command.main(["missing.wav", "--key", "K"], standalone_mode=False)
    assert caught.value.code == 1
