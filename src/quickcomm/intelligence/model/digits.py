"""Finds long numbers in speech: cards and telephones, however they are grouped or spoken. Used by `masking`."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Final

import msgspec
import phonenumbers
from phonenumbers import Leniency, PhoneNumberMatcher, ValidationResult
from stdnum import luhn

REGION: Final = "US"
"""Where numbers without a country code are dialled."""

PHONE_WORDS: Final = re.compile(
    r"\b(?:call(?:ed|ing|back)?|phone[ds]?|telephone|number|cell|mobile|reach(?:ed|able)?|dial(?:ed)?|text(?:ed)?|ring"
    r"|contact|whats ?app|fax|tel|landline|voicemail)\b",
    re.IGNORECASE,
)
_CARD_WORDS: Final = re.compile(
    r"\b(?:(?:credit|debit|bank|payment|gift)\s+card|card\s+(?:number|ending|on)|visa|master ?card|amex"
    r"|american\s+express|discover)\b",
    re.IGNORECASE,
)
_NO_PHONE: Final = re.compile(
    r"\b(?:account|acct|order|ticket|reference|ref|case|customer|confirmation|booking|reservation|invoice|tracking|serial)\b"
    r"(?:(?!\b(?:call|phone|telephone|cell|mobile|reach|dial|text|ring|contact|back)\b).){0,45}$",
    re.IGNORECASE,
)
"""What is no telephone, said not far before the digits, also with a correction between."""
_UNITS: Final = {
    word: str(value)
    for value, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
} | {"oh": "0", "o": "0", "niner": "9"}
_TEENS: Final = {
    word: str(value)
    for value, word in enumerate(
        ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
        start=10,
    )
}
_TENS: Final = {
    word: str(value)
    for value, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2
    )
}
_TIMES: Final = {"double": 2, "triple": 3, "treble": 3}
_UNIT: Final = "|".join(sorted(_UNITS, key=len, reverse=True))
_TOKEN: Final = re.compile(
    rf"(?<![\w$€£:])(?:(?P<times>{'|'.join(_TIMES)})\s+(?P<unit>{_UNIT}|\d)|(?P<tens>{'|'.join(_TENS)})(?:[\s-](?P<after>{_UNIT}))?"
    rf"|(?P<word>{'|'.join((*_TEENS, _UNIT))})|(?P<run>\d+))(?![\w:]|[.,]\d\d\b(?!\d))",
    re.IGNORECASE,
)
_SAID: Final = re.compile(rf"\b(?:{_UNIT})\b", re.IGNORECASE)
_CLOCK: Final = re.compile(
    rf"((?:\d|\b(?:{_UNIT}))[ ,]{{1,2}}\d{{1,2}}):(\d\d)(?=[ ,]{{1,2}}(?:\d|(?:{_UNIT})\b))",
    re.IGNORECASE,
)
_GAP: Final = re.compile(r"[\s,.\u2010-\u2014()/-]{1,3}")
_GROUP_GAP: Final = re.compile(r"[,.;]|\band\b")
_BRANDS: Final = re.compile(r"4|5[0-8]|2[2-7]|3[0456789]|6")
_CARD_SIZES: Final = (16, 15, 14, 19, 18, 17, 13)
_GROUPINGS: Final = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)}
_ROOM_GROUP: Final = re.compile(r"[1-9]\d{2,3}")
_GROUP: Final = 4
_SINGLES: Final = 5
"""So many digits said one by one are no rooms."""
_LOCAL, _NEAR, _SHORTEST = 7, 30, 7
_WRITTEN_LOCAL: Final = re.compile(r"(?<![\w$.:-])\d{3}-\d{4}(?![\w-]|[.:]\d)")


class Digit(msgspec.Struct, frozen=True):
    """Digits that stand or are said together: "4111", "four", "double one", "forty-one"."""

    digits: str
    start: int
    end: int


def plain_digits(text: str) -> str:
    """Return the text, of the same length, with no clock time between digits: "1234 5:06 7890" is one number."""
    return _CLOCK.sub(r"\g<1>-\g<2>", text) if ":" in text else text


def identifier_spans(text: str) -> list[tuple[int, int]]:
    """Find card and telephone numbers: no part of them is a room."""
    if sum(map(str.isdigit, text)) + len(_SAID.findall(text)) < _SHORTEST:
        return []
    text = plain_digits(text)
    digits = digits_of(text)
    told = PHONE_WORDS.search(text) is not None
    return [*card_spans(text, digits), *phone_spans(text, digits, told=told)]


def digits_of(text: str) -> list[Digit]:
    return [Digit(_value(match), match.start(), match.end()) for match in _TOKEN.finditer(text)]


def card_spans(text: str, digits: Sequence[Digit]) -> Iterator[tuple[int, int]]:
    """Card numbers: 13 to 19 digits of a brand whose check digit is right, or that are said to be one."""
    told = _CARD_WORDS.search(text) is not None
    for run in _runs(text, digits):
        first = 0
        while first < len(run):
            last = _card_end(text, run, first, told=told)
            if last is not None:
                last = _with_rest(text, run, last)
                yield run[first].start, run[last - 1].end
            first = last or first + 1


def phone_spans(text: str, digits: Sequence[Digit], *, told: bool) -> Iterator[tuple[int, int]]:
    """Telephone numbers: written ones by the rules of their country, and those that are said digit by digit."""
    if sum(len(digit.digits) for digit in digits) < _SHORTEST:
        return
    for match in PhoneNumberMatcher(text, REGION, leniency=Leniency.VALID):
        if _may_be_phone(text, match.start, match.end, told=told):
            yield match.start, match.end
    for match in PhoneNumberMatcher(text, REGION, leniency=Leniency.POSSIBLE):
        called = PHONE_WORDS.search(text[max(0, match.start - _NEAR) : match.start])
        if (called or _WRITTEN_LOCAL.fullmatch(match.raw_string)) and _may_be_phone(
            text, match.start, match.end, told=told
        ):
            yield match.start, match.end
    for run in _runs(text, digits):
        if (span := _spoken_phone(text, run, told=told)) is not None:
            yield span


def _value(match: re.Match[str]) -> str:
    if match["run"]:
        return match["run"]
    if match["times"]:
        unit = match["unit"].lower()
        return _UNITS.get(unit, unit) * _TIMES[match["times"].lower()]
    if match["tens"]:
        return _TENS[match["tens"].lower()] + _UNITS.get((match["after"] or "").lower(), "0")
    word = match["word"].lower()
    return _UNITS.get(word) or _TEENS[word]


def _runs(text: str, digits: Sequence[Digit]) -> Iterator[list[Digit]]:
    """Digits with nothing but spaces and punctuation between them."""
    run: list[Digit] = []
    for digit in digits:
        if run and not _GAP.fullmatch(text[run[-1].end : digit.start]):
            yield run
            run = []
        run.append(digit)
    if run:
        yield run


def _card_end(text: str, run: Sequence[Digit], first: int, *, told: bool) -> int | None:
    """Where the card number ends that begins at `first`."""
    whole, sizes = "", {}
    for last in range(first, len(run)):
        whole += run[last].digits
        sizes[len(whole)] = last + 1
    for size in _CARD_SIZES:
        last = sizes.get(size, 0)
        if not last or not _BRANDS.match(whole):
            continue
        part, valid = run[first:last], luhn.is_valid(whole[:size])
        grouped = tuple(len(digit.digits) for digit in part) in _GROUPINGS
        if _are_rooms(text, part) and not (told and grouped and valid):
            continue
        known = grouped or told or last - first in {1, size}
        if valid or (known and size in _CARD_SIZES[:2]):
            return last
    return None


def _with_rest(text: str, run: Sequence[Digit], last: int) -> int:
    """Take up to four digits more that follow at once: speech-to-text may have doubled a group."""
    rest = run[last:]
    close = all(text[before.end : after.start] == " " for before, after in pairwise(run[last - 1 :]))
    return len(run) if close and sum(len(digit.digits) for digit in rest) in {0, _GROUP} else last


def _are_rooms(text: str, part: Sequence[Digit]) -> bool:
    """Whether these are rather several rooms: "412 414 416 418 420", "4101 4102 4103 4104"."""
    sizes = tuple(len(digit.digits) for digit in part)
    if any(size not in {3, 4} for size in sizes):
        return _are_spoken_rooms(text, part)
    if sizes in _GROUPINGS:
        return len({digit.digits[:2] for digit in part}) == 1
    return len(part) > 1


def _are_spoken_rooms(text: str, part: Sequence[Digit]) -> bool:
    """Whether commas cut digits into several rooms: "4 1 2, 4 1 4, 4 1 6"."""
    groups = _groups(text, part)
    return len(groups) > 1 and all(_ROOM_GROUP.fullmatch(group) for group in groups)


def _groups(text: str, part: Sequence[Digit]) -> list[str]:
    """The digits between commas; one group if a comma stands after every digit."""
    numbered, group = [], 0
    for index, digit in enumerate(part):
        if index and _GROUP_GAP.search(text[part[index - 1].end : digit.start]):
            group += 1
        numbered.append((group, digit.digits))
    if group == len(part) - 1:
        return ["".join(digits for _, digits in numbered)]
    return ["".join(digits for _, digits in found) for _, found in groupby(numbered, key=lambda pair: pair[0])]


def _may_be_phone(text: str, start: int, end: int, *, told: bool) -> bool:
    if _NO_PHONE.search(text[:start]):
        return False
    groups = text[start:end].split()
    return told or not (len(groups) > 1 and all(_ROOM_GROUP.fullmatch(group) for group in groups))


def _spoken_phone(text: str, run: Sequence[Digit], *, told: bool) -> tuple[int, int] | None:
    """A whole run that is said mostly digit by digit, and can be dialled."""
    singles = sum(len(digit.digits) == 1 for digit in run)
    whole = "".join(digit.digits for digit in run)
    start = run[0].start
    if singles < _SINGLES or _NO_PHONE.search(text[:start]) or (not told and _are_spoken_rooms(text, run)):
        return None
    plus = re.search(r"(?:\bplus\s+|\+)$", text[:start], re.IGNORECASE)
    number = f"+{whole}" if plus else whole
    try:
        parsed = phonenumbers.parse(number, REGION)
    except phonenumbers.NumberParseException:
        return None
    reason = phonenumbers.is_possible_number_with_reason(parsed)
    local = reason == ValidationResult.IS_POSSIBLE_LOCAL_ONLY and len(whole) == _LOCAL
    if reason != ValidationResult.IS_POSSIBLE and not local:
        return None
    return (plus.start() if plus else start), run[-1].end
