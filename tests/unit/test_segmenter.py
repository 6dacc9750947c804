"""The pure segmenter on random streams of probabilities: its promises hold whatever it hears."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from quickcomm.audio.model.segmenter import (
    Closed,
    Dropped,
    Opened,
    Paused,
    QuietPoint,
    Segmenter,
    SegmenterSettings,
    SegmenterState,
    SegmentEvent,
)

SMALL = SegmenterSettings(
    open_frames=2,
    preroll=3,
    hangover=6,
    tail=2,
    min_voiced=4,
    patient=20,
    short_hangover=3,
    longest=30,
    search=10,
)
"""Everything happens within a few frames."""
VOICE, QUIET = 0.9, 0.0
Frame = tuple[float, float]
# Runs of voice, silence and doubt, because single random frames hardly ever make an utterance.
runs = st.lists(
    st.tuples(st.sampled_from([VOICE, QUIET, 0.4]), st.lists(st.integers(0, 9), min_size=1, max_size=40)), max_size=14
)


def spread(drawn: Sequence[tuple[float, list[int]]]) -> list[Frame]:
    return [(probability, float(energy)) for probability, levels in drawn for energy in levels]


def play(segmenter: Segmenter, frames: Sequence[Frame]) -> list[SegmentEvent]:
    return [event for frame in frames if (event := segmenter.step(*frame)) is not None]


def closed(events: Sequence[SegmentEvent]) -> list[Closed]:
    return [event for event in events if isinstance(event, Closed)]


def ended(segmenter: Segmenter, events: list[SegmentEvent]) -> list[SegmentEvent]:
    last = segmenter.flush()
    return [*events, last] if last is not None else events


@examples(300)
@given(runs)
def test_spans_are_ordered_apart_and_not_too_long(drawn: list[tuple[float, list[int]]]) -> None:
    frames = spread(drawn)
    segmenter = Segmenter(SMALL)
    spans = closed(ended(segmenter, play(segmenter, frames)))
    for span in spans:
        assert 0 <= span.start < span.end <= len(frames)
        assert span.end - span.start <= SMALL.longest
    for before, after in pairwise(spans):
        assert before.end <= after.start
        if before.cut:
            assert before.end == after.start or after.start >= before.end


@examples(300)
@given(runs)
def test_what_is_no_cut_has_enough_voice_and_ends_with_it(drawn: list[tuple[float, list[int]]]) -> None:
    frames = spread(drawn)
    segmenter = Segmenter(SMALL)
    for span in closed(ended(segmenter, play(segmenter, frames))):
        voiced = [frame for frame in range(span.start, span.end) if frames[frame][0] >= SMALL.voiced_off]
        if not span.cut:
            assert len(voiced) >= SMALL.min_voiced
            assert voiced[-1] == span.end - 1


@examples(300)
@given(runs)
def test_events_follow_one_another_sensibly(drawn: list[tuple[float, list[int]]]) -> None:
    """Opened, then pauses and quiet points, then one end; a cut leaves the next one open."""
    segmenter = Segmenter(SMALL)
    start = -1
    for event in ended(segmenter, play(segmenter, spread(drawn))):
        if isinstance(event, Opened):
            assert start < 0
            start = event.start
        else:
            assert start >= 0
            if isinstance(event, Paused | Closed | Dropped):
                assert event.start == start
            if isinstance(event, Closed) and event.cut:
                start = event.end
            elif isinstance(event, Closed | Dropped):
                start = -1
    assert segmenter.idle


@examples(200)
@given(runs)
def test_nothing_starts_before_a_safe_point(drawn: list[tuple[float, list[int]]]) -> None:
    segmenter = Segmenter(SMALL)
    safe = 0
    for frame in spread(drawn):
        event = segmenter.step(*frame)
        if isinstance(event, Opened | Closed):
            assert event.start >= safe
        if segmenter.state.start < 0:
            assert segmenter.safe_until >= safe
            safe = segmenter.safe_until


def copy(state: SegmenterState) -> SegmenterState:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=SegmenterState)


@examples(200)
@given(runs)
def test_a_copy_of_the_state_goes_on_as_the_undisturbed_one(drawn: list[tuple[float, list[int]]]) -> None:
    """Wherever nothing is open, and at the quiet point of every cut."""
    frames = spread(drawn)
    segmenter = Segmenter(SMALL)
    copies: list[SegmenterState] = []
    quiet: SegmenterState | None = None
    events: list[SegmentEvent] = []
    for frame in frames:
        event = segmenter.step(*frame)
        if event is not None:
            events.append(event)
        if isinstance(event, QuietPoint):
            quiet = copy(segmenter.state)
            quiet.start, quiet.voiced = event.at, 0
        elif isinstance(event, Closed) and event.cut:
            assert quiet is not None
            assert quiet.start == event.end
            copies.append(quiet)
        if segmenter.state.start < 0:
            copies.append(copy(segmenter.state))
    expected = closed(ended(segmenter, events))
    for state in copies:
        at = state.position
        again = Segmenter(SMALL, copy(state))
        found = closed(ended(again, play(again, frames[at:])))
        assert found == expected[len(expected) - len(found) :]
        assert all(span.end <= at for span in expected[: len(expected) - len(found)])


@examples(200)
@given(levels=st.lists(st.integers(0, 1000), min_size=31, max_size=31))
def test_a_cut_is_at_the_quietest_pair_of_frames(levels: list[int]) -> None:
    frames = [(VOICE, float(energy)) for energy in levels]
    [cut, *_] = closed(play(Segmenter(SMALL), frames))
    assert cut.cut
    first = SMALL.longest - SMALL.search
    pairs = {at: levels[at - 2] + levels[at - 1] for at in range(first, SMALL.longest)}
    assert cut.end in pairs
    assert pairs[cut.end] == min(pairs.values())


def test_an_utterance_is_padded_and_ends_at_its_last_voice() -> None:
    frames = [(QUIET, 1.0)] * 10 + [(VOICE, 9.0)] * 5 + [(QUIET, 1.0)] * 10
    events = play(Segmenter(SMALL), frames)
    assert events == [Opened(7), Paused(7, 15), Closed(7, 15, voiced=5)]


def test_a_click_is_dropped() -> None:
    frames = [(QUIET, 1.0)] * 10 + [(VOICE, 9.0)] * (SMALL.min_voiced - 1) + [(QUIET, 1.0)] * 10
    assert play(Segmenter(SMALL), frames)[-1] == Dropped(7)


def test_one_voiced_frame_opens_nothing() -> None:
    assert play(Segmenter(SMALL), [(VOICE, 9.0), (QUIET, 1.0)] * 20) == []


def test_who_has_spoken_long_is_ended_by_a_shorter_pause() -> None:
    pause = [(QUIET, 0.0)] * SMALL.short_hangover
    short = play(Segmenter(SMALL), [(VOICE, 9.0)] * 10 + pause)
    long = play(Segmenter(SMALL), [(VOICE, 9.0)] * 22 + pause)
    assert closed(short) == []
    assert closed(long) == [Closed(0, 22, voiced=22)]


def test_after_a_flush_it_begins_anew() -> None:
    segmenter = Segmenter(SMALL)
    play(segmenter, [(VOICE, 9.0)] * 5)
    assert segmenter.flush() == Closed(0, 5, voiced=5)
    assert segmenter.flush() is None
    segmenter.restart()
    assert play(segmenter, [(VOICE, 9.0)] * 2) == [Opened(0)]


@pytest.mark.parametrize("silence", [1, 50])
def test_skipped_silence_is_silence(silence: int) -> None:
    skipping, stepping = Segmenter(SMALL), Segmenter(SMALL)
    skipping.skip_silence(silence)
    play(stepping, [(QUIET, 0.0)] * silence)
    speech = [(VOICE, 9.0)] * 6 + [(QUIET, 0.0)] * 6
    assert play(skipping, speech) == play(stepping, speech)
