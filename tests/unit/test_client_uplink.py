"""The client's bookkeeping: whatever the connection does, the server ends with exactly what the source gave."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.client.files import wire_rate
from quickcomm.client.uplink import PIECE_BYTES, CapturedAt, Uplink
from quickcomm.contracts.audio_socket import AudioFormat, End, Flush, Skip

FORMAT = AudioFormat(sample_rate=8_000)
GAP = b"\xff\xff"


def pcm(start: int, samples: int) -> bytes:
    """Sample n has the value n, so that a sample tells where it belongs."""
    return (np.arange(start, start + samples) % 60_000).astype("<u2").tobytes()


class FakeServer:
    """Holds what arrived, in order; `durable` is what it has acked."""

    def __init__(self) -> None:
        self.heard = b""
        self.durable = 0
        self.ended = False
        self.flushed: set[int] = set()

    def take(self, message: object) -> None:
        match message:
            case bytes():
                assert 0 < len(message) <= 2 * 8_000
                assert len(message) % 2 == 0
                self.heard += message
            case Skip(samples=samples):
                assert samples > 0
                self.heard += GAP * samples
            case Flush(offset=offset):
                assert offset == self.offset
                self.flushed.add(offset)
            case End():
                self.ended = True

    @property
    def offset(self) -> int:
        return len(self.heard) // 2

    def fall_back(self, offset: int) -> None:
        self.heard = self.heard[: 2 * offset]
        self.flushed = {place for place in self.flushed if place < offset}
        self.ended = False


def test_eagerly_what_is_there_is_sent_at_once_and_a_second_at_most() -> None:
    uplink = Uplink(FORMAT, message_ms=1_000, eager=True)
    uplink.on_ready(0, 60_000)
    uplink.append(pcm(0, 3))
    assert (uplink.next_message(), uplink.next_message()) == (pcm(0, 3), None)
    uplink.append(pcm(3, 5_000))
    uplink.append(pcm(5_003, 5_000))
    assert [uplink.next_message() for _ in range(3)] == [pcm(3, 8_000), pcm(8_003, 2_000), None]


def test_it_begins_where_the_conversation_stands() -> None:
    uplink = Uplink(FORMAT, eager=True)
    uplink.begin_at(4_096)
    uplink.on_ready(4_096, 60_000)
    uplink.append(pcm(0, 100))
    assert (uplink.next_message(), uplink.produced) == (pcm(0, 100), 4_196)
    uplink.on_ready(4_096, 60_000)
    assert uplink.next_message() == pcm(0, 100)


def test_a_released_key_is_told_where_it_was_said_to_be() -> None:
    uplink = Uplink(FORMAT, eager=True)
    uplink.on_ready(0, 60_000)
    uplink.append(pcm(0, 100))
    for offset in (50, 50, 300):
        uplink.release(offset)
    assert [uplink.next_message() for _ in range(4)] == [pcm(0, 100), Flush(offset=50), Flush(offset=300), None]


def test_marks_and_pieces_count_as_memory() -> None:
    uplink = Uplink(FORMAT, eager=True)
    uplink.on_ready(0, 60_000)
    for offset in range(1, 101):
        uplink.append_gap(1)
        uplink.release(offset)
    assert uplink.held_bytes == 200 * PIECE_BYTES
    uplink.append(pcm(0, 100))
    assert uplink.held_bytes == 201 * PIECE_BYTES + 200
    while uplink.next_message() is not None:
        pass
    uplink.on_ack(200)
    assert uplink.held_bytes == 0


@given(seed=st.integers(0, 2**32), steps=st.integers(20, 200), message_ms=st.integers(1, 1_000), eager=st.booleans())
def test_whatever_breaks_the_server_hears_the_source_exactly_once(
    seed: int, steps: int, message_ms: int, *, eager: bool
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test
    uplink, server, produced = Uplink(FORMAT, message_ms=message_ms, memory_ms=2_000, eager=eager), FakeServer(), 0
    uplink.on_ready(0, 60_000)
    released: set[int] = set()
    for _ in range(steps):
        match chance.choice(["produce", "produce", "release", "send", "send", "ack", "drop"]):
            case "release" if produced:
                uplink.release()
                released.add(produced)
            case "produce" if uplink.room:
                size = chance.randint(1, 3_000)
                uplink.append(pcm(produced, size))
                produced += size
            case "send" if (message := uplink.next_message()) is not None:
                server.take(message)
            case "ack":
                server.durable = chance.randint(server.durable, server.offset)
                uplink.on_ack(server.durable)
            case "drop":
                # It may have more than it acked, and it may lose that again at the next drop.
                server.fall_back(chance.randint(server.durable, server.offset))
                uplink.on_ready(server.offset, 60_000)
    uplink.finish()
    while not server.ended:
        while (message := uplink.next_message()) is not None:
            server.take(message)
        uplink.on_ack(server.offset)
    assert server.heard == pcm(0, produced)
    assert server.flushed == released
    assert uplink.acked == uplink.produced == produced


@given(seed=st.integers(0, 2**32))
def test_a_live_source_that_overruns_declares_exactly_what_it_lost(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test
    uplink, server, produced = Uplink(FORMAT, memory_ms=2_000, live=True), FakeServer(), 0
    uplink.on_ready(0, 60_000)
    for _ in range(100):
        uplink.append(pcm(produced, size := chance.randint(1, 1_600)))
        produced += size
        assert uplink._held <= 16_000
        if chance.random() < 0.2:
            while (message := uplink.next_message()) is not None:
                server.take(message)
            uplink.on_ack(chance.randint(uplink.acked, server.offset))
        if chance.random() < 0.2:
            server.fall_back(chance.randint(uplink.acked, server.offset))
            uplink.on_ready(server.offset, 60_000)
    uplink.finish()
    while not server.ended:
        while (message := uplink.next_message()) is not None:
            server.take(message)
        uplink.on_ack(server.offset)
    assert server.offset == produced
    truth, heard = (np.frombuffer(each, "<u2") for each in (pcm(0, produced), server.heard))
    gaps = heard == 0xFFFF
    assert np.array_equal(heard[~gaps], truth[~gaps])
    assert gaps.sum() <= uplink.lost
    assert not gaps[-16_000:].any()


def test_another_conversation_begins_with_what_the_ended_one_does_not_have() -> None:
    uplink = Uplink(FORMAT, live=True)
    uplink.append(pcm(0, 3_200))
    uplink.on_ready(0, 60_000)
    for _ in range(3):
        uplink.next_message()
    uplink.on_ack(400)
    uplink.begin_anew(1_000)
    assert (uplink.acked, uplink.position, uplink.produced) == (0, 0, 2_200)
    uplink.append(pcm(3_200, 800))
    uplink.on_ready(0, 60_000)
    heard = b""
    while isinstance(message := uplink.next_message(), bytes):
        heard += message
    assert heard == pcm(1_000, 2_400)
    assert uplink.produced == 3_000


def test_what_was_lost_is_a_gap_of_the_conversation_that_goes_on() -> None:
    uplink = Uplink(FORMAT, live=True, memory_ms=2_000)
    uplink.on_ready(0, 60_000)
    uplink.append(pcm(0, 8_000))
    uplink.begin_anew(4_000)
    uplink.append(pcm(8_000, 24_000))
    uplink.on_ready(0, 60_000)
    assert uplink.next_message() == Skip(samples=12_000)
    assert uplink.next_message() == pcm(16_000, 800)


def test_it_says_when_sound_was_captured_at_first_and_where_the_clock_moves() -> None:
    uplink = Uplink(FORMAT, live=True)
    uplink.append(pcm(0, 1_600), 10.2)
    uplink.append(pcm(1_600, 800), 10.31)
    uplink.append(pcm(2_400, 1_600), 70.2)  # after a pause of nearly a minute
    uplink.finish()
    uplink.on_ready(0, 60_000)
    said = [uplink.next_message() for _ in range(7)]
    first, later = said[0], said[4]
    assert isinstance(first, CapturedAt)
    assert isinstance(later, CapturedAt)
    assert (first.offset, later.offset) == (0, 2_400)
    assert [first.at, later.at] == [pytest.approx(10.0), pytest.approx(70.0)]
    assert b"".join(each for each in said if isinstance(each, bytes)) == pcm(0, 4_000)
    uplink.on_ack(1_000)
    uplink.on_ready(1_000, 60_000)
    again = uplink.next_message()
    assert isinstance(again, CapturedAt)
    assert again.offset == 1_000
    assert again.at == pytest.approx(10.125)


def test_it_never_runs_ahead_of_the_window() -> None:
    uplink, server = Uplink(FORMAT, message_ms=100), FakeServer()
    uplink.on_ready(0, 5_000)
    uplink.append(pcm(0, 80_000))
    while (message := uplink.next_message()) is not None:
        server.take(message)
    assert server.offset == 40_000
    uplink.on_ack(800)
    assert uplink.next_message() == pcm(40_000, 800)
    assert uplink.next_message() is None


def test_what_the_server_lost_after_acking_it_is_a_gap() -> None:
    uplink = Uplink(FORMAT)
    uplink.on_ready(0, 60_000)
    uplink.append(pcm(0, 1_600))
    assert [uplink.next_message(), uplink.next_message()] == [pcm(0, 800), pcm(800, 800)]
    uplink.on_ack(1_000)
    uplink.on_ready(400, 60_000)
    uplink.finish()
    assert uplink.next_message() == Skip(samples=600)
    assert uplink.next_message() == pcm(1_000, 600)
    assert uplink.next_message() == End()
    assert uplink.next_message() is None


def test_a_new_client_leaves_out_what_its_earlier_life_sent() -> None:
    uplink = Uplink(FORMAT)
    uplink.append(pcm(0, 500))
    uplink.on_ready(2_000, 60_000)
    uplink.append(pcm(500, 1_000))
    uplink.append(pcm(1_500, 1_000))
    uplink.finish()
    assert uplink.next_message() == pcm(2_000, 500)
    assert uplink.next_message() == End()


def test_a_live_source_joins_where_the_conversation_stands() -> None:
    uplink = Uplink(FORMAT, live=True)
    uplink.append(pcm(0, 800))
    uplink.on_ready(2_000, 60_000)
    assert uplink.next_message() == pcm(0, 800)
    assert uplink.position == uplink.produced == 2_800


def test_the_end_is_said_again_on_a_new_connection() -> None:
    uplink = Uplink(FORMAT)
    uplink.finish()
    uplink.on_ready(0, 60_000)
    assert [uplink.next_message(), uplink.next_message()] == [End(), None]
    uplink.on_ready(0, 60_000)
    assert uplink.next_message() == End()


def test_two_speakers_are_counted_a_speaker() -> None:
    fmt = AudioFormat(encoding="mulaw", sample_rate=8_000, speakers=2)
    uplink = Uplink(fmt)
    uplink.on_ready(0, 60_000)
    uplink.append(bytes(3_200))
    assert uplink.produced == 1_600
    assert uplink.next_message() == bytes(1_600)
    assert uplink.position == 800


@pytest.mark.parametrize(("rate", "sent"), [(48_000, 48_000), (44_100, 16_000), (22_050, 16_000), (11_025, 8_000)])
def test_sound_of_any_rate_is_sent_at_one_that_the_wire_has(rate: int, sent: int) -> None:
    assert wire_rate(rate) == sent


@pytest.mark.parametrize("wrong", [{"sample_rate": 44_100}, {"speakers": 3}, {"encoding": "opus"}])
def test_formats_that_the_wire_lacks_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        AudioFormat(**wrong)  # type: ignore[arg-type]


def test_what_is_left_of_a_transmission_goes_at_once() -> None:
    """The last word must not wait for a message to become full."""
    uplink = Uplink(FORMAT, message_ms=100)
    uplink.on_ready(0, 60_000)
    uplink.append(pcm(0, 1_000))
    assert [uplink.next_message(), uplink.next_message()] == [pcm(0, 800), None]
    uplink.release()
    assert [uplink.next_message() for _ in range(3)] == [pcm(800, 200), Flush(offset=1_000), None]
