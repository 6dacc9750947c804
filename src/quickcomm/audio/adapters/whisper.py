"""Whisper on CTranslate2: clips in, transcripts out; called by the transcription workers.

Decodes in batches, with a short encoder window and one word list before each prompt; decodes doubtful results again at
the full window; drops what the audio does not support; writes numbers as on the door. Why the window may be short:
docs/adr/0003-whisper-short-window.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ctranslate2
import msgspec
import numpy as np
import numpy.typing as npt
import tokenizers
from faster_whisper.tokenizer import Tokenizer

from quickcomm.audio.adapters import whisper_guards as guards
from quickcomm.audio.adapters.whisper_features import FRAMES_PER_SECOND, SAMPLE_RATE, LogMel
from quickcomm.audio.adapters.whisper_models import model_spec
from quickcomm.audio.adapters.whisper_words import timed_words, write_words
from quickcomm.audio.ports import (
    LIKE_SECONDS,
    Clip,
    ClipTooLongError,
    ClipWord,
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

FULL_WINDOW_SECONDS = 30.0
_CONTEXT = 448
"""Tokens that the decoder has room for, prompt included."""
_MOST_HOTWORD_TOKENS = 96
_DOUBTED_LANGUAGE = -0.5
"""Mean log-probability of a text from which its language is not looked at."""
_CERTAIN_LANGUAGE = 0.5
_QUIETEST = 10
"""A clip that never leaves ±10 of 32,768 is a dead line, whatever the model would make of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperSettings:
    """`hotwords`: names that the site says often; they bias spelling and numbers. `window`: see docs/adr/0003."""

    model: str = "tiny.en"
    model_path: Path | None = None
    language: str = "en"
    hotwords: tuple[str, ...] = ()
    compute_type: str = "int8"
    workers: int = 2
    threads_per_worker: int = 1
    max_batch: int = 4
    max_seconds: float = 28.0
    min_window_seconds: float = 8.0
    window_margin_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded:
    """A decoding and what it came from: row `row` of the encoder's output `encoded`."""

    tokens: tuple[int, ...]
    text: str
    seconds: float
    log_prob: float
    no_speech: float
    limited: bool
    prompted: bool
    encoded: npt.NDArray[np.float32]

    @property
    def doubtful(self) -> bool:
        return self.limited or guards.repeats(self.text)


