"""Copies of sound: a share that stays the same, pieces in order, bounded, and only for who can hear them."""

from typing import Any, Final

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.test_redis_sessions import utterance
from tests.unit.test_audio_share import Followed

from quickcomm.audio.model.formats import Int16
from quickcomm.audio.ports import Stored
from quickcomm.audio.service.hand_over import FRESH_S, Receivers
from quickcomm.audio.service.share import Share
from quickcomm.audio.service.sound_copy import AT_LEAST, MOST_BYTES, QUIET_S, Copies
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.link import Room, ServedText, SoundCopy
from quickcomm.contracts.routes import MONOLITH, SERVICE, Mode, ModuleRoute, Routes, Side
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.messaging.live import Peer

PIECE: Final = 3_200
SERVICES: Final = Peer(module="audio", name="audio-1")


class Source:
    told_until = 0

    def __init__(self, name: str = "c-1", speakers: int = 1) -> None:
        self.id = name
        self.format = AudioFormat(speakers=speakers)

    @property
    def key(self) -> tuple[str, str]:
        return "main", self.id


class Sent:
    """A side that copies, and what it has sent."""

    def __init__(self, portion: float = 1.0, mode: Mode = "shadow", side: Side = MONOLITH) -> None:
        self.clock = FakeClock()
        self.followed = Followed(Routes(version=1, modules={"audio": ModuleRoute(mode=mode)}), 1)
        share = Share(side, self.followed)
        self.receivers = Receivers(share, self.clock)
        self.messages: list[Any] = []
        self.copies = Copies(share, self.receivers, portion, self.messages.append, self.clock)
        self.tell()

    def tell(self, backlog_s: float = 0.0) -> None:
        self.receivers.told(Room(conversations=9, stt_backlog_s=backlog_s), SERVICES)

    def samples(self) -> Int16:
        return np.concatenate([np.frombuffer(each.tracks[0], np.int16) for each in self.messages if each.samples])


def sound(first: int, count: int) -> Int16:
    return np.arange(first, first + count).astype(np.int16)


def test_the_share_is_the_same_each_time_and_about_as_large_as_asked() -> None:
    names = [f"call-{number}" for number in range(2_000)]
    taken = [name for name in names if Sent(0.1).copies.takes(name)]
    assert 140 < len(taken) < 260
    assert [name for name in names if Sent(0.1).copies.takes(name)] == taken
    assert set(taken) <= {name for name in names if Sent(0.3).copies.takes(name)}, "more of them, and no others"
    assert not any(Sent(0.0).copies.takes(name) for name in names)


def said(name: str, start: int = 20) -> UtteranceTranscribed:
    """Something that was said in a conversation."""
    stored = msgspec.convert(
        {"site": "main", "conversation_id": name, "channel": "desk", "format": {}, "epoch": 1, "created": True}
        | {"state": "live", "checkpoints": [], "ledgers": [], "last_seq": 0},
        Stored,
    )
    return utterance(stored, start)


def test_a_few_in_which_somebody_speaks_are_copied_where_the_share_has_none() -> None:
    sent = Sent(1 / BUCKETS)
    sources = [Source(f"call-{number}") for number in range(AT_LEAST + 2)]
    assert not any(sent.copies.takes(source.id) for source in sources)

    def copied(*those: Source) -> set[str]:
        sent.messages.clear()
        for source in those:
            sent.copies.sound(source, 0, [sound(0, PIECE)], PIECE)
        return {each.conversation_id for each in sent.messages}

    assert copied(*sources) == set()
    for source in sources:
        sent.copies.served(said(source.id))
    first = {source.id for source in sources[:AT_LEAST]}
    assert copied(*sources) == first
    sent.copies.over(sources[0].key)
    sent.clock.advance(QUIET_S + 1)
    sent.tell()
    sent.copies.served(said(sources[1].id))
    for source in sources[-2:]:
        sent.copies.served(said(source.id))
    sent.messages.clear()
    assert copied(*sources[-2:]) == {source.id for source in sources[-2:]}
    nothing = Sent(0.0)
    nothing.copies.served(said("call-1"))
    nothing.copies.sound(Source("call-1"), 0, [sound(0, PIECE)], PIECE)
    assert not nothing.messages


