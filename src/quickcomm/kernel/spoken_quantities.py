"""How many of something: "a couple of towels" → 2. Beside `spoken_numbers`, which finds what is no quantity."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quickcomm.kernel import number_words as words


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """How many of something: `words` is `text[start:end]`."""

    words: str
    start: int
    end: int
    value: int


_SPOKEN = {word: value for word, value in words.SMALL.items() if word not in words.ZEROES}
_ONES, _TEENS, _TENS = (
    "|".join(sorted((word for word, value in _SPOKEN.items() if value in values), key=len, reverse=True))
    for values in (range(words.TEN), range(words.TEN, words.TWENTY), range(words.TWENTY, 100))
)
_SMALL = rf"(?:(?:{_TENS})(?:[\s-]+(?:{_ONES})\b)?|{_TEENS}|{_ONES})\b"
_SCALE = rf"(?:{'|'.join(words.SCALES)})\b"
_SPACE = r"[\s-]+"
_COUNT = (
    rf"{_SMALL}(?:{_SPACE}{_SCALE}(?:{_SPACE}(?:and\s+)?{_SMALL})?)*|{_SCALE}(?:{_SPACE}(?:and\s+)?{_SMALL})?"
    r"|\d{1,2},\d{3}|\d+"
)
"""One number and not two side by side: of "two twelve ounce steaks" it is "two"."""
_HALF = r"half[\s-]+(?:a\s+)?dozen"
_FIXED = {"couple": 2, "pair": 2, "few": 3, "several": 3, "dozen": 12, "hundred": 100, "thousand": 1000}

_QUANTITIES = re.compile(
    rf"(?<![\d:.])\b(?:{_HALF}|(?:(?:a|another)\s+)?(?:{'|'.join(_FIXED)})|(?:{_COUNT})(?:\s+dozens?)?)\b(?![:.]\d)",
    re.IGNORECASE,
)
"""A quantity anywhere in a text; an article alone is none here."""

_LEADING = re.compile(
    rf"(?P<half>{_HALF})|(?:(?:a|an|another)\s+)?(?P<fixed>{'|'.join(_FIXED)})s?\b"
    rf"|(?P<count>{_COUNT})\b(?P<dozens>\s+dozens?\b)?|(?P<article>an?|another)\b",
    re.IGNORECASE,
)
_DOZEN = 12


def parse_quantity(text: str) -> int | None:
    """Read the quantity that the text begins with: "half a dozen" → 6, "an" → 1, "a few" → 3; None if there is none."""
    match = _LEADING.match(text.strip())
    if match is None:
        return None
    if match["half"]:
        return _DOZEN // 2
    if match["fixed"]:
        return _FIXED[match["fixed"].lower()]
    if match["article"]:
        return 1
    return _cardinal(match["count"]) * (_DOZEN if match["dozens"] else 1)


def _cardinal(text: str) -> int:
    total = current = 0
    for word in re.findall(r"[a-z]+|\d+", text.lower().replace(",", "")):
        if word == "hundred":
            current = max(current, 1) * words.SCALES[word]
        elif word == "thousand":
            total, current = total + max(current, 1) * words.SCALES[word], 0
        elif word != "and":
            current += int(word) if word.isdigit() else words.SMALL[word]
    return total + current


def quantities_outside(text: str, taken: Sequence[tuple[int, int]]) -> list[Quantity]:
    """Find quantities that do not overlap the spans that are taken."""
    found: list[Quantity] = []
    for match in _QUANTITIES.finditer(text):
        inside = any(start < match.end() and match.start() < end for start, end in taken)
        value = None if inside else parse_quantity(match.group())
        if value is not None:
            found.append(Quantity(words=match.group(), start=match.start(), end=match.end(), value=value))
    return found
