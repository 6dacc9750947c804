"""One speaker's stream: gaps, the padded end, partial frames, counters and checkpoints."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from quickcomm.audio.model.checkpoint import Checkpoint, FrontEndState, decode_checkpoints, encode_checkpoints
from quickcomm.audio.model.formats import ENGINE_FRAME, AudioFormat, Int16
from quickcomm.audio.model.segmenter import SegmenterSettings
from quickcomm.audio.model.track import Click, Opening, Span, Track, TrackEvent

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
        events += track.pass_gaps()
        frames = track.take(min(8, track.stride))
        if not len(frames):
            continue
        track.front_end = STATE
        voice = [1.0 if np.any(frame) else 0.0 for frame in frames]
        sound = np.repeat(np.array(voice) * 1_000, ENGINE_FRAME).astype(np.int16).reshape(-1, ENGINE_FRAME)
        events += track.step(sound, voice, voice)
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
    events = [*work(track), *track.flush()]
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
    events = [*work(track), *track.flush()]
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
    assert track.flush() == []
    assert (track.received, track.gap, track.position) == (0, 0, 0)


@given(whole=st.integers(0, 5), part=st.integers(0, 255))
def test_a_partial_frame_is_forgotten(whole: int, part: int) -> None:
    track = Track(0, RATE_8K, SMALL)
    track.feed(loud(256 * whole + part))
    track.forget_partial_frame()
    assert track.received == 256 * whole
    work(track)
    assert track.drained
    track.forget_partial_frame()
    assert track.received == 256 * whole


@given(before=st.integers(0, 700), lost=st.integers(1, 700), after=st.integers(0, 700))
def test_a_partial_frame_ends_at_a_gap(before: int, lost: int, after: int) -> None:
    """What came before a gap is never asked for again: the gap is durable, and the grid goes on behind it."""
    track = Track(0, RATE_8K, SMALL)
    track.feed(loud(before))
    track.skip(lost)
    track.feed(loud(after))
    track.forget_partial_frame()
    assert before + lost <= track.received <= before + lost + after
    assert track.received % 256 == 0 or track.received == before + lost
    assert track.received + 255 >= before + lost + after
    track.feed(loud(before + lost + after - track.received))
    assert track.received == before + lost + after
    assert track.gap == lost


pieces = st.lists(
    st.one_of(
        st.tuples(st.just("loud"), st.integers(1, 4_000)),
        st.tuples(st.just("quiet"), st.integers(1, 6_000)),
        st.tuples(st.just("lost"), st.integers(1, 3_000)),
    ),
    max_size=12,
)


def give(track: Track, piece: tuple[str, int]) -> None:
    kind, samples = piece
    if kind == "lost":
        track.skip(samples)
    else:
        track.feed(loud(samples) if kind == "loud" else quiet(samples))


@examples(200)
@given(drawn=pieces)
def test_counters_spans_and_checkpoints(drawn: list[tuple[str, int]]) -> None:
    """Checkpoints go forward, on the grid, never into speech that is not settled; nothing is heard inside a gap."""
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
            assert best.offset % 256 == 0
            assert best.offset >= acked
            assert best.offset <= track.received
            assert best.gap == sum(max(0, min(end, best.offset) - start) for start, end in gaps)
            assert track.open_start is None or best.offset <= track.open_start
            assert all(end <= best.offset or start >= best.offset for start, end in found)
            assert decode_checkpoints(encode_checkpoints((best,))) == (best,)
            acked = best.offset
    track.end()
    found += spans([*work(track), *track.flush()])
    assert track.received == sum(samples for _, samples in drawn)
    assert track.gap == sum(end - start for start, end in gaps)
    assert track.drained
    for start, end in found:
        assert all(end <= first or start >= last for first, last in gaps)
    assert all(before[1] <= after[0] for before, after in pairwise(found))


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
    track = Track(0, RATE_8K, SMALL, Checkpoint(offset=2_560, gap=256, start_floor=2_560))
    assert (track.received, track.gap) == (2_560, 256)
    track.feed(loud(10))
    track.forget_partial_frame()
    assert track.received == 2_560


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


def test_an_end_is_final_for_the_partial_frame_too() -> None:
    """Who comes back to hear the rest of an ended talk takes nothing of it away."""
    track = Track(0, AudioFormat(), SegmenterSettings())
    track.feed(np.zeros(700, np.int16))
    track.end()
    track.forget_partial_frame()
    assert track.received == 700
    assert len(track.take(1)) == 1
    track.forget_partial_frame()
    assert track.received == 700
