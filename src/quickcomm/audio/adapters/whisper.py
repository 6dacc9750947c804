"""Whisper on CTranslate2: clips in, transcripts out; called by the transcription workers.

Decodes in batches, with a short encoder window and one radio sentence as what was said before; asks for a second
opinion where the first is doubtful; drops what the audio does not support; writes numbers as on the door. Why the
window may be short: docs/adr/0003-whisper-short-window.md. Why a sentence: docs/adr/0028-a-sentence-before.md.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from quickcomm.audio.adapters import whisper_guards as guards
from quickcomm.audio.adapters.whisper_decoder import (
    FULL_WINDOW_SECONDS,
    NO_PROMPT,
    Decoded,
    Decoder,
    Prompt,
)
from quickcomm.audio.adapters.whisper_features import SAMPLE_RATE
from quickcomm.audio.adapters.whisper_models import model_spec
from quickcomm.audio.adapters.whisper_words import write_words
from quickcomm.audio.ports import (
    LIKE_SECONDS,
    Clip,
    ClipTooLongError,
    ClipWord,
    Effort,
    EngineError,
    EngineOptions,
    Samples,
    SttTraits,
    Transcript,
    length_step,
)
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.model_files import LocatedModel, ModelStore
from quickcomm.kernel.spoken_numbers import write_numbers

_DOUBTED_LANGUAGE = -0.5
"""Mean log-probability of a text from which its language is not looked at."""
_WORDS_DECIDE_BELOW = _DOUBTED_LANGUAGE
"""An emergency in a doubtful text is believed by the confidence of its words: these are never left out."""
_CERTAIN_LANGUAGE = 0.5
_QUIETEST = 10
"""A clip that never leaves ±10 of 32,768 is a dead line, whatever the model would make of it."""

_TORN_SECONDS = 0.8
"""Clips below this may be torn pieces of speech: too little sound to decide between two texts."""
_BARELY_SUPPORTED = -0.6
_WELL_SUPPORTED = -0.5
"""Mean log probability that no echo had in 491 clips that tempt to one; "Go ahead" that was said has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperSettings:
    """`spoken_before`, `hotwords`: see docs/site-packs.md. `window`: see docs/adr/0003."""

    model: str = "tiny.en"
    model_path: Path | None = None
    language: str = "en"
    spoken_before: str = ""
    hotwords: tuple[str, ...] = ()
    compute_type: str = "int8"
    workers: int = 2
    threads_per_worker: int = 1
    max_batch: int = 4
    max_seconds: float = 28.0
    min_window_seconds: float = 8.0
    window_margin_seconds: float = 5.0
    doubtful_below: float = -0.25
    """Mean log probability of a text below which a second opinion is asked for."""
    hopeless_below: float = -0.8
    """The same, below which the word list would only add words of its own."""


