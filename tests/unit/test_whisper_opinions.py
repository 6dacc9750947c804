"""Which of several decodings stands, and what is left out for less effort; with a scripted decoder, no model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import numpy as np
import pytest

from quickcomm.audio.adapters import whisper
from quickcomm.audio.adapters.whisper import Whisper, WhisperSettings
from quickcomm.audio.adapters.whisper_decoder import FULL_WINDOW_SECONDS, Decoded, Prompt, Sound
from quickcomm.audio.ports import Clip, ClipWord, Effort, Samples, Transcript
from quickcomm.kernel.model_files import ModelStore

BEFORE: Final = "Hotel radio. Room 907, go ahead."
LIST: Final = "towels, minibar."
FIFTEEN: Final = "Please send somebody up to the ninth floor because the guest there has no hot water."
SURE, DOUBTFUL, LIKELIER, HOPELESS = -0.1, -0.4, -0.3, -0.9


@dataclass
class Scripted:
    """A `Decoder`. `texts`: what is decoded after a prompt, and its mean log probability."""

    texts: dict[str, tuple[str, float]]
    multilingual: bool = False
    asked: list[str] = field(default_factory=list)
    windows: list[float] = field(default_factory=list)

    def prompt(self, text: str) -> Prompt:
        return Prompt(text=text)

    def tokens(self, text: str) -> tuple[int, ...]:
        return tuple(range(len(text.split())))

    def encode(self, clips: Sequence[Samples], window: float) -> list[Sound]:
        self.windows.append(window)
        steps = np.zeros((1, int(window), 1), np.float32)
        return [Sound(encoded=steps, seconds=len(clip) / 16_000) for clip in clips]

    def decode(self, sounds: Sequence[Sound], prompt: Prompt) -> list[Decoded]:
        self.asked += [prompt.text] * len(sounds)
        text, log_prob = self.texts[prompt.text]
        return [
            Decoded(sound=sound, prompt=prompt, tokens=self.tokens(text), text=text, log_prob=log_prob, no_speech=0.01)
            for sound in sounds
        ]

    def words(self, decoded: Sequence[Decoded]) -> list[list[ClipWord]]:
        return [[ClipWord(text=f" {one.text}", start=0.0, end=1.0, confidence=1.0)] for one in decoded]


Heard = Callable[..., tuple[Transcript, Scripted]]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Heard:
    def hear(
        first: tuple[str, float],
        *,
        listed: tuple[str, float] = ("", -9.0),
        plain: tuple[str, float] = ("", -9.0),
        seconds: float = 4.0,
        effort: Effort = Effort.FULL,
    ) -> tuple[Transcript, Scripted]:
        decoder = Scripted({BEFORE: first, LIST: listed, "": plain})
        monkeypatch.setattr(whisper, "Decoder", lambda *_, **__: decoder)
        monkeypatch.setattr(ModelStore, "locate", lambda *_: SimpleNamespace(folder=tmp_path))
        settings = WhisperSettings(spoken_before=BEFORE, hotwords=("towels", "minibar"))
        engine = Whisper(settings, ModelStore(cache=tmp_path))
        clip = Clip(samples=np.full(int(seconds * 16_000), 500, np.int16), effort=effort)
        return engine.transcribe([clip])[0], decoder

    return hear


def test_the_likelier_of_two_doubtful_texts_stands(heard: Heard) -> None:
    transcript, _ = heard(("Send town else up.", DOUBTFUL), listed=("Send towels up.", LIKELIER))
    assert transcript.text == "Send towels up."
    transcript, decoder = heard(("Send a cart up.", LIKELIER), listed=("Send towels up.", DOUBTFUL))
    assert (transcript.text, decoder.asked) == ("Send a cart up.", [BEFORE, LIST])


@pytest.mark.parametrize(("log_prob", "seconds"), [(SURE, 4.0), (HOPELESS, 4.0), (DOUBTFUL, 0.5)])
def test_a_text_that_is_sure_hopeless_or_short_gets_no_second_opinion(
    heard: Heard, log_prob: float, seconds: float
) -> None:
    transcript, decoder = heard(("Send a cart.", log_prob), listed=("Towels.", SURE), seconds=seconds)
    assert (transcript.text, decoder.asked, transcript.shed) == ("Send a cart.", [BEFORE], ())


def test_a_second_opinion_that_adds_a_word_of_the_list_does_not_stand(heard: Heard) -> None:
    transcript, _ = heard(("Send a cart up.", DOUBTFUL), listed=("Send a minibar up.", LIKELIER))
    assert transcript.text == "Send a cart up."


def test_a_second_opinion_that_loops_does_not_stand(heard: Heard) -> None:
    transcript, _ = heard(("Send a cart.", DOUBTFUL), listed=("towels, " * 12, SURE))
    assert transcript.text == "Send a cart."


def test_a_second_opinion_can_be_left_out_and_is_told(heard: Heard) -> None:
    for effort, shed in ((Effort.ONE_OPINION, ("second_opinion",)), (Effort.LEAST, ("second_opinion", "word_times"))):
        transcript, decoder = heard(("Send a cart.", DOUBTFUL), listed=("Towels.", SURE), effort=effort)
        assert (transcript.text, transcript.shed, decoder.asked) == ("Send a cart.", shed, [BEFORE])
        assert bool(transcript.words) == (effort < Effort.LEAST)
        assert heard(("Send a cart.", SURE), effort=effort)[0].shed == shed[1:]


def test_the_words_of_a_doubtful_text_are_never_left_out(heard: Heard) -> None:
    """By their confidence an emergency in it is believed, however busy the engine is."""
    transcript, _ = heard(("There is a fire.", HOPELESS), effort=Effort.LEAST)
    assert [word.text.strip() for word in transcript.words] == ["There is a fire."]
    assert "word_times" not in transcript.shed


def test_words_that_only_the_prompt_says_are_dropped(heard: Heard) -> None:
    transcript, decoder = heard(("Room 907, the pool.", -0.6), plain=("to the pool.", HOPELESS))
    assert (transcript.text, decoder.asked[:2]) == ("to the pool.", [BEFORE, ""])


def test_a_torn_piece_has_no_word_of_the_prompt_that_is_not_heard_without_it(heard: Heard) -> None:
    transcript, _ = heard(("Room is ringing on.", DOUBTFUL), plain=("miss ringing on", HOPELESS), seconds=0.6)
    assert transcript.text == "miss ringing on"
    transcript, _ = heard(("Room is ringing on.", DOUBTFUL), plain=("miss ringing on", HOPELESS))
    assert transcript.text == "Room is ringing on."


def test_words_that_the_prompt_has_and_somebody_said_stay(heard: Heard) -> None:
    transcript, _ = heard(("Yes, go ahead.", -0.6), plain=("yes go ahead", DOUBTFUL))
    assert transcript.text == "Yes, go ahead."
    transcript, _ = heard(("Go ahead, front desk.", DOUBTFUL), plain=("Front desk.", -0.6))
    assert transcript.text == "Go ahead, front desk."


def test_what_is_said_twice_only_after_the_prompt_is_said_once(heard: Heard) -> None:
    twice = "I am going up there. I am going up there."
    assert heard((twice, SURE), plain=("I am going up there.", DOUBTFUL))[0].text == "I am going up there."
    assert heard((twice, SURE), plain=(twice, DOUBTFUL))[0].text == twice


@pytest.mark.parametrize("effort", Effort)
def test_a_long_sentence_that_comes_three_times_in_a_short_clip_is_said_once(heard: Heard, effort: Effort) -> None:
    thrice = (f"{FIFTEEN} {FIFTEEN} {FIFTEEN}", SURE)
    transcript, decoder = heard(thrice, listed=thrice, plain=thrice, effort=effort)
    assert transcript.text.strip(" .") == FIFTEEN.strip(" .")
    assert (FULL_WINDOW_SECONDS in decoder.windows) == (effort < Effort.LEAST)
    assert ("full_window" in transcript.shed) == (effort >= Effort.LEAST)
