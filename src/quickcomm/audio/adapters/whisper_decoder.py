"""Whisper's passes over one batch: features, encoder, greedy decoder, alignment; called by the engine in `whisper`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ctranslate2
import numpy as np
import numpy.typing as npt
import tokenizers
from faster_whisper.tokenizer import Tokenizer

from quickcomm.audio.adapters import whisper_guards as guards
from quickcomm.audio.adapters.whisper_features import FRAMES_PER_SECOND, SAMPLE_RATE, LogMel
from quickcomm.audio.adapters.whisper_words import timed_words
from quickcomm.audio.ports import ClipWord, EngineError, OptionalWork, Samples
from quickcomm.kernel.errors import ConfigurationError

FULL_WINDOW_SECONDS = 30.0
_CONTEXT = 448
"""Tokens that the decoder has room for, prompt included."""
_MOST_PROMPT_TOKENS = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Text that the decoder takes for what was said before the clip. Without text it is told nothing."""

    text: str = ""
    tokens: tuple[int, ...] = ()


NO_PROMPT = Prompt()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A clip after the encoder. `encoded`: float32[1, steps, width]; `seconds`: length of the clip."""

    encoded: npt.NDArray[np.float32]
    seconds: float

    @property
    def steps(self) -> int:
        return int(self.encoded.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A decoding of `sound` after `prompt`. `log_prob`: mean over its tokens; `no_speech`: probability of no speech."""

    sound: Sound
    prompt: Prompt
    tokens: tuple[int, ...]
    text: str
    log_prob: float
    no_speech: float
    shed: tuple[OptionalWork, ...] = ()

    @property
    def limited(self) -> bool:
        """Return True if the decoding did not end by itself."""
        return len(self.tokens) >= _token_limit(self.sound.seconds)

    @property
    def loops(self) -> bool:
        return self.limited or guards.repeats(self.text)

    @property
    def unsupported(self) -> bool:
        """Return True if no speech in the sound supports the text."""
        return guards.unsupported(
            guards.Judgement(text=self.text, log_prob=self.log_prob, no_speech=self.no_speech, prompt=self.prompt.text)
        )


class Decoder:
    """A loaded model. Thread-safe: up to `workers` calls run side by side."""

    def __init__(self, folder: Path, *, language: str, compute_type: str, workers: int, threads: int) -> None:
        """Raise `ConfigurationError` if the folder holds no Whisper model, or one without that language."""
        try:
            model = ctranslate2.models.Whisper(
                str(folder), compute_type=compute_type, inter_threads=workers, intra_threads=threads
            )
            raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (RuntimeError, ValueError, OSError) as error:
            detail = f"{folder} cannot be loaded as a Whisper model: {error}."
            raise ConfigurationError(f"{detail} It may have been cut short: fetch or convert it again.") from error
        self.multilingual = bool(model.is_multilingual)
        try:
            self._tokenizer = Tokenizer(raw, self.multilingual, task="transcribe", language=language)
        except ValueError as error:
            raise ConfigurationError(f"Language {language!r} is none that Whisper knows.") from error
        self._model: ctranslate2.models.Whisper | None = model
        self._mel = LogMel(model.n_mels)
        self._suppressed = _suppressed(self._tokenizer)

    def close(self) -> None:
        self._model = None

    def language(self, sound: Sound) -> tuple[str, float]:
        """Return the likeliest language of a sound, as "en", and its probability. For multilingual models only."""
        [guesses] = self._loaded().detect_language(_together([sound]))
        token, probability = guesses[0]
        return token.strip("<|>"), float(probability)

    def prompt(self, text: str) -> Prompt:
        """Return a prompt of `text`, cut to what leaves the decoder room; `NO_PROMPT` if it is empty."""
        if not text:
            return NO_PROMPT
        tokens = self._tokenizer.encode(f" {text}")[:_MOST_PROMPT_TOKENS]
        return Prompt(text=text, tokens=(self._tokenizer.sot_prev, *tokens))

    def tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(f" {text}"))

    def encode(self, clips: Sequence[Samples], window: float) -> list[Sound]:
        """Encode clips in one window of `window` seconds, padded with zero samples."""
        frames = min(math.ceil(window * FRAMES_PER_SECOND / 2) * 2, int(FULL_WINDOW_SECONDS * FRAMES_PER_SECOND))
        features = np.stack([self._mel(clip, frames) for clip in clips])
        rows = np.asarray(self._loaded().encode(ctranslate2.StorageView.from_array(features), to_cpu=True))
        return [Sound(encoded=rows[at : at + 1], seconds=len(clip) / SAMPLE_RATE) for at, clip in enumerate(clips)]

    def decode(self, sounds: Sequence[Sound], prompt: Prompt) -> list[Decoded]:
        """Decode sounds of one window, greedily and so always alike."""
        if not sounds:
            return []
        start = [*prompt.tokens, *self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]
        most = max(_token_limit(sound.seconds) for sound in sounds)
        results = self._loaded().generate(
            _together(sounds),
            [start] * len(sounds),
            beam_size=1,
            sampling_temperature=0,
            # CTranslate2 takes the smaller of half the length and what the prompt leaves of it.
            max_length=min(_CONTEXT, max(2 * most, most + len(start))),
            suppress_tokens=self._suppressed,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [self._decoded(sound, prompt, result) for sound, result in zip(sounds, results, strict=True)]

    def words(self, decoded: Sequence[Decoded]) -> list[list[ClipWord]]:
        """Return the words of decodings of one window, with times in their clips."""
        if not decoded:
            return []
        aligned = self._loaded().align(
            _together([one.sound for one in decoded]),
            self._tokenizer.sot_sequence,
            [list(one.tokens) for one in decoded],
            [max(2, math.ceil(one.sound.seconds * FRAMES_PER_SECOND)) for one in decoded],
        )
        return [
            timed_words(self._tokenizer, one.tokens, alignment, one.sound.seconds)
            for one, alignment in zip(decoded, aligned, strict=True)
        ]

    def _decoded(self, sound: Sound, prompt: Prompt, result: ctranslate2.models.WhisperGenerationResult) -> Decoded:
        tokens = tuple(result.sequences_ids[0])
        return Decoded(
            sound=sound,
            prompt=prompt,
            tokens=tokens,
            text=self._tokenizer.decode(list(tokens)).strip(),
            # The score is a mean over the tokens; the end-of-text token counts as well.
            log_prob=result.scores[0] * len(tokens) / (len(tokens) + 1),
            no_speech=result.no_speech_prob,
        )

    def _loaded(self) -> ctranslate2.models.Whisper:
        if self._model is None:
            raise EngineError("The engine is closed.")
        return self._model


def _together(sounds: Sequence[Sound]) -> ctranslate2.StorageView:
    rows = np.ascontiguousarray(np.concatenate([sound.encoded for sound in sounds]))
    return ctranslate2.StorageView.from_array(rows)


def _token_limit(seconds: float) -> int:
    """More tokens than anybody speaks in the time: 4 a second are usual, digits one by one come to 8."""
    return min(_CONTEXT // 2, 24 + int(10 * seconds))


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