class Whisper:
    """A `SpeechToText`. Thread-safe: up to `settings.workers` callers decode side by side, more wait their turn."""

    def __init__(self, settings: WhisperSettings, store: ModelStore) -> None:
        self._settings = settings
        self.located: LocatedModel = store.locate(model_spec(settings.model), settings.model_path)
        self._decoder = Decoder(
            self.located.folder,
            language=settings.language,
            compute_type=settings.compute_type,
            workers=settings.workers,
            threads=settings.threads_per_worker,
        )
        if not self._decoder.multilingual and settings.language != "en":
            raise ConfigurationError(f"{settings.model} knows English only; choose a multilingual model such as base.")
        self._before = self._decoder.prompt(settings.spoken_before)
        # Without the full stop the model stops punctuating and, on short clips, loops.
        self._list = self._decoder.prompt(f"{', '.join(settings.hotwords)}." if settings.hotwords else "")

    @classmethod
    def build(cls, options: EngineOptions, store: ModelStore) -> "Whisper":
        """Return an engine, for the engine table."""
        chosen = {name: getattr(options, name) for name in options.__struct_fields__}
        return cls(WhisperSettings(**chosen), store)

    @property
    def traits(self) -> SttTraits:
        settings = self._settings
        return SttTraits(
            model=f"whisper-{settings.model}",
            sample_rate_hz=SAMPLE_RATE,
            max_batch=settings.max_batch,
            max_seconds=settings.max_seconds,
            workers=settings.workers,
            language=settings.language,
        )

    def close(self) -> None:
        self._decoder.close()

    def transcribe(self, clips: Sequence[Clip]) -> list[Transcript]:
        """Return one transcript a clip, in order. Clips of one step of `LIKE_SECONDS` are decoded together."""
        for clip in clips:
            if len(clip.samples) > self._settings.max_seconds * SAMPLE_RATE:
                seconds = len(clip.samples) / SAMPLE_RATE
                raise ClipTooLongError(
                    f"A clip of {seconds:.1f} s was given; at most {self._settings.max_seconds:g} s fit."
                )
        results = [Transcript(text="")] * len(clips)
        heard = [at for at, clip in enumerate(clips) if _sounds(clip.samples)]
        try:
            for window, alike in self._by_window(clips, heard).items():
                for first in range(0, len(alike), self._settings.max_batch):
                    group = alike[first : first + self._settings.max_batch]
                    for at, transcript in zip(group, self._batch([clips[at] for at in group], window), strict=True):
                        results[at] = transcript
        except (RuntimeError, ValueError, MemoryError) as error:
            raise EngineError(f"Whisper failed: {error}") from error
        return results

    def _by_window(self, clips: Sequence[Clip], which: Sequence[int]) -> dict[float, list[int]]:
        """A clip's window follows from its own length alone, so that its text does not depend on its company."""
        settings = self._settings
        groups: dict[float, list[int]] = {}
        for at in which:
            steps = length_step(len(clips[at].samples) / SAMPLE_RATE)
            window = max(settings.min_window_seconds, steps * LIKE_SECONDS + settings.window_margin_seconds)
            groups.setdefault(min(window, FULL_WINDOW_SECONDS), []).append(at)
        return groups

    def _batch(self, clips: Sequence[Clip], window: float) -> list[Transcript]:
        sounds = self._decoder.encode([clip.samples for clip in clips], window)
        first = self._decoder.decode(sounds, self._before)
        chosen = self._second_opinions(clips, self._without_prompt(first))
        settled = [self._settle(*one) for one in zip(clips, first, chosen, strict=True)]
        words = self._words(clips, settled)
        return [self._transcript(*one) for one in zip(clips, settled, words, strict=True)]

    def _again(self, decoded: Sequence[Decoded], prompt: Prompt, which: Iterable[int]) -> dict[int, Decoded]:
        """Decode some rows again after another prompt, from the same encoding."""
        rows = list(which)
        again = self._decoder.decode([decoded[at].sound for at in rows], prompt)
        return dict(zip(rows, again, strict=True))

    def _without_prompt(self, decoded: Sequence[Decoded]) -> list[Decoded]:
        """Replace loops, repetitions and echoes of the prompt by what is heard without it, unless that has them."""
        chosen = list(decoded)
        prompted = [at for at, one in enumerate(decoded) if one.prompt.text and not one.unsupported]
        which = [at for at in prompted if _misled(decoded[at])]
        for at, plain in self._again(decoded, NO_PROMPT, which).items():
            if not _confirms(plain, decoded[at]):
                chosen[at] = plain
        return chosen

    def _second_opinions(self, clips: Sequence[Clip], decoded: Sequence[Decoded]) -> list[Decoded]:
        """Decode doubtful texts again after the word list. The likelier of the two texts stands."""
        chosen = list(decoded)
        doubtful = [at for at, one in enumerate(decoded) if self._doubts(one)]
        for at in doubtful:
            if clips[at].effort >= Effort.ONE_OPINION:
                chosen[at] = replace(chosen[at], shed=("second_opinion",))
        asked = [at for at in doubtful if not chosen[at].shed]
        for at, other in self._again(decoded, self._list, asked).items():
            if other.log_prob > chosen[at].log_prob and not self._invents(other, chosen[at]):
                chosen[at] = other
        return chosen

    def _invents(self, other: Decoded, first: Decoded) -> bool:
        if other.loops or other.unsupported:
            return True
        return guards.adds_a_name(other.text, first.text, self._settings.hotwords)

    def _doubts(self, one: Decoded) -> bool:
        settings = self._settings
        if not self._list.text or one.loops or one.unsupported:
            return False
        doubtful = settings.hopeless_below <= one.log_prob < settings.doubtful_below
        return doubtful and one.sound.seconds >= _TORN_SECONDS

    def _settle(self, clip: Clip, first: Decoded, result: Decoded) -> Decoded:
        """Doubt a loop: full window, then without prompt; cut it if it is still there. Drop what nobody said."""
        for prompt in dict.fromkeys((self._before, NO_PROMPT)):
            if not result.loops or result.unsupported:
                break
            if clip.effort >= Effort.LEAST:
                result = replace(result, shed=(*result.shed, "full_window"))
                break
            [sound] = self._decoder.encode([clip.samples], FULL_WINDOW_SECONDS)
            [result] = self._decoder.decode([sound], prompt)
        if result.unsupported:
            return replace(result, tokens=(), text="")
        text = result.text
        if result.loops and not _said_in_full(first, result):
            text = guards.without_loops(text)
        text = guards.without_hurry(text, result.sound.seconds)
        if text == result.text:
            return result
        return replace(result, text=text, tokens=self._decoder.tokens(text))

    def _words(self, clips: Sequence[Clip], decoded: Sequence[Decoded]) -> list[list[ClipWord]]:
        """Word times of the clips that ask for them, aligned together where they share a window."""
        words: list[list[ClipWord]] = [[] for _ in clips]
        by_window: dict[int, list[int]] = {}
        for at, (clip, one) in enumerate(zip(clips, decoded, strict=True)):
            if clip.word_times and one.tokens and (clip.effort < Effort.LEAST or one.log_prob < _WORDS_DECIDE_BELOW):
                by_window.setdefault(one.sound.steps, []).append(at)
        for group in by_window.values():
            for at, timed in zip(group, self._decoder.words([decoded[at] for at in group]), strict=True):
                words[at] = timed
        return words

    def _foreign(self, one: Decoded) -> bool:
        """Return True where a multilingual model hears another language in what it is not sure of."""
        if not self._decoder.multilingual or (one.text and one.log_prob > _DOUBTED_LANGUAGE):
            return False
        language, probability = self._decoder.language(one.sound)
        return language != self._settings.language and probability >= _CERTAIN_LANGUAGE

    def _transcript(self, clip: Clip, one: Decoded, words: Sequence[ClipWord]) -> Transcript:
        return msgspec.structs.replace(self._written(clip, one, words), foreign=self._foreign(one))

    def _written(self, clip: Clip, one: Decoded, words: Sequence[ClipWord]) -> Transcript:
        shed = one.shed
        if not one.text:
            return Transcript(text="", shed=shed)
        if clip.word_times and clip.effort >= Effort.LEAST and not words:
            shed = (*shed, "word_times")
        confidence = math.exp(min(0.0, one.log_prob))
        if self._settings.language != "en":
            bare = tuple(msgspec.structs.replace(word, text=word.text.strip()) for word in words)
            return Transcript(text=one.text, words=bare, confidence=confidence, shed=shed)
        if words:
            text, placed = write_words(words)
            return Transcript(text=text, words=placed, confidence=confidence, shed=shed)
        return Transcript(text=write_numbers(one.text), confidence=confidence, shed=shed)


