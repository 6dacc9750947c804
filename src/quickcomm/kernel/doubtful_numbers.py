"""Numbers that may be a door or something else, as speech-to-text puts them down: "at 4.30", "4, 1, 2", "500, 26".

`spoken_numbers` leaves them as they were heard. Who knows the rooms of the site decides which reading holds.
"""

import re
from itertools import pairwise
from typing import Final

import msgspec

from quickcomm.kernel import number_words as words
from quickcomm.kernel.number_tokens import CLOCK, Token, says_danger, says_place, says_time, tokens_of, word_at
from quickcomm.kernel.spoken_numbers import find_numbers

_ROOM: Final = (3, 4)
_WHEN: Final = frozenset({"there", "ready", "back", "done", "start", "party"})
"""Before "at 4.30" they make it a time."""
_MAY_BE: Final = re.compile(r"\d(?:[.:]\d|,\s?\d)")
_INSIDE: Final = frozenset({"in", "inside", "outside", "of", "near"})
_TOWARDS: Final = frozenset({"to", "for", "from", "at"})
_DAYS: Final = words.words_of(
    "today tomorrow tonight this every each monday tuesday wednesday thursday friday saturday sunday or till until"
    " am pm sharp check departure arrival"
)
_EVENT_PAIRS: Final = frozenset(
    {("check", "out"), ("check", "in"), ("call", "back"), ("pick", "up"), ("pool", "opens")}
)
_PARTS_OF_DAY: Final = frozenset({"morning", "afternoon", "evening", "night"})
_AGO, _AHEAD = 6, 5
"""Words before and behind a number that say when something is."""


class Doubtful(msgspec.Struct, frozen=True, kw_only=True):
    """A number that may be on a door. `words` is `text[start:end]`; `digits` is how the door would be written.

    `likely`: whether it rather is one, where the rooms are not known.
    """

    words: str
    start: int
    end: int
    digits: str
    likely: bool


def find_doubtful(text: str) -> list[Doubtful]:
    """Find them in order, none overlapping."""
    if _MAY_BE.search(text) is None:
        return []
    tokens = tokens_of(text)
    found: list[Doubtful] = []
    at = 0
    while at < len(tokens):
        one = _clock(text, tokens, at) or _listed(text, tokens, at)
        if one is not None:
            found.append(one[0])
        at = at + 1 if one is None else one[1]
    return found


_Found = tuple[Doubtful, int]
"""A number, and the token behind it."""


def _made(text: str, tokens: list[Token], first: int, last: int, *, likely: bool) -> _Found:
    start, end = tokens[first].start, tokens[last - 1].end
    digits = "".join(char for token in tokens[first:last] for char in token.text if char.isdigit())
    return Doubtful(words=text[start:end], start=start, end=end, digits=digits, likely=likely), last


def _clock(text: str, tokens: list[Token], at: int) -> _Found | None:
    """Read "4.30" and "4:30" where nothing says that it is a time or a price."""
    token, lead = tokens[at], word_at(tokens, at - 1)
    if not CLOCK.fullmatch(token.text) or text[max(0, token.start - 1) : token.start] in words.CURRENCY:
        return None
    place = says_place(text[: token.start])
    if lead in words.TIME_LEADS - {"at"} or _says_when(text, tokens, at) or says_time(tokens, at):
        return None
    danger = says_danger(text[: token.start])
    if not danger and _is_event(tokens, at):
        return None
    starts = not lead or not token.before.isspace()
    verb = word_at(tokens, at + 1) in words.VERBS
    dotted = "." in token.text
    if not (lead in _INSIDE | _TOWARDS or (starts and verb)):
        return None
    odd = int(token.text[-2:]) % 5 != 0  # nobody meets at 4.12
    if lead == "at" and not place and (at == 1 or find_numbers(text)):
        return None
    likely = lead in _INSIDE or (starts and verb) or danger or (lead == "at" and dotted and (place or odd))
    return _made(text, tokens, at, at + 1, likely=likely)


