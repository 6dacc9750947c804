"""Words and their times from Whisper's cross-attention, and numbers written as on the door; ends transcription."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from faster_whisper.tokenizer import Tokenizer

from quickcomm.audio.ports import ClipWord
from quickcomm.kernel.spoken_numbers import SpokenNumber, find_numbers

_SECONDS_PER_STEP = 0.02
_PASSES = 4
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


class Alignment(Protocol):
    """What `ctranslate2.models.Whisper.align` returns: (token, step) pairs along the path, and token probabilities."""

    alignments: Sequence[tuple[int, int]]
    text_token_probs: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A word and its place in the text."""

    word: ClipWord
    start: int
    end: int


def timed_words(tokenizer: Tokenizer, tokens: Sequence[int], alignment: Alignment, seconds: float) -> list[ClipWord]:
    """Words of a decoding with times in the clip; punctuation stays with the word before it."""
    pieces, piece_tokens = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
    if len(piece_tokens) <= 1 or not alignment.alignments:
        return []
    edges = np.concatenate(([0], np.cumsum([len(part) for part in piece_tokens[:-1]])))
    token_of, step_of = np.array(alignment.alignments).T
    first_step = step_of[np.concatenate(([True], np.diff(token_of) > 0))]
    times = np.minimum(first_step * _SECONDS_PER_STEP, seconds)
    spaced = tokenizer.language_code not in _UNSPACED
    words: list[ClipWord] = []
    for text, first, last in zip(pieces[:-1], edges[:-1], edges[1:], strict=True):
        confidence = float(np.mean(alignment.text_token_probs[first:last]))
        start, end = float(times[first]), float(times[min(last, len(times) - 1)])
        if words and not text.startswith(" ") and (spaced or not any(char.isalnum() for char in text)):
            words[-1] = _extended(words[-1], text, max(start, end))
        else:
            words.append(ClipWord(text=text, start=start, end=max(start, end), confidence=min(1.0, confidence)))
    return words


def _extended(word: ClipWord, text: str, end: float) -> ClipWord:
    """Put "-line" or a comma to its word; a comma takes no time."""
    end = end if any(char.isalnum() for char in text) else word.end
    return ClipWord(text=word.text + text, start=word.start, end=end, confidence=word.confidence)


def write_words(words: Sequence[ClipWord]) -> tuple[str, tuple[ClipWord, ...]]:
    """Text and words with numbers as on the door; a merged word spans the first start to the last end."""
    text, placed = _lay_out(words)
    for _ in range(_PASSES):
        changes = [number for number in find_numbers(text) if number.words != number.digits]
        if not changes:
            break
        merged = _merge(placed, changes)
        text, placed = _lay_out(merged)
    return text, tuple(item.word for item in placed)


def _lay_out(words: Sequence[ClipWord]) -> tuple[str, list[_Placed]]:
    """Put words side by side as the tokenizer spaced them: a word that begins with a space begins a new one."""
    text = ""
    placed: list[_Placed] = []
    for word in words:
        bare = word.text.strip()
        if not bare:
            continue
        text += " " if text else ""
        stripped = ClipWord(text=bare, start=word.start, end=word.end, confidence=word.confidence)
        placed.append(_Placed(stripped, len(text), len(text) + len(bare)))
        text += bare
    return text, placed


def _merge(placed: Sequence[_Placed], numbers: Sequence[SpokenNumber]) -> list[ClipWord]:
    merged: list[ClipWord] = []
    rest = list(placed)
    for number in numbers:
        while rest and rest[0].end <= number.start:
            merged.append(rest.pop(0).word)
        inside: list[_Placed] = []
        while rest and rest[0].start < number.end:
            inside.append(rest.pop(0))
        if inside:
            first, last = inside[0], inside[-1]
            head = first.word.text[: max(0, number.start - first.start)]
            tail = last.word.text[len(last.word.text) - max(0, last.end - number.end) :]
            # A word may hold two numbers ("412-four-twelve"): what is left of it is looked at again in the next pass.
            merged.append(
                ClipWord(
                    text=head + number.digits + tail,
                    start=first.word.start,
                    end=last.word.end,
                    confidence=float(np.mean([item.word.confidence for item in inside])),
                )
            )
    return merged + [item.word for item in rest]
