"""Numbers that may be a door or something else, as speech-to-text puts them down: "at 4.30", "4, 1, 2", "500, 26".

`spoken_numbers` leaves them as they were heard. Who knows the rooms of the site decides which reading holds.
"""

import re
from itertools import pairwise
from typing import Final

import msgspec

from quickcomm.kernel import number_words as words
from quickcomm.kernel.number_tokens import CLOCK, Token, in_list, says_danger, says_place, says_time, tokens_of, word_at
from quickcomm.kernel.spoken_numbers import find_numbers

_ROOM: Final = (3, 4)
_PAIR: Final = 2
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
_TELLS: Final = frozenset({"s", "is", "time", "was", "version", "says"})
"""What tells a time to the minute."""
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
    odd = int(token.text[-2:]) % 5 != 0  # nobody meets at 4.12
    if not (lead in _INSIDE | _TOWARDS or (starts and verb) or (odd and lead not in _TELLS)):
        return None
    if lead == "at" and not place and (at == 1 or find_numbers(text)):
        return None
    near = lead in _INSIDE or (starts and verb) or danger or (lead == "at" and dotted and place)
    likely = near or (odd and lead in _TOWARDS)
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
    last = _list_end(text, tokens, first)
    if last - first < _PAIR or tokens[first].text.startswith("0"):
        return None
    lead = word_at(tokens, first - 1) if tokens[first].before.isspace() else ""
    after = word_at(tokens, last) if last < len(tokens) and tokens[last].before.isspace() else ""
    counted = words.is_plural(after) or after in words.UNITS
    numbers = [token.text for token in tokens[first:last]]
    if set(map(len, numbers)) == {1}:
        # "4, 1, 2, 3 pillows": the last number counts what follows
        return _digits(text, tokens, first, numbers[:-1] if counted and len(numbers) > _ROOM[0] else numbers, lead)
    if counted:
        return _pair(text, tokens, first, likely=False) if len(numbers) == _PAIR + 1 else None
    if len(numbers) != _PAIR or (after in {"and", "or"} and _says_number(tokens, last + 1)):
        return None
    if numbers[0].endswith("00"):
        return _hundreds(text, tokens, first, after)
    return _pair(text, tokens, first, likely=lead in _INSIDE | _TOWARDS or (not lead and after in words.VERBS))


def _list_end(text: str, tokens: list[Token], first: int) -> int:
    """Find the end of numerals with commas between them; `first` where they are amounts, or are named as several."""
    lead = word_at(tokens, first - 1) if tokens[first].before.isspace() else ""
    several = words.is_plural(lead) or lead in words.MONTHS | words.TESTING | words.DOORS_PLURAL
    price = text[max(0, tokens[first].start - 1) : tokens[first].start] in words.CURRENCY
    if several or price or in_list(tokens, first):
        return first
    last = first
    while last < len(tokens) and tokens[last].text.isdigit() and (last == first or tokens[last].before in {", ", ","}):
        last += 1
    return last


def _digits(text: str, tokens: list[Token], first: int, numbers: list[str], lead: str) -> _Found | None:
    """Read "4, 1, 2"; digits that only go up are rather a list, and those that count are one."""
    values = list(map(int, numbers))
    if len(numbers) not in _ROOM or values in _COUNTS or values[::-1] in _COUNTS:
        return None
    likely = values != sorted(set(values)) or lead in _INSIDE | _TOWARDS
    return _made(text, tokens, first, first + len(numbers), likely=likely)


def _pair(text: str, tokens: list[Token], first: int, *, likely: bool) -> _Found | None:
    """Read "4, 30"."""
    sizes = tuple(len(token.text) for token in tokens[first : first + _PAIR])
    return _made(text, tokens, first, first + _PAIR, likely=likely) if sizes in {(1, 2), (2, 2)} else None


def _hundreds(text: str, tokens: list[Token], first: int, after: str) -> _Found | None:
    """Read "500, 26" as 526, where nothing is counted behind it; "500, 6" may be six of something."""
    one, last = _made(text, tokens, first, first + _PAIR, likely=True)
    rest = tokens[first + 1].text
    if len(tokens[first].text) not in _ROOM or len(rest) > _PAIR or rest.startswith("0") or after in words.SMALL:
        return None
    digits = str(int(tokens[first].text) + int(rest))
    return msgspec.structs.replace(one, digits=digits, likely=len(rest) == _PAIR), last


def _says_number(tokens: list[Token], at: int) -> bool:
    return word_at(tokens, at) in words.SMALL or word_at(tokens, at).isdigit()


_COUNTS: Final = [list(range(first, first + length)) for length in _ROOM for first in range(10)]
"""One, two, three."""
