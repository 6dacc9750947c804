"""Scores what came out of the demo shift against its labels. Pure: outcomes in, figures out."""

import re
from collections.abc import Sequence

import msgspec

from quickcomm.contracts.insight import Insight

_JOINTS = re.compile(r"(?<=\d)[,.:-](?=\d)")
_APOSTROPHES = re.compile(r"['’]")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_DIGITS = re.compile(r"\d+")
_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_SMALL = {word: str(value) for value, word in enumerate(_UNITS)}
_ROOM_DIGITS = (3, 4)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance as it reached the page. Offsets are samples from the start of the channel's recording."""

    channel: str
    start_offset: int
    end_offset: int
    sample_rate: int
    text: str
    insights: tuple[Insight, ...] = ()
    latency_total_ms: float | None = None

    @property
    def start_s(self) -> float:
        return self.start_offset / self.sample_rate

    @property
    def end_s(self) -> float:
        return self.end_offset / self.sample_rate


class LineScore(msgspec.Struct, frozen=True, kw_only=True):
    """One utterance of the shift: what was said, what came out."""

    channel: str
    expected: str
    heard: str
    matched: bool
    word_errors: int
    words: int
    rooms_exact: bool
    insights: int
    """Insights expected or given, whichever are more: one too many counts as wrong."""
    intents_right: int
    departments_right: int


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are 0-1. `false_emergencies`: utterances taken for one that are none. Latencies in milliseconds."""

    utterances: int
    matched: int
    extra: int
    word_error_rate: float
    rooms_exact: float
    emergencies: int
    emergencies_found: int
    false_emergencies: int
    intents_right: float
    departments_right: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    lines: tuple[LineScore, ...]


def words_of(text: str) -> list[str]:
    """Lower case, no punctuation, numbers up to twelve as digits, `1,105` and `4-12` as one number."""
    plain = _APOSTROPHES.sub("", _JOINTS.sub("", text.lower()))
    return [_SMALL.get(word, word) for word in _NOT_WORD.split(plain) if word]


def edit_distance(left: Sequence[str], right: Sequence[str]) -> int:
    """Levenshtein: insertions, deletions and substitutions cost one each."""
    row = list(range(len(right) + 1))
    for line, one in enumerate(left, 1):
        diagonal, row[0] = row[0], line
        for column, other in enumerate(right, 1):
            best = min(row[column] + 1, row[column - 1] + 1, diagonal + (one != other))
            diagonal, row[column] = row[column], best
    return row[-1]


def word_edits(expected: str, heard: str) -> tuple[int, int]:
    """Word errors, and the number of words expected."""
    reference = words_of(expected)
    return edit_distance(reference, words_of(heard)), len(reference)


def room_numbers(text: str) -> set[str]:
    """Numbers of three or four digits, as a plain transcript has them. For checks without a classifier."""
    return {number for number in _DIGITS.findall(_JOINTS.sub("", text)) if len(number) in _ROOM_DIGITS}
