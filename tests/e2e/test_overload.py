"""Far more speech than can be decoded in its time: it all comes out, in bounded memory, and then life goes on."""

import asyncio
from pathlib import Path
from typing import Final

import pytest
from tests.e2e.conftest import NewServer
from tests.support.resuming import Heard, stream
from tests.support.server import Server
from tests.support.talk import RATE, Talk

from quickcomm.contracts.audio_socket import Insights, Utterance

TALKERS: Final = 24
TIMES: Final = 10
"""So often each one says the whole talk, all at once: more than the window lets in."""
MEGABYTE: Final = 1 << 20


def peak(server: Server) -> int:
    """The most memory that it ever had."""
    assert server._process is not None
    status = Path(f"/proc/{server._process.pid}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))


@pytest.mark.long
async def test_more_speech_than_can_be_decoded(new_server: NewServer, talk: Talk) -> None:
    server = new_server()
    once = await stream(server.url, server.key(), talk.wire)
    before = peak(server)
    sound = talk.wire * TIMES
    async with asyncio.TaskGroup() as tasks:
        talking = [tasks.create_task(stream(server.url, server.key(), sound)) for _ in range(TALKERS)]
    heard = [task.result() for task in talking]
    for each in heard:
        assert each.places == heard[0].places
        complete(each, talk.samples * TIMES)
    assert len(heard[0].places) >= TIMES * (len(once.places) - 1)
    # Each has its window of sound at the server at most, as it came and as the engine wants it, and what is decoded.
    window_s = 120
    assert peak(server) - before < TALKERS * window_s * 2 * 2 * RATE + 256 * MEGABYTE
    after = await stream(server.url, server.key(), talk.wire)  # turned away at first, perhaps: then it comes back
    assert after.places == once.places
    assert "Traceback" not in server.log
    assert server.get("/readyz").status == 200


def complete(heard: Heard, samples: int) -> None:
    """Never cut off, nothing missing, nothing doubled."""
    assert heard.ended.ledger.balanced
    assert heard.ended.ledger.received == samples
    ids = [each.utterance_id for each in heard.utterances]
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == sorted(each.utterance_id for each in heard.insights)
    durable = [event.seq for event in heard.events if isinstance(event, Utterance | Insights)]
    assert durable == list(range(1, len(durable) + 1))