def _is_event(tokens: list[Token], at: int) -> bool:
    """Say whether what is told has a time: "checkout is at 11.30", "I will be there at 4.30"."""
    before = [word_at(tokens, place) for place in range(max(0, at - _AGO), at)]
    following = {word_at(tokens, at + step) for step in range(1, _AHEAD)}
    if not words.EVENTS.isdisjoint({*before, *following}):
        return True
    return word_at(tokens, at - 2) in _WHEN or any(pair in _EVENT_PAIRS for pair in pairwise(before))


def _says_when(text: str, tokens: list[Token], at: int) -> bool:
    """Say whether a day or a unit stands behind it: "at 4.30 tomorrow", "4.30 pm", "4.30 percent"."""
    if at + 1 == len(tokens):
        return text[tokens[at].end :].startswith("%")
    gap, after = tokens[at + 1].before, word_at(tokens, at + 1)
    following = {word_at(tokens, at + step) for step in range(1, _AHEAD)}
    unit = after in words.UNITS or after in words.CLOCK or after in _DAYS
    return gap.startswith("%") or (gap.isspace() and unit) or not following.isdisjoint(_PARTS_OF_DAY)


def _listed(text: str, tokens: list[Token], first: int) -> _Found | None:
    """Read numerals with commas between them: "4, 1, 2", "4, 30", "500, 26"."""
    lead = word_at(tokens, first - 1)
    if first and tokens[first - 1].text.isdigit() and tokens[first].before.startswith(","):
        return None  # within a list
    last = first
    while last < len(tokens) and tokens[last].text.isdigit() and (last == first or tokens[last].before in {", ", ","}):
        last += 1
    listed = last
    if last - first < len("12") or words.is_plural(lead) or lead in words.MONTHS | words.TESTING | words.DOORS_PLURAL:
        return None
    if text[max(0, tokens[first].start - 1) : tokens[first].start] in words.CURRENCY:
        return None
    if last < len(tokens) and tokens[last].before.isspace() and _is_counted(word_at(tokens, last)):
        last -= 1  # "4, 1, 2, 3 pillows": the last number counts what follows
    if last < len(tokens) and tokens[last].before.isspace() and word_at(tokens, last) in {"and", "or"}:
        return None
    numbers = [token.text for token in tokens[first:last]]
    likely = _reads(numbers, lead, counted=last < listed)
    if likely is None:
        return None
    return (
        _hundreds(text, tokens, first) if numbers[0].endswith("00") else _made(text, tokens, first, last, likely=likely)
    )


def _reads(numbers: list[str], lead: str, *, counted: bool) -> bool | None:
    """Return whether the numerals rather are one door; None if they cannot be."""
    sizes = tuple(map(len, numbers))
    if numbers[0].startswith("0"):
        return None
    if set(sizes) == {1} and len(numbers) in _ROOM:
        values = list(map(int, numbers))
        counted_out = values in _COUNTS or values[::-1] in _COUNTS
        return None if counted_out else values != sorted(set(values))
    if sizes in {(1, 2), (2, 2)}:
        return lead in _INSIDE | _TOWARDS and not counted
    whole = len(sizes) == len("12") and sizes[0] in _ROOM and sizes[1] == len("26") and numbers[0].endswith("00")
    return True if whole and not counted and not numbers[1].startswith("0") else None


_COUNTS: Final = [list(range(first, first + length)) for length in _ROOM for first in range(10)]
"""One, two, three."""


def _hundreds(text: str, tokens: list[Token], first: int) -> _Found | None:
    """Read "500, 26" as 526 where a sentence goes on behind it: a thing that is counted would stand there."""
    one, last = _made(text, tokens, first, first + 2, likely=True)
    after = word_at(tokens, last)
    if after and tokens[last].before.isspace() and after not in words.VERBS:
        return None
    return msgspec.structs.replace(one, digits=str(int(tokens[first].text) + int(tokens[first + 1].text))), last


def _is_counted(word: str) -> bool:
    return words.is_plural(word) or word in words.UNITS