class Whisper:
    """A `SpeechToText`. Thread-safe: up to `settings.workers` callers decode side by side, more wait their turn."""

    def __init__(self, settings: WhisperSettings, store: ModelStore) -> None:
        self._settings = settings
        self.located: LocatedModel = store.locate(model_spec(settings.model), settings.model_path)
        try:
            self._model: ctranslate2.models.Whisper | None = ctranslate2.models.Whisper(
                str(self.located.folder),
                compute_type=settings.compute_type,
                inter_threads=settings.workers,
                intra_threads=settings.threads_per_worker,
            )
            raw = tokenizers.Tokenizer.from_file(str(self.located.folder / "tokenizer.json"))
        except (RuntimeError, ValueError, OSError) as error:
            detail = f"{self.located.folder} cannot be loaded as a Whisper model: {error}."
            raise ConfigurationError(f"{detail} It may have been cut short: fetch or convert it again.") from error
        try:
            multilingual = bool(self._model.is_multilingual)
            self._tokenizer = Tokenizer(raw, multilingual, task="transcribe", language=settings.language)
        except ValueError as error:
            raise ConfigurationError(f"Language {settings.language!r} is none that Whisper knows.") from error
        if not multilingual and settings.language != "en":
            raise ConfigurationError(f"{settings.model} knows English only; choose a multilingual model such as base.")
        self._mel = LogMel(self._model.n_mels)
        self._hotwords = _hotword_tokens(self._tokenizer, settings.hotwords)
        self._hint = " ".join(settings.hotwords)
        self._suppressed = _suppressed(self._tokenizer)

    @classmethod
    def build(cls, options: EngineOptions, store: ModelStore) -> "Whisper":
        """For the engine table."""
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
        )

    def close(self) -> None:
        self._model = None

    def transcribe(self, clips: Sequence[Clip]) -> list[Transcript]:
        """One transcript a clip, in order. Clips that fall into one step of `LIKE_SECONDS` are decoded together."""
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
        samples = [clip.samples for clip in clips]
        decoded = self._decode(samples, window, self._hotwords)
        plain = self._without_hotwords(samples, decoded)
        settled = [self._settle(*one) for one in zip(samples, decoded, plain, strict=True)]
        words = self._words(clips, settled)
        return [self._transcript(result, spoken) for result, spoken in zip(settled, words, strict=True)]

    def _decode(self, samples: Sequence[Samples], window: float, hotwords: Sequence[int]) -> list[_Decoded]:
        """Decode clips in one window of `window` seconds, greedily and so always alike."""
        frames = min(math.ceil(window * FRAMES_PER_SECOND / 2) * 2, int(FULL_WINDOW_SECONDS * FRAMES_PER_SECOND))
        features = np.stack([self._mel(clip, frames) for clip in samples])
        encoded = self._loaded().encode(ctranslate2.StorageView.from_array(features), to_cpu=True)
        return self._generate(samples, encoded, hotwords)

    def _generate(
        self, samples: Sequence[Samples], encoded: ctranslate2.StorageView, hotwords: Sequence[int]
    ) -> list[_Decoded]:
        prompt = [*hotwords, *self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]
        limits = [_token_limit(len(clip) / SAMPLE_RATE) for clip in samples]
        # CTranslate2 takes the smaller of half the length and what the prompt leaves of it.
        length = min(_CONTEXT, max(2 * max(limits), max(limits) + len(prompt)))
        results = self._loaded().generate(
            encoded,
            [prompt] * len(samples),
            beam_size=1,
            sampling_temperature=0,
            max_length=length,
            suppress_tokens=self._suppressed,
            return_scores=True,
            return_no_speech_prob=True,
        )
        rows = np.asarray(encoded)
        return [
            self._decoded(result, len(clip) / SAMPLE_RATE, rows[at : at + 1], prompted=bool(hotwords))
            for at, (result, clip) in enumerate(zip(results, samples, strict=True))
        ]

    def _decoded(
        self,
        result: ctranslate2.models.WhisperGenerationResult,
        seconds: float,
        encoded: npt.NDArray[np.float32],
        *,
        prompted: bool,
    ) -> _Decoded:
        tokens = tuple(result.sequences_ids[0])
        return _Decoded(
            tokens=tokens,
            text=self._tokenizer.decode(list(tokens)).strip(),
            seconds=seconds,
            # The score is a mean over the tokens; the end-of-text token counts as well.
            log_prob=result.scores[0] * len(tokens) / (len(tokens) + 1),
            no_speech=result.no_speech_prob,
            limited=len(tokens) >= _token_limit(seconds),
            prompted=prompted,
            encoded=encoded,
        )

    def _without_hotwords(self, samples: Sequence[Samples], decoded: Sequence[_Decoded]) -> list[_Decoded]:
        """Hotwords before a short clip are what loops most: say what loops without them, from the same encoding."""
        plain = list(decoded)
        doubtful = [at for at, one in enumerate(decoded) if one.prompted and one.doubtful and not self._is_silence(one)]
        if doubtful:
            rows = np.ascontiguousarray(np.concatenate([decoded[at].encoded for at in doubtful]))
            again = self._generate([samples[at] for at in doubtful], ctranslate2.StorageView.from_array(rows), ())
            for at, one in zip(doubtful, again, strict=True):
                plain[at] = one
        return plain

    def _settle(self, samples: Samples, first: _Decoded, result: _Decoded) -> _Decoded:
        """Doubt a loop: full window, then without hotwords; cut it if it is still there. Drop what nobody said."""
        attempts = [self._hotwords, []] if self._hotwords else [[]]
        for hotwords in attempts:
            if not result.doubtful or self._is_silence(result):
                break
            result = self._decode([samples], FULL_WINDOW_SECONDS, hotwords)[0]
        if self._is_silence(result):
            return replace(result, tokens=(), text="")
        text = result.text
        if result.doubtful and not _said_in_full(first, result):
            text = guards.without_loops(text)
        text = guards.without_hurry(text, result.seconds)
        if text == result.text:
            return result
        return replace(result, text=text, tokens=tuple(self._tokenizer.encode(f" {text}")))

    def _is_silence(self, result: _Decoded) -> bool:
        return guards.unsupported(
            guards.Judgement(
                text=result.text,
                log_prob=result.log_prob,
                no_speech=result.no_speech,
                hotwords=self._hint if result.prompted else "",
            )
        )

    def _words(self, clips: Sequence[Clip], decoded: Sequence[_Decoded]) -> list[list[ClipWord]]:
        """Word times of the clips that ask for them, aligned together where they share a window."""
        words: list[list[ClipWord]] = [[] for _ in clips]
        by_window: dict[int, list[int]] = {}
        for at, (clip, result) in enumerate(zip(clips, decoded, strict=True)):
            if clip.word_times and result.tokens:
                by_window.setdefault(result.encoded.shape[1], []).append(at)
        for group in by_window.values():
            encoded = np.ascontiguousarray(np.concatenate([decoded[at].encoded for at in group]))
            seconds = [len(clips[at].samples) / SAMPLE_RATE for at in group]
            aligned = self._loaded().align(
                ctranslate2.StorageView.from_array(encoded),
                self._tokenizer.sot_sequence,
                [list(decoded[at].tokens) for at in group],
                [max(2, math.ceil(length * FRAMES_PER_SECOND)) for length in seconds],
            )
            for at, alignment, length in zip(group, aligned, seconds, strict=True):
                words[at] = timed_words(self._tokenizer, decoded[at].tokens, alignment, length)
        return words

    def _foreign(self, result: _Decoded) -> bool:
        """Return True where a multilingual model hears another language in what it is not sure of."""
        model = self._loaded()
        if not model.is_multilingual or (result.text and result.log_prob > _DOUBTED_LANGUAGE):
            return False
        [guesses] = model.detect_language(ctranslate2.StorageView.from_array(np.ascontiguousarray(result.encoded)))
        language, probability = guesses[0]
        return bool(language != f"<|{self._settings.language}|>" and probability >= _CERTAIN_LANGUAGE)

    def _transcript(self, result: _Decoded, words: Sequence[ClipWord]) -> Transcript:
        return msgspec.structs.replace(self._written(result, words), foreign=self._foreign(result))

    def _written(self, result: _Decoded, words: Sequence[ClipWord]) -> Transcript:
        if not result.text:
            return Transcript(text="")
        confidence = math.exp(min(0.0, result.log_prob))
        if self._settings.language != "en":
            bare = tuple(msgspec.structs.replace(word, text=word.text.strip()) for word in words)
            return Transcript(text=result.text, words=bare, confidence=confidence)
        if words:
            text, placed = write_words(words)
            return Transcript(text=text, words=placed, confidence=confidence)
        return Transcript(text=write_numbers(result.text), confidence=confidence)

    def _loaded(self) -> ctranslate2.models.Whisper:
        if self._model is None:
            raise EngineError("The engine is closed.")
        return self._model


def _token_limit(seconds: float) -> int:
    """More tokens than anybody speaks in the time: 4 a second are usual, digits one by one come to 8."""
    return min(_CONTEXT // 2, 24 + int(10 * seconds))


def _said_in_full(first: _Decoded, second: _Decoded) -> bool:
    """Two windows that agree on a repetition, and end by themselves, have heard it: "go, go, go, go, go, go"."""
    return not (first.limited or second.limited) and guards.normal(first.text) == guards.normal(second.text)


def _sounds(samples: Samples) -> bool:
    return len(samples) > 0 and max(int(samples.max()), -int(samples.min())) > _QUIETEST


def _hotword_tokens(tokenizer: Tokenizer, hotwords: Sequence[str]) -> list[int]:
    if not hotwords:
        return []
    tokens = tokenizer.encode(f" {', '.join(hotwords)}.")
    return [tokenizer.sot_prev, *tokens[:_MOST_HOTWORD_TOKENS]]


def _suppressed(tokenizer: Tokenizer) -> list[int]:
    special = (
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
    )
    return sorted({*tokenizer.non_speech_tokens, *(token for token in special if token is not None)})
