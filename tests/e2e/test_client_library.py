"""The client library and `quickcomm ingest` against the real server, also while that is killed."""

import asyncio
import json
import os
import signal
import time
import wave
from datetime import datetime
from pathlib import Path

import pytest
from tests.e2e.conftest import NewServer
from tests.support.server import Server, command
from tests.support.talk import RATE, Talk
from tests.support.wire import converse, new_id, spans

from quickcomm.client.audio_client import AudioClient, Disconnected, Event
from quickcomm.client.files import FileSource
from quickcomm.client.options import Patience, StreamOptions
from quickcomm.client.sources import Paced
from quickcomm.contracts.audio_socket import Ended, Insights, Utterance


def written(path: Path, talk: Talk) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(talk.wire)
    return path


@pytest.mark.long
async def test_a_server_that_is_killed_in_real_time_is_survived(
    new_server: NewServer, talk: Talk, tmp_path: Path
) -> None:
    server = new_server()
    undisturbed = await converse(server.url, server.key(), talk.wire)
    options = StreamOptions(
        url=server.url, key=server.key(), conversation_id=new_id(), patience=Patience(longest=0.5, connect=3.0)
    )
    client = AudioClient(options, Paced(FileSource(written(tmp_path / "talk.wav", talk))))
    events: list[Event] = []
    async with asyncio.timeout(120), client.stream() as stream:
        async for event in stream:
            if isinstance(event, Utterance) and not any(isinstance(each, Utterance) for each in events):
                server.kill()
                server.launch()  # It comes back while the client goes on trying, and the talk goes on.
            events.append(event)
    assert any(isinstance(event, Disconnected) for event in events)
    said = [event for event in events if isinstance(event, Utterance)]
    assert sorted((e.speaker, e.start_offset, e.end_offset) for e in said) == spans(undisturbed.heard)
    assert {e.utterance_id for e in events if isinstance(e, Insights)} == {e.utterance_id for e in said}
    assert client.delivered
    assert isinstance(events[-1], Ended)
    assert events[-1].ledger.balanced
    assert events[-1].ledger.received == talk.samples


async def ingest(*arguments: str, server: Server, stdin: bytes | None = None) -> tuple[int | None, list[str], str]:
    process = await asyncio.create_subprocess_exec(
        command(),
        "ingest",
        *arguments,
        "--url",
        server.url,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "QUICKCOMM_KEY": server.key()},
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 120)
    return process.returncode, out.decode().splitlines(), err.decode()


async def test_ingest_prints_an_object_an_utterance(server: Server, talk: Talk, tmp_path: Path) -> None:
    undisturbed = await converse(server.url, server.key(), talk.wire)
    files = [str(written(tmp_path / name, talk)) for name in ("one.wav", "two.wav")]
    status, lines, err = await ingest(*files, "--together", "--fast", "--json", "--channel", "ops", server=server)
    assert status == 0, err
    objects = [json.loads(line) for line in lines]
    by_conversation: dict[str, list[tuple[int, int, int]]] = {}
    for each in objects:
        place = (each["speaker"], each["start_offset"], each["end_offset"])
        by_conversation.setdefault(each["conversation_id"], []).append(place)
        assert each["channel"] == "ops"
        assert each["text"]
        assert each["insights"]
        assert each["latency_ms"]["total"] > 0
    assert [sorted(places) for places in by_conversation.values()] == [spans(undisturbed.heard)] * 2


async def test_ingest_reads_raw_audio_on_standard_input(server: Server, talk: Talk) -> None:
    undisturbed = await converse(server.url, server.key(), talk.wire)
    status, lines, err = await ingest("-", "--json", server=server, stdin=talk.wire)
    assert status == 0, err
    assert len(lines) == len(undisturbed.of("utterance"))


async def test_ingest_with_a_wrong_key_says_so_and_fails(server: Server, talk: Talk, tmp_path: Path) -> None:
    path = written(tmp_path / "talk.wav", talk)
    status, lines, err = await ingest(str(path), "--key", "wrong", server=server)
    assert (status, lines) == (1, [])
    assert "401" in err


async def test_a_watched_folder_is_heard_with_the_times_of_its_calls(
    server: Server, talk: Talk, tmp_path: Path
) -> None:
    """Two calls of yesterday, as Trunk Recorder writes them."""
    began = int(time.time()) - 86_400
    for number in range(2):
        written(tmp_path / f"call-{number}.wav", talk)
        told = {"start_time": began + 600 * number, "talkgroup_tag": f"TG {number}", "srcList": [{"src": 4512}]}
        (tmp_path / f"call-{number}.json").write_text(json.dumps(told))
    process = await asyncio.create_subprocess_exec(
        *(command(), "ingest", "--watch", str(tmp_path), "--json", "--url", server.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "QUICKCOMM_KEY": server.key()},
    )
    try:
        async with asyncio.timeout(60):
            heard = tmp_path / ".quickcomm-heard"
            while not heard.exists() or len(heard.read_text().split()) < 2:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
    objects = [json.loads(line) for line in out.splitlines()]
    assert {each["channel"] for each in objects} == {"TG 0", "TG 1"}
    assert all(each["conversation_id"].startswith("4512-call-") for each in objects)
    for number in range(2):
        path = f"/v1/utterances?channel=TG+{number}"
        items = (await server.until(path, lambda body: len(body["items"]) > 0))["items"]
        spoken = [datetime.fromisoformat(each["spoken_at"]).timestamp() - began - 600 * number for each in items]
        assert all(0 < at < talk.samples / 16_000 + 1 for at in spoken)
