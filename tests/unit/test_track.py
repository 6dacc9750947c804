"""One speaker's stream: gaps, the padded end, partial frames, counters and checkpoints."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from quickcomm.audio.model.checkpoint import Checkpoint, FrontEndState, decode_checkpoints, encode_checkpoints
from quickcomm.audio.model.formats import ENGINE_FRAME, Int16
from quickcomm.audio.model.segmenter import SegmenterSettings, SegmenterState
from quickcomm.audio.model.track import Click, Opening, Span, Track, TrackEvent
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.kernel.errors import InvalidInputError

SMALL = SegmenterSettings(
    preroll=2, hangover=5, tail=2, min_voiced=3, patient=40, short_hangover=3, longest=60, search=9
)
RATE_8K = AudioFormat(sample_rate=8_000)
STATE = FrontEndState(noise_floor=0.0, hang=0, context=bytes(128), history=b"")


def loud(samples: int) -> Int16:
    return np.full(samples, 1_000, np.int16)


def quiet(samples: int) -> Int16:
    return np.zeros(samples, np.int16)


def work(track: Track, *, snapshots: bool = False) -> list[TrackEvent]:
    """What the front end does, with loudness for voice."""
    events: list[TrackEvent] = []
    while track.has_work:
        events += track.pass_breaks()
        frames = track.take(min(8, track.stride))
        if not len(frames):
            continue
        track.front_end = STATE
        voice = [1.0 if np.any(frame) else 0.0 for frame in frames]
        sound = np.repeat(np.array(voice) * 1_000, ENGINE_FRAME).astype(np.int16).reshape(-1, ENGINE_FRAME)
        found = track.step(sound, voice, voice)
        events += found
        if snapshots and any(
            isinstance(event, Click) or (isinstance(event, Span) and event.complete) for event in found
        ):
            track.snapshot_end(STATE)
        if snapshots:
            track.snapshot()
    return events


def spans(events: list[TrackEvent]) -> list[tuple[int, int]]:
    return [(event.start, event.end) for event in events if isinstance(event, Span) and event.complete]


def test_an_utterance_with_its_sound() -> None:
    track = Track(0, RATE_8K, SMALL)
    track.feed(np.concatenate([quiet(256 * 10), loud(256 * 6), quiet(256 * 10)]))
    opening, paused, span = work(track)
    assert opening == Opening(start=8 * 256)
    assert isinstance(paused, Span)
    assert not paused.complete
    assert isinstance(span, Span)
    assert (span.start, span.end) == (8 * 256, 16 * 256)
    # pre-roll, speech and tail, at 16 kHz
    assert len(span.samples) == (2 + 6 + 2) * ENGINE_FRAME
    assert np.count_nonzero(span.samples) == 6 * ENGINE_FRAME
    assert np.array_equal(span.samples, paused.samples)


def test_a_click_is_told() -> None:
    track = Track(0, RATE_8K, SMALL)
    track.feed(np.concatenate([loud(512), quiet(256 * 10)]))
    assert isinstance(work(track)[-1], Click)


def test_a_gap_ends_what_is_open_and_is_no_speech() -> None:
    track = Track(0, RATE_8K, SMALL)
    track.feed(loud(256 * 6 + 100))
    track.skip(1_000)
    track.feed(loud(256 * 6))
    track.end()
    events = work(track)
    assert spans(events) == [(0, 256 * 6 + 100), (256 * 6 + 1_100, 256 * 12 + 1_100)]
    assert track.received == 256 * 12 + 1_100
    assert track.gap == 1_000


def test_the_end_is_padded_but_never_longer_than_what_came() -> None:
    track = Track(0, RATE_8K, SMALL)
    track.feed(loud(256 * 4 + 7))
    assert work(track)
    assert track.position == 256 * 4
    assert not track.has_work
    track.end()
    events = work(track)
    assert spans(events) == [(0, 256 * 4 + 7)]
    assert track.drained
    assert track.position == track.received == 256 * 4 + 7


def test_nothing_comes_of_nothing() -> None:
    track = Track(0, RATE_8K, SMALL)
    track.feed(quiet(0))
    track.skip(0)
    assert track.drained
    track.end()
    assert not track.has_work
    assert (track.received, track.gap, track.position) == (0, 0, 0)


pieces = st.lists(
    st.one_of(
        st.tuples(st.just("loud"), st.integers(1, 4_000)),
        st.tuples(st.just("quiet"), st.integers(1, 6_000)),
        st.tuples(st.just("lost"), st.integers(1, 3_000)),
        st.tuples(st.just("flush"), st.just(0)),
    ),
    max_size=14,
)


def give(track: Track, piece: tuple[str, int]) -> None:
    kind, samples = piece
    if kind == "lost":
        track.skip(samples)
    elif kind == "flush":
        track.flush()
    else:
        track.feed(loud(samples) if kind == "loud" else quiet(samples))


@examples(200)
@given(drawn=pieces)
def test_counters_spans_and_checkpoints(drawn: list[tuple[str, int]]) -> None:
    """Checkpoints go forward, by whole frames, never into speech that is not settled; nothing is heard inside a gap."""
    track = Track(0, RATE_8K, SMALL)
    gaps: list[tuple[int, int]] = []
    found: list[tuple[int, int]] = []
    acked = 0
    for piece in drawn:
        if piece[0] == "lost":
            gaps.append((track.received, track.received + piece[1]))
        give(track, piece)
        found += spans(work(track, snapshots=True))
        best = track.best_checkpoint(None)
        if best is not None:
            assert (best.offset - best.start_floor) % 256 == 0
            assert best.offset == best.gap + best.silence + sum(
                end - start for start, end in found if end <= best.offset
            )
            assert best.offset >= acked
            assert best.offset <= track.received
            assert best.gap == sum(max(0, min(end, best.offset) - start) for start, end in gaps)
            assert track.open_start is None or best.offset <= track.open_start
            assert all(end <= best.offset or start >= best.offset for start, end in found)
            assert decode_checkpoints(encode_checkpoints((best,))) == (best,)
            acked = best.offset
    track.end()
    found += spans(work(track))
    assert track.received == sum(samples for _, samples in drawn)
    assert track.gap == sum(end - start for start, end in gaps)
    assert track.drained
    last = track.best_checkpoint(None)
    if last is not None:
        assert last.offset == track.received == track.gap + last.silence + sum(end - start for start, end in found)
    for start, end in found:
        assert all(end <= first or start >= last for first, last in gaps)
    assert all(before[1] <= after[0] for before, after in pairwise(found))


class Site:
    """What is durable of one speaker: utterances by their start, each stored together with the checkpoint it allows."""

    def __init__(self) -> None:
        self.published: dict[int, int] = {}
        self.stored = Checkpoint()
        self.begin()

    def begin(self) -> None:
        """A process takes the stream up where the checkpoint is."""
        self.track = Track(0, RATE_8K, SMALL, self.stored)
        self.pending: list[tuple[int, int]] = []

    def hear(self, piece: tuple[str, int]) -> None:
        give(self.track, piece)
        self.pending += spans(work(self.track, snapshots=True))

    def publish(self, most: int) -> None:
        while self.pending and most:
            start, end = self.pending.pop(0)
            self.published.setdefault(start, end)
            self.save()
            most -= 1

    def save(self) -> None:
        best = self.track.best_checkpoint(self.pending[0][0] if self.pending else None)
        self.stored = decode_checkpoints(encode_checkpoints((best,)))[0] if best else self.stored

    def end(self) -> None:
        self.track.end()
        self.pending += spans(work(self.track, snapshots=True))
        self.publish(1_000)
        self.save()


def behind(drawn: list[tuple[str, int]], offset: int) -> list[tuple[str, int]]:
    """What a client sends from `offset` on: it knows its flushes by where they were."""
    at, rest = 0, []
    for kind, samples in drawn:
        left = at + samples - max(at, offset)
        if left > 0 or (kind == "flush" and at >= offset):
            rest.append((kind, max(0, left)))
        at += samples
    return rest


script = st.lists(
    st.tuples(
        st.one_of(
            st.tuples(st.just("loud"), st.integers(1, 4_000)),
            st.tuples(st.just("quiet"), st.integers(1, 6_000)),
            st.tuples(st.just("lost"), st.integers(1, 3_000)),
            st.tuples(st.just("flush"), st.just(0)),
        ),
        st.sampled_from(["", "publish", "save", "flush here", "killed", "publish, killed", "flush here, save, killed"]),
    ),
    max_size=16,
)


@examples(300)
@given(drawn=script)
def test_killed_anywhere_gives_the_same_utterances(drawn: list[tuple[tuple[str, int], str]]) -> None:
    """Also after the server ended what was open by itself; then the client need not say so again."""
    said = [piece for piece, _ in drawn]
    by_itself = any("flush here" in action for _, action in drawn)
    calm = Site()
    for piece in said:
        calm.hear(piece)
    calm.end()
    site = Site()
    for number, (piece, action) in enumerate(drawn, start=1):
        site.hear(piece)
        if "flush here" in action:
            site.hear(("flush", 0))
        if "publish" in action:
            site.publish(1)
        if "save" in action:
            site.save()
        if "killed" in action:
            site.begin()
            for again in behind(said[:number], site.stored.offset):
                site.hear(again)
    site.end()
    found = sorted(site.published.items())
    assert all(before[1] <= after[0] for before, after in pairwise(found)), "said twice"
    if not by_itself:
        assert found == sorted(calm.published.items())
    last = site.stored
    assert last.offset == site.track.received == sum(samples for _, samples in said)
    assert last.offset == last.gap + last.silence + sum(end - start for start, end in found)


def test_what_stands_at_the_place_of_an_older_checkpoint_replaces_it() -> None:
    """Who is flushed where a checkpoint was just kept must restart behind the flush, not before it."""
    track = Track(0, RATE_8K, SMALL)
    track.feed(quiet(256 * 40))
    work(track, snapshots=True)
    track.flush()
    work(track)
    best = track.best_checkpoint(None)
    assert best is not None
    assert (best.offset, best.start_floor) == (256 * 40, 256 * 40)
    again = Track(0, RATE_8K, SMALL, best)
    for life in (track, again):
        life.feed(loud(256 * 4))
    assert work(track) == work(again) == [Opening(start=256 * 40)]


@pytest.mark.parametrize("first", ["flush", "sound"])
def test_a_flush_is_where_it_was_whenever_it_is_said(first: str) -> None:
    """Two transmissions in one burst stay two; said again, or before its sound, it is the same."""
    track = Track(0, RATE_8K, SMALL)
    at = 256 * 6 + 100
    if first == "flush":
        track.flush(at)
    track.feed(loud(at))
    track.flush(at)
    track.feed(loud(256 * 6))
    track.flush(at)
    track.end()
    assert spans(work(track)) == [(0, at), (at, at + 256 * 6)]


def test_flushes_ahead_of_the_sound_are_bounded() -> None:
    track = Track(0, RATE_8K, SMALL)
    for number in range(1_024):
        track.flush(300 * number + 300)
    with pytest.raises(InvalidInputError, match="Too many"):
        track.flush(10**6)
    track.flush(0)
    track.skip(10**6)
    track.flush(10**6 + 1)


@examples(100)
@given(drawn=pieces, unresolved=st.integers(0, 20_000))
def test_no_checkpoint_passes_what_is_unresolved(drawn: list[tuple[str, int]], unresolved: int) -> None:
    track = Track(0, RATE_8K, SMALL)
    for piece in drawn:
        give(track, piece)
        work(track, snapshots=True)
        held = track.best_checkpoint(unresolved)
        assert held is None or held.offset <= unresolved


def test_a_track_starts_where_its_checkpoint_is() -> None:
    track = Track(
        0, RATE_8K, SMALL, Checkpoint(offset=2_560, gap=256, start_floor=2_560, segmenter=SegmenterState(position=10))
    )
    assert (track.received, track.gap) == (2_560, 256)


def test_an_utterance_is_acked_though_the_next_one_opens_at_once() -> None:
    """A speaker whose pauses are never longer than hangover and pre-roll together is not held back for good."""
    how = msgspec.structs.replace(SMALL, preroll=8)
    track = Track(0, RATE_8K, how)
    for _ in range(20):
        track.feed(np.concatenate([loud(256 * 6), quiet(256 * 7)]))
        found = spans(work(track, snapshots=True))
        best = track.best_checkpoint(None)
        assert best is not None
        assert best.offset >= found[-1][1]


@pytest.mark.parametrize("snapshots", [70, 500])
def test_snapshots_are_bounded_and_keep_the_ends(snapshots: int) -> None:
    """Text that comes late holds acks back for long, and costs no memory."""
    track = Track(0, RATE_8K, SMALL)
    for _ in range(snapshots):
        track.feed(quiet(256))
        work(track, snapshots=True)
    assert track.best_checkpoint(256) is not None
    best = track.best_checkpoint(None)
    assert best is not None
    assert best.offset >= 256 * (snapshots - SMALL.preroll - 2)
