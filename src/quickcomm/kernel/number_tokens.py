"""Words and numerals of a text, and what may stand between the parts of one number. Used to find spoken numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from quickcomm.kernel import number_words as words


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a numeral: `text` is `whole[start:end]`."""

    text: str
    start: int
    end: int
    before: str
    """What stands between this token and the one before it."""

    @property
    def digits(self) -> str | None:
        """Plain digits of a numeral ("412", "1,420")."""
        plain = self.text.replace(",", "")
        return plain if plain.isdigit() else None


_TOKEN: Final = re.compile(
    r"\d,\d{3}(?!\d|,\d)|\d+[.:]\d+(?:[.:]\d+)*|\d+[A-Za-z]\w*|\d+|[A-Za-z](?:\.[A-Za-z])+\.?|[A-Za-z]+(?:['\u2019](?!s\b)[A-Za-z]+)*"
)
JOIN: Final = re.compile(r"[ \t\n]+|[-\u2010-\u2013]")
COMMA: Final = re.compile(r",\s?|\. ")
CLOCK: Final = re.compile(r"\d{1,2}[.:]\d{2}")
DOTTED: Final = re.compile(r"\d{1,2}\.\d{2}|\d(?:\.\d){2,3}")
"""How speech-to-text puts down "four twelve" and "three oh six": "4.12", "3.0.6"."""
_DANGER: Final = r"doors?|smoke|fire|leak|water|flood|flooding|noise|hallway|corridor|ceiling|bathroom"
_PEOPLE: Final = r"guests?|lady|gentleman|man|woman|couple|family|someone|somebody|people|person"
_AT_DANGER: Final = re.compile(rf"\b(?:{_DANGER})(?: is| are)? at $", re.IGNORECASE)
_AT_PLACE: Final = re.compile(rf"\b(?:{_DANGER}|{_PEOPLE})(?: is| are)? at $", re.IGNORECASE)
_SHORT: Final = 2
_SPELLED: Final = 3
_NEAR: Final = 8
_CLOSE: Final = 4
"""Words before a number that say what it is."""


def tokens_of(text: str) -> list[Token]:
    """Return the words and numerals of the text, in order."""
    tokens: list[Token] = []
    at = 0
    for match in _TOKEN.finditer(text):
        tokens.append(Token(match.group(), match.start(), match.end(), text[at : match.start()]))
        at = match.end()
    return tokens


def word_at(tokens: Sequence[Token], at: int) -> str:
    """Return the word in lower case, or an empty string outside the text."""
    return tokens[at].text.lower().replace("\u2019", "'") if 0 <= at < len(tokens) else ""


def spelled_end(tokens: Sequence[Token], first: int) -> int:
    """Find the end of digits put down one by one, with commas: "5, 0, 7", "11, 05". `first` where there are none.

    Only a zero within them tells them from a list: no quantity and no small number is 0, or begins with 0.
    """
    end = first
    while end < len(tokens) and _is_short(tokens, end) and (end == first or _joins(tokens[end])):
        end += 1
    if in_list(tokens, first):
        return first
    digits = [_digits(tokens, at) for at in range(first, end)]
    listed = any(COMMA.fullmatch(tokens[at].before) for at in range(first + 1, end))
    zero = any(part.startswith("0") for part in digits[1:])
    if not (listed and zero) or digits[0].startswith("0") or len("".join(digits)) < _SPELLED:
        return first
    return end


def says_time(tokens: Sequence[Token], at: int) -> bool:
    """Say whether the words before "7.30" make it a time or an amount: "a table booked for 7.30", "it costs 7.30"."""
    before = [word_at(tokens, place) for place in range(max(0, at - _NEAR), at)]
    if not words.MEASURES.isdisjoint(before[-_CLOSE:]):
        return True
    lead, minutes = before[-1] if before else "", int(tokens[at].text[-2:])
    event = lead in words.EVENT_LEADS and not words.EVENTS.isdisjoint(before)
    told = before[-2:] in (["it", "s"], ["that", "s"], ["time", "is"])  # "s" is a word of its own
    follows = at + 1 < len(tokens) and tokens[at + 1].before.isspace() and word_at(tokens, at + 1) in words.EVENTS
    return (event or told or follows) and minutes % 5 == 0


def says_place(before: str) -> bool:
    """Say whether "at" at the end of `before` rather means a door than a time: "smoke at", "the guest at"."""
    return before.endswith(" at ") and _AT_PLACE.search(before) is not None


def says_danger(before: str) -> bool:
    """Say whether "at" at the end of `before` tells where something is wrong: "smoke at", "the leak is at"."""
    return before.endswith(" at ") and _AT_DANGER.search(before) is not None


def joined_by_comma(tokens: Sequence[Token], first: int, last: int) -> bool:
    """Say whether a comma or a full stop stands between two of the tokens [first, last)."""
    return any(COMMA.fullmatch(after.before) for _, after in pairwise(tokens[first:last]))


def in_list(tokens: Sequence[Token], first: int) -> bool:
    """Say whether a numeral and a comma stand before it."""
    return first > 0 and tokens[first - 1].digits is not None and tokens[first].before.startswith(",")


def _joins(token: Token) -> bool:
    return bool(COMMA.fullmatch(token.before)) or (token.before.isspace() and token.digits is not None)


def _is_short(tokens: Sequence[Token], at: int) -> bool:
    return 0 < len(_digits(tokens, at)) <= _SHORT


def _digits(tokens: Sequence[Token], at: int) -> str:
    word = word_at(tokens, at)
    value = words.SMALL.get(word)
    if value is not None and word not in words.ZEROES and value < words.TEN:
        return str(value)
    return tokens[at].digits or ""