def _echoed(one: Decoded) -> frozenset[str]:
    barely = one.log_prob < _BARELY_SUPPORTED or one.sound.seconds < _TORN_SECONDS
    return guards.echoed(one.text, one.prompt.text, barely=barely)


def _misled(one: Decoded) -> bool:
    return one.loops or guards.says_all_again(one.text) or bool(_echoed(one))


def _confirms(plain: Decoded, one: Decoded) -> bool:
    """Return True if what is heard without a prompt has the words and the repetition that the prompt may have made."""
    if one.loops or (guards.says_all_again(one.text) and not guards.says_all_again(plain.text)):
        return False
    if one.log_prob > max(plain.log_prob, _WELL_SUPPORTED) and one.sound.seconds >= _TORN_SECONDS:
        return True
    return _echoed(one) <= set(guards.normal(plain.text).split())


def _said_in_full(first: Decoded, second: Decoded) -> bool:
    """Two windows that agree on a repetition, and end by themselves, have heard it: "go, go, go, go, go, go"."""
    if first.sound.steps == second.sound.steps:
        return False
    return not (first.limited or second.limited) and guards.normal(first.text) == guards.normal(second.text)


def _sounds(samples: Samples) -> bool:
    return len(samples) > 0 and max(int(samples.max()), -int(samples.min())) > _QUIETEST