@given(st.lists(st.integers(1, 9_000), min_size=1, max_size=12))
def test_all_sound_is_copied_in_order_whatever_the_pieces(pieces: list[int]) -> None:
    sent, source, at = Sent(), Source(), 0
    for count in pieces:
        sent.copies.sound(source, at, [sound(at, count)], count)
        at += count
    sent.copies.over(source.key)
    assert np.array_equal(sent.samples(), sound(0, at))
    assert [each.number for each in sent.messages] == list(range(len(sent.messages)))
    assert all(len(each.tracks[0] or b"") <= MOST_BYTES for each in sent.messages)
    assert sent.messages[-1].over


def test_what_a_client_sends_again_is_copied_once() -> None:
    sent, source = Sent(), Source()
    sent.copies.sound(source, 0, [sound(0, 5_000)], 5_000)
    sent.copies.sound(source, 5_000, [sound(5_000, 100)], 100)
    sent.copies.sound(source, 1_024, [sound(1_024, 6_000)], 6_000)
    sent.copies.sound(source, 2_000, [sound(2_000, 500)], 500)
    sent.copies.over(source.key)
    assert np.array_equal(sent.samples(), sound(0, 7_024))


def test_gaps_keys_and_texts_come_in_their_place() -> None:
    sent, source = Sent(), Source()
    sent.copies.sound(source, 0, [sound(0, 100)], 100)
    sent.copies.flush(source, 100)
    sent.copies.flush(source, 100)  # as each look at a radio whose key was let go
    sent.copies.sound(source, 100, [None], 500)
    sent.copies.served(said("c-1"))
    kinds = [(type(each), each.number) for each in sent.messages]
    assert kinds == [(SoundCopy, 0), (SoundCopy, 1), (SoundCopy, 2), (ServedText, 3)]
    assert [each.flush for each in sent.messages[:3]] == [None, 100, None]
    assert (sent.messages[2].tracks, sent.messages[2].offset, sent.messages[2].samples) == ((None,), 100, 500)


@pytest.mark.parametrize(
    ("mode", "side", "copied"),
    [
        ("off", MONOLITH, False),
        ("shadow", MONOLITH, True),
        ("shadow", SERVICE, False),
        ("canary", MONOLITH, True),
        ("canary", SERVICE, True),
        ("full", MONOLITH, False),
        ("full", SERVICE, False),
    ],
)
def test_the_other_side_gets_copies_while_it_is_compared(mode: Mode, side: Side, copied: bool) -> None:  # noqa: FBT001 - a column
    sent = Sent(mode=mode, side=side)
    peer = SERVICES if side == MONOLITH else Peer(module="monolith", name="monolith")
    sent.receivers.told(Room(conversations=9), peer)
    sent.copies.sound(Source(), 0, [sound(0, PIECE)], PIECE)
    assert bool(sent.messages) is copied


def test_who_does_not_answer_or_has_speech_waiting_gets_nothing_and_later_all_anew() -> None:
    sent, source = Sent(), Source()
    sent.copies.sound(source, 0, [sound(0, PIECE)], PIECE)
    sent.clock.advance(FRESH_S + 1)
    sent.copies.sound(source, PIECE, [sound(PIECE, PIECE)], PIECE)
    sent.tell(backlog_s=0.5)
    sent.copies.sound(source, 2 * PIECE, [sound(2 * PIECE, PIECE)], PIECE)
    sent.tell()
    sent.copies.sound(source, 3 * PIECE, [sound(3 * PIECE, PIECE)], PIECE)
    assert [(each.number, each.offset) for each in sent.messages] == [(0, 0), (0, 3 * PIECE)]


def test_a_conversation_that_goes_elsewhere_is_copied_no_more() -> None:
    sent, source = Sent(), Source()
    sent.copies.sound(source, 0, [sound(0, PIECE)], PIECE)
    sent.copies.forget(Source())  # an older one with its name, let go late
    sent.copies.sound(source, PIECE, [sound(PIECE, PIECE)], PIECE)
    sent.copies.forget(source)
    sent.copies.over(source.key)
    assert [each.number for each in sent.messages] == [0, 1]


def test_of_several_processes_one_hears_a_conversation_for_as_long_as_it_is_there() -> None:
    sent = Sent()
    second = Peer(module="audio", name="audio-2")
    sent.receivers.told(Room(conversations=9), second)
    chosen = {name: sent.receivers.hearer(name) for name in map(str, range(50))}
    assert set(chosen.values()) == {"audio-1", "audio-2"}
    sent.clock.advance(FRESH_S + 1)
    sent.receivers.told(Room(conversations=9), second)
    assert {sent.receivers.hearer(name) for name in chosen} == {"audio-2"}
    sent.tell()
    assert {name: sent.receivers.hearer(name) for name in chosen} == chosen
