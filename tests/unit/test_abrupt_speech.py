"""Speech that starts abruptly is heard from its first word: behind nothing, tones, key presses and data bursts."""

from collections.abc import Iterator
from functools import cache
from itertools import chain

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.front_end import SILERO, Run
from tests.support.sounds import RATE, Pcm, burst, keys, noises, nothing, page, tone

from quickcomm.audio.adapters.silero import Silero
from quickcomm.audio.model.checkpoint import Checkpoint, FrontEndState, decode_checkpoints, encode_checkpoints
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.demo_shift import ShiftUtterance, audio_file, load_shift

LATE = 0.1
QUIET = nothing(1)
TONE = np.concatenate([QUIET, 2 * tone(RATE, 3.0, 960), nothing(0.6)])
BEFORE = {
    "hard cut": (nothing(5), 0.0),
    "lead-in behind a tone": (TONE, 0.2),
    "hard cut behind a tone": (TONE, 0.0),
    "hard cut just behind a page": (np.concatenate([QUIET, page(), nothing(0.2)]), 0.0),
    "glued to a page": (np.concatenate([QUIET, page()]), 0.0),
    "glued to a data burst": (np.concatenate([QUIET, burst()]), 0.2),
}
"""What comes before the words, and how many seconds of the radio's own lead-in are kept."""


@cache
def shift() -> tuple[tuple[ShiftUtterance, Pcm], ...]:
    return tuple(_shift())


def _shift() -> Iterator[tuple[ShiftUtterance, Pcm]]:
    for channel in load_shift().channels:
        with audio_file(channel).open("rb") as file:
            sound, _ = soundfile.read(file, dtype="int16")
        for said in channel.utterances:
            yield said, sound


def lateness(before: Pcm, lead: float, said: ShiftUtterance, sound: Pcm) -> float:
    """Seconds from the first word to the start of the first utterance that is in it."""
    speech = sound[round((said.start_s - lead) * RATE) : round((said.end_s + 0.3) * RATE)]
    word = len(before) + round(lead * RATE)
    spans = Run(AudioFormat()).play([np.concatenate([before, speech, nothing(1)])])
    return min((start - word) / RATE for start, end in spans if end > word)


@pytest.mark.parametrize("before", BEFORE)
def test_no_utterance_of_the_shift_starts_late(before: str) -> None:
    late = [said.text for said, sound in shift() if lateness(*BEFORE[before], said, sound) > LATE]
    assert late == []


def test_tones_bursts_and_noise_alone_are_no_speech() -> None:
    alone = [
        *(sound for _, sound in noises()),
        *(burst(0.1 + 0.1 * turn, turn) for turn in range(12)),
        *(keys(pressed) for pressed in ("4", "12", "412#", "2214#")),
        *(page(seconds) for seconds in (0.5, 1, 3)),
    ]
    run = Run(AudioFormat())
    assert run.play(chain.from_iterable((sound, nothing(1)) for sound in alone)) == []


@examples(8, suppress_health_check=list(HealthCheck))
@given(
    order=st.lists(st.sampled_from(range(4 * 34)), min_size=3, max_size=4),
    pause=st.floats(0, 1.2),
    size=st.integers(400, 9_000),
)
@pytest.mark.long
def test_interrupted_at_any_ack_behind_tones_and_hard_cuts(order: list[int], pause: float, size: int) -> None:
    parts: list[Pcm] = []
    for pick in order:
        said, sound = shift()[pick % 34]
        speech = sound[round(said.start_s * RATE) : round(min(said.end_s, said.start_s + 2.5) * RATE)]
        parts += [(nothing(1), page(1), burst(), keys("41#"))[pick // 34], nothing(pause), speech, nothing(0.7)]
    whole = np.concatenate(parts)
    run = Run(AudioFormat())
    expected = run.play(whole[at : at + size] for at in range(0, len(whole), size))
    for checkpoint in run.checkpoints:
        again = Run(AudioFormat(), checkpoint).play([whole[checkpoint.offset :]])
        assert again == [span for span in expected if span[0] >= checkpoint.offset]


def test_a_checkpoint_of_the_release_before_is_read() -> None:
    """It has no state of a quiet stream, which was zero then."""
    front_end = FrontEndState(noise_floor=1e-6, hang=0, context=bytes(128), history=b"")
    [old] = decode_checkpoints(encode_checkpoints((Checkpoint(offset=512 * 40, front_end=front_end),)))
    run = Run(AudioFormat(), old)
    assert np.array_equal(run.front_end._now.vad[:, run.lane.slot], SILERO.rest)


def test_rest_is_the_same_in_every_process() -> None:
    assert np.array_equal(Silero().rest, SILERO.rest)
    assert SILERO.rest.any()
