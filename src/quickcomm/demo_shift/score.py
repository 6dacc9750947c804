"""Scores what came out of the demo shift against its labels. Pure: outcomes in, figures out."""

import re
from collections.abc import Iterable, Sequence
from math import ceil

import msgspec

from quickcomm.contracts.insight import Insight
from quickcomm.demo_shift import Shift, ShiftUtterance

_JOINTS = re.compile(r"(?<=\d)[,.:-](?=\d)")
_APOSTROPHES = re.compile("['\u2019]")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_DIGITS = re.compile(r"\d+")
EMERGENCY = "emergency"
_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
]
_SHORT = ("1st", "2nd", "3rd", *(f"{value}th" for value in range(4, 13)))
_SMALL = {word: str(value) for value, word in enumerate(_UNITS)} | dict(zip(_ORDINALS, _SHORT, strict=True))
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


def score(shift: Shift, outcomes: Iterable[Outcome]) -> Score:
    """Each outcome belongs to the utterance of its channel that it overlaps most; pieces of one are joined."""
    given = list(outcomes)
    pieces: dict[tuple[str, int], list[Outcome]] = {}
    extra: list[Outcome] = []
    by_channel = {channel.channel: channel.utterances for channel in shift.channels}
    for outcome in sorted(given, key=lambda one: one.start_s):
        place = _place(outcome, by_channel.get(outcome.channel, ()))
        if place is None:
            extra.append(outcome)
        else:
            pieces.setdefault((outcome.channel, place), []).append(outcome)
    lines = []
    found = false_alarms = 0
    for channel in shift.channels:
        for place, utterance in enumerate(channel.utterances):
            heard = pieces.get((channel.channel, place), [])
            lines.append(_line(channel.channel, utterance, heard))
            raised = any(_is_emergency(one) for one in heard)
            if _expects_emergency(utterance):
                found += raised
            else:
                false_alarms += raised
    false_alarms += sum(_is_emergency(one) for one in extra)
    return _summary(shift, lines, extra, (found, false_alarms), _latencies(given))


def _place(outcome: Outcome, utterances: Sequence[ShiftUtterance]) -> int | None:
    overlaps = [min(outcome.end_s, one.end_s) - max(outcome.start_s, one.start_s) for one in utterances]
    best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
    return best if best is not None and overlaps[best] > 0 else None


def _line(channel: str, utterance: ShiftUtterance, heard: Sequence[Outcome]) -> LineScore:
    text = " ".join(one.text for one in heard)
    errors, words = word_edits(utterance.text, text)
    got = [insight for one in heard for insight in one.insights]
    pairs = list(zip(utterance.insights, got, strict=False))
    rooms = {room for insight in utterance.insights for room in insight.rooms}
    return LineScore(
        channel=channel,
        expected=utterance.text,
        heard=text,
        matched=bool(heard),
        word_errors=errors,
        words=words,
        rooms_exact=bool(heard) and rooms == {room for insight in got for room in insight.rooms},
        insights=max(len(utterance.insights), len(got)),
        intents_right=sum(one.intent == other.intent for one, other in pairs),
        departments_right=sum(one.department == other.department for one, other in pairs),
    )


def _summary(
    shift: Shift,
    lines: Sequence[LineScore],
    extra: Sequence[Outcome],
    alarms: tuple[int, int],
    latencies: Sequence[float],
) -> Score:
    """Words and insights of outcomes that nobody spoke count as errors too."""
    insights = sum(line.insights for line in lines) + sum(len(one.insights) for one in extra)
    errors = sum(line.word_errors for line in lines) + sum(len(words_of(one.text)) for one in extra)
    return Score(
        utterances=len(lines),
        matched=sum(line.matched for line in lines),
        extra=len(extra),
        word_error_rate=_share(errors, sum(line.words for line in lines)),
        rooms_exact=_share(sum(line.rooms_exact for line in lines), len(lines)),
        emergencies=sum(_expects_emergency(one) for channel in shift.channels for one in channel.utterances),
        emergencies_found=alarms[0],
        false_emergencies=alarms[1],
        intents_right=_share(sum(line.intents_right for line in lines), insights),
        departments_right=_share(sum(line.departments_right for line in lines), insights),
        latency_p50_ms=percentile(latencies, 0.50),
        latency_p95_ms=percentile(latencies, 0.95),
        lines=tuple(lines),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest rank: the smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(ceil(share * len(values)) - 1, 0)] if values else None


def _latencies(outcomes: Sequence[Outcome]) -> list[float]:
    return [one.latency_total_ms for one in outcomes if one.latency_total_ms is not None]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _is_emergency(outcome: Outcome) -> bool:
    return any(insight.intent == EMERGENCY for insight in outcome.insights)


def _expects_emergency(utterance: ShiftUtterance) -> bool:
    return any(insight.intent == EMERGENCY for insight in utterance.insights)
