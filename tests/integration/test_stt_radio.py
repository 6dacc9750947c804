"""The engine as a site pack sets it up, on radio talk: first words stay, and nothing of the prompt is invented."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file
from itertools import islice
from typing import Final

import numpy as np
import pytest
import soundfile
from benchmarks.radio import engine_of_pack, first_word_lost
from benchmarks.radio_set.clips import HardClip, hard_clips

from quickcomm.audio.adapters.whisper import Whisper
from quickcomm.audio.adapters.whisper_guards import normal
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.module import cut_offline
from quickcomm.audio.ports import Clip, Effort, Samples, SttTraits, Transcript
from quickcomm.demo_shift import audio_file, load_shift
from quickcomm.kernel.site_pack import load_pack

RATE: Final = 16_000
OFFSETS_MS: Final = (-128, -96, -64, -32, 0, 32, 64, 96, 128)


@pytest.fixture(scope="module")
def engine() -> Iterator[Whisper]:
    whisper = engine_of_pack()
    yield whisper
    whisper.close()


@pytest.fixture(scope="module")
def plain() -> Iterator[Whisper]:
    whisper = engine_of_pack(plain=True)
    yield whisper
    whisper.close()


@dataclass(frozen=True)
class Said:
    """An utterance of the demo shift, and where the front end cuts it in its channel's sound."""

    text: str
    sound: Samples
    start: int
    end: int

    def cut(self, offset_ms: int = 0) -> Clip:
        start = max(0, self.start + offset_ms * RATE // 1000)
        return Clip(samples=self.sound[start : self.end], word_times=False)


class Span:
    """A `SpeechToText` that hears nothing but where somebody speaks."""

    traits = SttTraits(model="none")

    def transcribe(self, clips: Sequence[Clip]) -> list[Transcript]:
        return [Transcript(text="speech")] * len(clips)

    def close(self) -> None: ...


@cache
def said() -> list[Said]:
    found = []
    for channel in load_shift().channels:
        with as_file(audio_file(channel)) as path:
            sound = np.asarray(soundfile.read(path, dtype="int16")[0])
        spans = [(start, end) for start, end, _ in cut_offline(sound, Span(), AudioSettings())]
        assert len(spans) == len(channel.utterances)
        for utterance, (start, end) in zip(channel.utterances, spans, strict=True):
            found.append(Said(utterance.text, sound, round(start * RATE), round(end * RATE)))
    return found


def lost(engine: Whisper, offset_ms: int) -> list[str]:
    """Return the sentences of the demo shift that have lost their first word."""
    found = []
    for one in said():
        text = engine.transcribe([one.cut(offset_ms)])[0].text
        if first_word_lost(one.text, text):
            found.append(f"{one.text} | {text}")
    return found


@pytest.mark.long
@pytest.mark.parametrize("offset_ms", [-64, 32])
def test_first_words_of_the_demo_shift_stay(engine: Whisper, offset_ms: int) -> None:
    assert lost(engine, offset_ms) == []


@pytest.mark.long
@pytest.mark.parametrize("offset_ms", [ms for ms in OFFSETS_MS if ms not in {-64, 32}])
def test_first_words_of_the_demo_shift_stay_wherever_the_clip_begins(engine: Whisper, offset_ms: int) -> None:
    assert lost(engine, offset_ms) == []


def _words(text: str) -> set[str]:
    return set(normal(text).split())


def invented(engine: Whisper, plain: Whisper, clip: HardClip) -> set[str]:
    """Return words of the pack's sentence and list that were not said, and that are not heard without them either."""
    vocabulary = load_pack().vocabulary
    given = {word for word in _words(f"{vocabulary.spoken_before} {' '.join(vocabulary.hotwords)}") if len(word) > 2}
    [heard] = engine.transcribe([Clip(samples=clip.samples, word_times=False)])
    suspects = (_words(heard.text) & given) - _words(clip.text)
    if not suspects:
        return set()
    [without] = plain.transcribe([Clip(samples=clip.samples, word_times=False)])
    return suspects - _words(without.text)


@pytest.mark.long
def test_no_word_of_the_prompt_is_invented(engine: Whisper, plain: Whisper) -> None:
    clips = list(islice(hard_clips(), 0, None, 8))
    assert {clip.text: words for clip in clips if (words := invented(engine, plain, clip))} == {}


@pytest.mark.long
def test_no_word_of_the_prompt_is_invented_in_any_hard_clip(engine: Whisper, plain: Whisper) -> None:
    clips = list(hard_clips())
    assert len(clips) >= 340
    assert {clip.text: words for clip in clips if (words := invented(engine, plain, clip))} == {}


def test_less_effort_is_told_where_it_made_a_difference(engine: Whisper) -> None:
    clips = [one.cut() for one in said()[:12]]
    full = engine.transcribe(clips)
    one = engine.transcribe([Clip(samples=clip.samples, effort=Effort.ONE_OPINION) for clip in clips])
    assert all(transcript.shed == () for transcript in full)
    assert any(transcript.shed == ("second_opinion",) for transcript in one)
    for transcript, other in zip(full, one, strict=True):
        assert other.shed or transcript.text == other.text
