"""The clients of the tests obey the contract while audio moves: they come again, and send what is not acknowledged."""

import pytest
from tests.support import wire as wires
from tests.support.scripted import Line, Refuse, scripted, utterance
from tests.support.unacked import Unacked
from tests.support.wire import FollowingWire, connected

PCM = bytes(range(256)) * 10  # 1,280 samples
MESSAGE = 256


@pytest.fixture(autouse=True)
def moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "MOVES", True)


async def handed_over(line: Line) -> None:
    await line.say("reconnect", reason="handover", after_ms=0)
    await line.socket.close(code=1012)


async def test_it_comes_again_and_sends_from_the_last_ack() -> None:
    """Tests see one connection, in which nothing is said twice."""

    async def before(line: Line) -> None:
        await line.ready()
        await line.audio(2 * MESSAGE)
        await line.say("ack", offset=100)
        await line.say("utterance", **utterance(1))
        await handed_over(line)

    async def after(line: Line) -> None:
        assert line.request.query["resume_token"] == "t" * 32
        assert line.request.query["after_seq"] == "1"
        await line.ready(next_offset=100)
        assert await line.audio(len(PCM) - 200) == PCM[200:]
        assert await line.hear() == {"type": "skip", "samples": 16}
        assert await line.hear() == {"type": "end"}
        await line.say("utterance", **utterance(2, start=1_000))
        await line.ended()
        await line.socket.close(code=1000)

    async with (
        scripted(before, Refuse(503, Retry_After="0"), after) as server,
        connected(server.url.rstrip("/"), "K", "c-1", resume_token="t" * 32) as wire,
    ):
        await wire.until("ready")
        await wire.send(PCM, MESSAGE)
        await wire.say(type="skip", samples=16)
        await wire.end()
    assert isinstance(wire, FollowingWire)
    assert wire.hand_overs == 1
    assert [event["type"] for event in wire.heard] == ["ready", "ack", "utterance", "utterance", "ended"]
    assert [event["seq"] for event in wire.durable] == [1, 2]


async def test_it_follows_though_the_test_does_not_hear() -> None:
    async def before(line: Line) -> None:
        await line.ready()
        await handed_over(line)

    async def after(line: Line) -> None:
        await line.ready()
        assert await line.audio(len(PCM)) == PCM
        await line.socket.close(code=1000)

    token = "t" * 32
    async with (
        scripted(before, after) as server,
        connected(server.url.rstrip("/"), "K", "c-1", resume_token=token) as wire,
    ):
        await wire.until("ready")
        await wire.send(PCM, MESSAGE)
        await server.played.wait()
        assert await wire.until_closed() == 1000


async def test_a_drain_is_told() -> None:
    """A drain, for example: its test starts the server again."""

    async def drains(line: Line) -> None:
        await line.ready()
        await line.say("reconnect", reason="drain", after_ms=0)
        await line.socket.close(code=1012)

    async with scripted(drains) as server, connected(server.url.rstrip("/"), "K", "c-1", resume_token="t" * 32) as wire:
        assert (await wire.until("reconnect"))["reason"] == "drain"
        assert await wire.until_closed() == 1012
    assert len(server.requests) == 1


def test_messages_behind_an_offset() -> None:
    """Two bytes a sample: sound and gaps are cut, words keep their place, and what is acknowledged is forgotten."""
    unacked = Unacked(2)
    unacked.begin(10)
    for message in (b"abcdef", {"type": "flush", "offset": 13}, {"type": "skip", "samples": 5}, b"gh", {"type": "end"}):
        unacked.add(message)
        assert unacked.take() == message
    unacked.acknowledged(12)
    unacked.go_back(12)
    assert [unacked.take() for _ in range(6)] == [
        b"ef",
        {"type": "flush", "offset": 13},
        {"type": "skip", "samples": 5},
        b"gh",
        {"type": "end"},
        None,
    ]
    unacked.go_back(16)
    assert [unacked.take() for _ in range(4)] == [{"type": "skip", "samples": 2}, b"gh", {"type": "end"}, None]
    unacked.acknowledged(19)
    unacked.go_back(19)
    assert [unacked.take() for _ in range(2)] == [{"type": "end"}, None]
    for offset in (18, 20):
        with pytest.raises(AssertionError):
            unacked.go_back(offset)


def test_a_client_that_comes_again_still_has_what_is_not_acknowledged() -> None:
    """The process that has the conversation goes on behind the last ack; the other side asks for what lies before."""
    former = Unacked(2)
    former.begin(0)
    for message in (b"abcd", {"type": "flush", "offset": 2}, b"efghij"):
        former.add(message)
        former.take()
    former.acknowledged(1)
    again = Unacked(2)
    again.begin(4, former)
    assert again.take() is None
    again.add(b"IJ")
    assert again.take() == b"IJ"
    again.go_back(1)
    assert [again.take() for _ in range(5)] == [b"cd", {"type": "flush", "offset": 2}, b"efgh", b"IJ", None]
    stranger = Unacked(2)
    stranger.begin(9, former)
    stranger.go_back(9)
    assert stranger.take() is None
