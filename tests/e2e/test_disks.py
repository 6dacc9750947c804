"""A disk that is full or read-only: nothing is acked that is not durable, and all comes out when there is room."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.mounts import fill, remount, small_disk
from tests.support.resuming import stream
from tests.support.server import Server
from tests.support.talk import RATE, Talk
from tests.support.wire import connected, new_id, spans


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", megabytes=8) as mounted:
        yield mounted


@pytest.fixture
def on_disk(disk: Path, tmp_path: Path) -> Iterator[Server]:
    """A server whose data directory is the small disk; its log is beside it."""
    server = Server(disk)
    assert disk.parent == tmp_path
    try:
        server.start()
        yield server
    finally:
        server.stop()


async def test_a_full_disk(on_disk: Server, disk: Path, talk: Talk) -> None:
    server = on_disk
    before = await stream(server.url, server.key(), talk.wire)
    server.key("read")
    conversation, token = new_id(), secrets.token_urlsafe(32)
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        ballast = fill(disk)
        await wire.send(talk.wire, 3_200)
        await logged(server, "store_failed")
        assert server.get("/healthz").status == 200
        ballast.unlink()
        ended = await wire.end()
    assert spans(wire.heard) == before.places
    assert [event["seq"] for event in wire.durable] == list(range(1, len(wire.durable) + 1))
    assert ended["ledger"]["received"] == talk.samples
    assert "Traceback" not in server.log
    assert "full" in server.log


async def test_killed_on_a_full_disk_nothing_acked_is_missing(on_disk: Server, disk: Path, talk: Talk) -> None:
    """What the client was told stays true when the process dies without having been able to write the rest."""
    server = on_disk
    before = await stream(server.url, server.key(), talk.wire)
    conversation, token = new_id(), secrets.token_urlsafe(32)
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        _, _, first = before.places[0]
        await wire.send(talk.wire[: 2 * (first + RATE)], 3_200)
        await wire.until("utterance")
        ballast = fill(disk)
        await wire.send(talk.wire[2 * (first + RATE) :], 3_200)
        await logged(server, "failed")
        server.kill()
        await wire.until_closed()
    acked = max([0, *(event["offset"] for event in wire.of("ack"))])
    ballast.unlink()
    server.start()
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=wire.last_seq) as again:
        offset = (await again.until("ready"))["next_offset"]
        assert offset >= acked
        await again.send(talk.wire[2 * offset :], 3_200)
        ended = await again.end()
    events = [*wire.heard, *again.heard]
    assert spans(events) == before.places
    durable = [event["seq"] for event in events if "seq" in event]
    assert durable == list(range(1, len(durable) + 1))
    assert ended["ledger"]["received"] == talk.samples


async def logged(server: Server, what: str) -> None:
    """Until the log says so."""
    async with asyncio.timeout(60):
        while what not in server.log:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)


@pytest.mark.long
def test_a_start_on_a_read_only_disk(disk: Path) -> None:
    server = Server(disk)
    server.start()
    server.stop()
    remount(disk, "ro")
    try:
        server.launch()
        assert server.wait() == 1
    finally:
        remount(disk, "rw")
    last = server.log.strip().splitlines()[-1]
    assert last.startswith("quickcomm: ")
    assert "not writable" in last
    assert "Traceback" not in server.log
    server.start()
    server.stop()
