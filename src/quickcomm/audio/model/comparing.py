"""Compares the utterances that two sides heard in the same stretch of sound: aligned by time, then by words. Pure."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

_WORD: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
LEAST_OVERLAP_S: Final = 0.1
"""Less in common is the edge of two utterances, one after the other."""


class Uttered(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance of one side, from `start` to `end` in samples. `text`: None where it was not decoded."""

    start: int
    end: int
    text: str | None


class Group(msgspec.Struct, kw_only=True):
    """Utterances of both sides that overlap, in the order of time."""

    start: int
    end: int
    served: list[Uttered]
    own: list[Uttered]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Of a group; see `contracts.evidence.HeardInShadow`. Times only of one utterance on each side."""

    utterances: int
    words: int
    wrong: int
    missed: int = 0
    extra: int = 0
    start_ms: float | None = None
    end_ms: float | None = None

    @property
    def difference(self) -> str:
        """Return what differs; empty where nothing does."""
        return "missed" if self.missed else "extra" if self.extra else "words" if self.wrong else ""


def words_of(text: str) -> list[str]:
    """Return the words, without case and punctuation."""
    return _WORD.findall(text.lower().replace("’", "'"))  # noqa: RUF001 - as some engines write it


def wrong_words(served: Sequence[str], own: Sequence[str]) -> int:
    """Return the least number of words to be replaced, left out or put in to get from one to the other."""
    row = list(range(len(own) + 1))
    for i, word in enumerate(served, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(own, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def groups(served: Sequence[Uttered], own: Sequence[Uttered], rate: int) -> list[Group]:
    """Put together what overlaps, one speaker's, in the order of time."""
    found: list[Group] = []
    slack = round(LEAST_OVERLAP_S * rate)
    told = [(each.start, each.end, False, each) for each in served] + [
        (each.start, each.end, True, each) for each in own
    ]
    for start, end, is_own, each in sorted(told, key=lambda item: item[:3]):
        if not found or start > found[-1].end - slack:
            found.append(Group(start=start, end=end, served=[], own=[]))
        group = found[-1]
        group.end = max(group.end, end)
        (group.own if is_own else group.served).append(each)
    return found


def compare(group: Group, rate: int) -> Compared | None:
    """Compare both sides; None where neither heard a word, or something was left out."""
    if any(each.text is None for each in group.own):
        return None
    served, own = _words(group.served), _words(group.own)
    if not served and not own:
        return None
    of = sum(bool(words_of(each.text or "")) for each in group.served)
    alone = len(group.served) == len(group.own) == 1
    return Compared(
        utterances=of,
        words=len(served),
        wrong=wrong_words(served, own),
        missed=of if not own else 0,
        extra=0 if served else len(group.own),
        start_ms=(group.own[0].start - group.served[0].start) * 1e3 / rate if alone else None,
        end_ms=(group.own[0].end - group.served[0].end) * 1e3 / rate if alone else None,
    )


def _words(uttered: Sequence[Uttered]) -> list[str]:
    return [word for each in uttered for word in words_of(each.text or "")]
