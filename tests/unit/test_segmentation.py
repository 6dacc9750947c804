"""The same sound gives the same utterances: whatever the message sizes, wherever it was interrupted at an ack."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.front_end import Run, Spans
from tests.support.speech import talk

from quickcomm.audio.model.formats import Int16
from quickcomm.audio.model.segmenter import SegmenterSettings, frames
from quickcomm.contracts.audio_socket import AudioFormat

pytestmark = pytest.mark.speech
SLOW = examples(6, suppress_health_check=list(HealthCheck))
IMPATIENT = SegmenterSettings(patient=frames(2_000), longest=frames(3_000), search=frames(600))
"""Cuts often, so that the cutting is tested."""
EAGER = SegmenterSettings(preroll=frames(4_000))
"""Each utterance begins where the last one ended: an ack is possible there alone."""


def chop(samples: Int16, sizes: list[int]) -> list[Int16]:
    pieces, start, turn = [], 0, 0
    while start < len(samples):
        size = sizes[turn % len(sizes)]
        pieces.append(samples[start : start + size])
        start, turn = start + size, turn + 1
    return pieces


def undisturbed(rate: int, seconds: float, how: SegmenterSettings) -> tuple[Spans, Run]:
    run = Run(AudioFormat(sample_rate=rate), settings=how)
    return run.play(chop(talk(rate, seconds), [rate // 10])), run


@SLOW
@given(sizes=st.lists(st.integers(1, 16_000), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 800))
@pytest.mark.parametrize("how", [SegmenterSettings(), IMPATIENT], ids=["default", "cutting"])
def test_message_sizes_do_not_matter(how: SegmenterSettings, sizes: list[int]) -> None:
    expected, _ = undisturbed(16_000, 25, how)
    assert len(expected) >= 3
    assert Run(AudioFormat(), settings=how).play(chop(talk(16_000, 25), sizes)) == expected


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 32_000, 48_000])
@pytest.mark.parametrize("how", [SegmenterSettings(), IMPATIENT, EAGER], ids=["default", "cutting", "eager"])
def test_interrupted_at_any_ack_gives_the_same_spans(rate: int, how: SegmenterSettings) -> None:
    seconds = 40 if rate == 16_000 else 24
    expected, run = undisturbed(rate, seconds, how)
    acks = [checkpoint for checkpoint in run.checkpoints if checkpoint.offset]
    assert len(acks) >= 2
    assert all(checkpoint.offset % AudioFormat(sample_rate=rate).frame == 0 for checkpoint in acks)
    for checkpoint in acks[:: max(1, len(acks) // 6)]:
        rest = talk(rate, seconds)[checkpoint.offset :]
        again = Run(AudioFormat(sample_rate=rate), checkpoint, how).play(chop(rest, [rate // 7]))
        assert again == [span for span in expected if span[0] >= checkpoint.offset], checkpoint.offset
        # What the ack covers is in whole utterances: none reaches across it.
        assert all(end <= checkpoint.offset for start, end in expected if start < checkpoint.offset)


def test_acks_keep_up_with_long_speech() -> None:
    """Somebody who never pauses is cut, and every cut moves the ack."""
    expected, run = undisturbed(16_000, 40, IMPATIENT)
    assert all(end - start <= 16_000 * 3.1 for start, end in expected)
    offsets = [0, *(checkpoint.offset for checkpoint in run.checkpoints)]
    assert max(after - before for before, after in pairwise(offsets)) <= 16_000 * 5.5
    assert any(a[1] == b[0] for a, b in pairwise(expected)), "nothing was cut"


@pytest.mark.parametrize("message", [512, 16_000], ids=["live", "far ahead"])
def test_acks_reach_the_end_of_every_utterance(message: int) -> None:
    """However soon the next one opens, and however much is heard at once."""
    run = Run(AudioFormat(), settings=EAGER)
    spans = run.play(chop(talk(16_000, 40), [message]), end=False)
    assert len(spans) >= 5
    assert any(before[1] == after[0] for before, after in pairwise(spans)), "none opened at once"
    assert {end for _, end in spans} <= {checkpoint.offset for checkpoint in run.checkpoints}


@SLOW
@given(data=st.data())
def test_gaps_restart_the_stream_and_never_touch_speech(data: st.DataObject) -> None:
    rate = 16_000
    sound = talk(rate, 20)
    at = data.draw(st.integers(1, len(sound) - rate), label="at")
    lost = data.draw(st.one_of(st.integers(1, 600), st.integers(600, 200_000)), label="lost")
    run = Run(AudioFormat())
    spans = run.play([*chop(sound[:at], [1600]), lost, *chop(sound[at:], [1600])])
    assert run.track.received == len(sound) + lost
    assert all(end <= at or start >= at + lost for start, end in spans)
    pieces: list[Int16 | int]
    for checkpoint in run.checkpoints:
        if checkpoint.offset < at:
            pieces = [*chop(sound[checkpoint.offset : at], [999]), lost, *chop(sound[at:], [999])]
        elif checkpoint.offset < at + lost:
            pieces = [at + lost - checkpoint.offset, *chop(sound[at:], [999])]
        else:
            pieces = [*chop(sound[checkpoint.offset - lost :], [999])]
        again = Run(AudioFormat(), checkpoint)
        assert again.play(pieces) == [span for span in spans if span[0] >= checkpoint.offset]
        assert again.track.received == run.track.received
        assert again.track.gap == lost


def test_silence_and_noise_are_acked_and_give_nothing() -> None:
    noise = (np.random.default_rng(1).standard_normal(16_000 * 20) * 300).astype(np.int16)
    run = Run(AudioFormat())
    assert run.play(chop(noise, [1600])) == []
    assert run.checkpoints[-1].offset >= len(noise) - 16_000 * 2


def test_a_burst_is_acked_as_it_would_be_in_real_time() -> None:
    """A client that is ahead waits for its acks: they must not depend on how quickly its sound was heard."""
    run = Run(AudioFormat())
    run.play([np.zeros(16_000 * 60, np.int16)], end=False)
    assert run.checkpoints[-1].offset >= 16_000 * 58
