"""Numbers as they are written on the door, from numbers as they are spoken: "four twelve" → "412".

Speech-to-text writes its transcripts through `write_numbers`; understanding cites the words by `find_numbers`, and
reads "a couple of" with `parse_quantity`. Pure functions over English text. What is no door stays as it was said:
quantities, clock times, money, durations, telephone numbers, ordinals.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from quickcomm.kernel import number_words as words
from quickcomm.kernel.number_tokens import (
    CLOCK,
    COMMA,
    DOTTED,
    JOIN,
    Token,
    joined_by_comma,
    says_danger,
    says_time,
    spelled_end,
    tokens_of,
    word_at,
)
from quickcomm.kernel.spoken_quantities import Quantity, parse_quantity, quantities_outside

__all__ = ["Quantity", "SpokenNumber", "find_numbers", "find_quantities", "parse_quantity", "write_numbers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenNumber:
    """A number that may be on a door. `words` is `text[start:end]` as it stands; `digits` is how it is written.

    `named` is true where a word such as "room" stands before it; only then may it have fewer than three digits.
    """

    words: str
    start: int
    end: int
    digits: str
    named: bool = False


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of a number: tokens [first, last) that say one or two digits, or a whole number."""

    digits: str
    first: int
    last: int
    whole: bool = False
    """It is complete, and joins with nothing beside it: "412", "three hundred and six"."""


_ROOM = (3, 4)
# Sizes of the parts in which people say three to five digits; "four twelve" is (1, 2).
_SHAPES = {(1, 2), (1, 1, 1), (2, 2), (2, 1, 1), (1, 1, 2), (1, 1, 1, 1), (1, 1, 1, 1, 1)}
_PHONES = {(3, 4), (3, 3, 4), (1, 3, 3, 4), (4, 3, 3)}
_PHONE_DIGITS = 7
_MAX_PASSES = 4
_HUNDRED = 100
_HOURS = range(1, 13)


def write_numbers(text: str) -> str:
    """Put room-like numbers in digits: "eleven oh seven" → "1107". Idempotent; all else is untouched."""
    for _ in range(_MAX_PASSES):
        written = _write_once(text)
        if written == text:
            break
        text = written
    return text


def _write_once(text: str) -> str:
    out: list[str] = []
    at = 0
    for number in find_numbers(text):
        out += (text[at : number.start], number.digits)
        at = number.end
    return "".join(out) + text[at:]


@lru_cache(maxsize=512)
def _found(text: str) -> tuple[SpokenNumber, ...]:
    tokens = tokens_of(text)
    found: list[SpokenNumber] = []
    at = 0
    while at < len(tokens):
        end = _run_end(text, tokens, at)
        if (piece := _homophone(tokens, at)) is not None:
            found.append(_spoken(text, tokens, piece, at))
            end = piece.last
        elif end > at:
            found += (_spoken(text, tokens, piece, at) for piece in _Run(text, tokens, at, end).numbers())
        at = max(end, at + 1)
    return tuple(found)


def find_numbers(text: str) -> list[SpokenNumber]:
    """Find every number that may be on a door, in order, with the words that say it."""
    return list(_found(text))


def _spoken(text: str, tokens: Sequence[Token], piece: _Piece, run: int) -> SpokenNumber:
    start, end = tokens[piece.first].start, tokens[piece.last - 1].end
    return SpokenNumber(
        words=text[start:end],
        start=start,
        end=end,
        digits=piece.digits,
        named=word_at(tokens, run - 1) in words.DOORS | words.DOORS_PLURAL and (piece.first == run),
    )


def _says_number(tokens: Sequence[Token], at: int) -> bool:
    word = word_at(tokens, at)
    if word in words.MULTIPLES:
        return _unit_after(tokens, at) is not None
    return word in words.SMALL or tokens[at].digits is not None


def _unit_after(tokens: Sequence[Token], at: int) -> int | None:
    """Read the single digit that follows, as in "double two"."""
    if at + 1 >= len(tokens) or not JOIN.fullmatch(tokens[at + 1].before):
        return None
    value = words.SMALL.get(word_at(tokens, at + 1))
    if value is None and (digits := tokens[at + 1].digits) and len(digits) == 1:
        value = int(digits)
    return value if value is not None and value < words.TEN else None


def _run_end(text: str, tokens: Sequence[Token], at: int) -> int:
    """Find the end of the run of number words that starts at `at`; `at` where none does."""
    lead = word_at(tokens, at - 1)
    named = lead in words.DOORS
    if DOTTED.fullmatch(tokens[at].text) or (named and CLOCK.fullmatch(tokens[at].text)):
        return at if _is_price(text, tokens[at]) else at + 1
    if not _says_number(tokens, at) or (word_at(tokens, at) in words.ZEROES and not named):
        return at
    if word_at(tokens, at) == "one" and word_at(tokens, at - 1) in words.POINTERS:
        return at
    things = tokens[at].before.isspace() and words.is_plural(lead) and lead not in words.DOORS_PLURAL
    spelled = at if things else spelled_end(tokens, at)
    end = max(spelled, at + 1)
    while end < len(tokens) and _continues(tokens, end, named=named):
        end += 1
    while end > at + 1 and word_at(tokens, end - 1) in words.DANGLING:
        end -= 1
    # "twenty first": the tens belong to the ordinal.
    if word_at(tokens, end) in words.ORDINALS and words.SMALL.get(word_at(tokens, end - 1), 0) >= words.TWENTY:
        end -= 1
    return at if end < at + 1 or _is_price(text, tokens[at]) else end


def _is_price(text: str, token: Token) -> bool:
    return text[max(0, token.start - 1) : token.start] in words.CURRENCY


def _homophone(tokens: Sequence[Token], at: int) -> _Piece | None:
    """Read "For 12 needs towels" as 412: at the start of a sentence and before a verb, "for" is a digit."""
    digit = words.HOMOPHONES.get(word_at(tokens, at))
    if digit is None or at + 2 >= len(tokens) or (at and tokens[at].before.isspace()):
        return None
    digits = tokens[at + 1].digits
    fits = digits and len(digits) == len("12") and tokens[at + 1].before == " " and tokens[at + 2].before == " "
    return _Piece(digit + (digits or ""), at, at + 2) if fits and word_at(tokens, at + 2) in words.VERBS else None


def _continues(tokens: Sequence[Token], at: int, *, named: bool) -> bool:
    token, before = tokens[at], word_at(tokens, at - 1)
    if not JOIN.fullmatch(token.before):
        return _comma_joins(tokens, at, named=named)
    word = word_at(tokens, at)
    if token.digits is None and COMMA.fullmatch(tokens[at - 1].before) and tokens[at - 1].digits:
        return False  # "9, 2, 6 one more glass"
    if word == "and":
        return before in words.SCALES and at + 1 < len(tokens) and _says_number(tokens, at + 1)
    if word in words.SCALES:
        return before != "and"
    return _says_number(tokens, at)


def _comma_joins(tokens: Sequence[Token], at: int, *, named: bool) -> bool:
    """Say whether the comma is inside a number: "room 4, 1, 2", "4,12", "4. 12"; not "412, 414" or "rooms 4, 5"."""
    here, before = tokens[at], tokens[at - 1]
    if not COMMA.fullmatch(here.before) or here.digits is None or before.digits is None:
        return False
    sizes = (len(before.digits), len(here.digits))
    if named:
        return max(sizes) < _ROOM[0] and sum(sizes) <= _ROOM[0]
    return here.before in {",", ". "} and sizes == (1, 2)


class _Run:
    """A run of number words with what stands around it."""

    def __init__(self, text: str, tokens: Sequence[Token], first: int, last: int) -> None:
        self._text, self._tokens, self._first, self._last = text, tokens, first, last
        self._lead = word_at(tokens, first - 1)
        self._named = self._lead in words.DOORS
        self._next = word_at(tokens, last)
        gap = tokens[last].before if last < len(tokens) else text[tokens[-1].end :]
        # A word that is not joined by a space belongs to the next phrase, and says nothing about the number.
        self._unit = gap.startswith("%") or (gap.isspace() and self._next in words.UNITS)
        self._clock = gap.isspace() and self._next in words.CLOCK
        self._noun = gap.isspace() and words.is_plural(self._next)

    def numbers(self) -> list[_Piece]:
        """Find the doors, each as one whole piece."""
        if self._lead in words.MONTHS or self._lead in words.TESTING:
            return []
        pieces = list(self._pieces(self._first, self._last))
        if _is_phone(pieces, self._tokens):
            return []
        if (self._unit or self._noun) and (counted := self._before_quantity(pieces)) is not None:
            return counted
        rooms, _ = self._partition(pieces)
        if joined_by_comma(self._tokens, self._first, self._last) and not self._named:
            rooms = [room for room in rooms if self._is_spelled(room)]
        if self._unit or self._clock:
            # The unit takes the last number with it: "in 412 ten minutes".
            rooms = [room for room in rooms if room.last < self._last]
        elif self._noun and not self._named:
            rooms = [room for room in rooms if not (room.last == self._last and self._counts(room))]
        if rooms and rooms[0].first == self._first and self._is_time(rooms[0]):
            rooms = rooms[1:]
        return rooms

    def _before_quantity(self, pieces: Sequence[_Piece]) -> list[_Piece] | None:
        """Take the last words as a quantity of what follows: "four twelve two towels" is 412 and two."""
        for count in (1, 2):
            last = self._last - count
            if last <= self._first or word_at(self._tokens, last - 1) in {*words.DANGLING, *words.SCALES}:
                continue
            if pieces[-1].whole and pieces[-1].first < last:
                continue
            rooms, left = self._partition(list(self._pieces(self._first, last)))
            if rooms and not left:
                return rooms
        return None

    def _counts(self, room: _Piece) -> bool:
        """Say whether it is said as a quantity and not as a door: "three hundred chairs", "10-15 guests"."""
        said = [word_at(self._tokens, at) for at in range(room.first, room.last)]
        hyphens = any(
            self._tokens[at].before == "-" and said[at - room.first].isdigit()
            for at in range(room.first + 1, room.last)
        )
        return hyphens or any(word in words.SCALES for word in said)

    def _is_spelled(self, room: _Piece) -> bool:
        """Say whether a number in a list is a door: "4,12" as speech-to-text puts it down, "5, 0, 7" with its zero."""
        short = room.last - room.first == len("12") and room.digits.isdigit()
        return "0" in room.digits[1:] or (short and self._tokens[room.first + 1].before in {",", ". "})

    def _is_time(self, room: _Piece) -> bool:
        """Tell "at ten thirty" from "leak in ten thirty"."""
        if CLOCK.fullmatch(self._tokens[room.first].text):
            return self._lead in words.TIME_LEADS or says_time(self._tokens, room.first)
        parts = list(self._pieces(room.first, room.last))
        if self._lead not in words.TIME_LEADS or self._named or len(parts) == 1 or int(parts[0].digits) not in _HOURS:
            return False
        minutes = int(room.digits[len(parts[0].digits) :])
        if self._lead == "at":
            before = self._text[: self._tokens[self._first].start]
            place = word_at(self._tokens, self._first - 2) in words.PLACES or says_danger(before)
            return minutes in words.QUARTERS and not place
        return minutes < words.SIXTY and minutes % 5 == 0

    def _pieces(self, at: int, last: int) -> Iterator[_Piece]:
        while at < last:
            piece = self._cardinal(at, last) or self._small(at, last)
            if piece is None:
                at += 1
                continue
            yield piece
            at = piece.last

    def _small(self, at: int, last: int) -> _Piece | None:
        """Read one digit, two digits, "double two", or a numeral as it stands."""
        token, word = self._tokens[at], word_at(self._tokens, at)
        if word in words.MULTIPLES and at + 1 < last:
            return _Piece(str(_unit_after(self._tokens, at)) * words.MULTIPLES[word], at, at + 2)
        if (digits := token.digits) is not None:
            return self._numeral(digits, at, last)
        if CLOCK.fullmatch(token.text) or DOTTED.fullmatch(token.text):
            return _Piece(re.sub(r"\D", "", token.text), at, at + 1, whole=True)
        if (value := words.SMALL.get(word)) is None:
            return None
        if value >= words.TWENTY and at + 1 < last:
            unit = _unit_after(self._tokens, at)
            if unit and word_at(self._tokens, at + 1) in words.SMALL:
                return _Piece(str(value + unit), at, at + 2)
        return _Piece(str(value), at, at + 1)

    def _numeral(self, digits: str, at: int, last: int) -> _Piece:
        whole = len(digits) > len("12")
        if whole and digits.endswith("00") and at + 1 < last and self._adds(at + 1, last):
            rest = self._tokens[at + 1].digits or ""
            return _Piece(str(int(digits) + int(rest)), at, at + 2, whole=True)
        return _Piece(digits, at, at + 1, whole=whole)

    def _adds(self, at: int, last: int) -> bool:
        """Say whether "800-6" or "800 6" puts down "eight hundred and six"; in "800 6 towels" it does not."""
        rest = self._tokens[at].digits
        if rest is None or len(rest) > len("12") or rest.startswith("0"):
            return False
        if self._tokens[at].before == "-":
            return True
        counts = self._unit or self._noun or self._clock or len(rest) < len("12")
        ends = at + 1 == last and (self._next in words.FUNCTION or not counts or not self._next or self._gap_breaks())
        return ends and not self._tokens[at].before.startswith(",")

    def _gap_breaks(self) -> bool:
        return self._last < len(self._tokens) and not self._tokens[self._last].before.isspace()

    def _cardinal(self, at: int, last: int) -> _Piece | None:
        """Read "three hundred and six", "one thousand four hundred twenty"."""
        base = self._small(at, last)
        if base is None or base.whole or base.last >= last:
            return None
        scale = word_at(self._tokens, base.last)
        if scale not in words.SCALES:
            return None
        value, end = int(base.digits) * words.SCALES[scale], base.last + 1
        hundreds = self._small(end, last) if scale == "thousand" and end < last else None
        if hundreds and hundreds.last < last and word_at(self._tokens, hundreds.last) == "hundred":
            value, end = value + int(hundreds.digits) * _HUNDRED, hundreds.last + 1
        return self._with_rest(value, at, end, last)

    def _with_rest(self, value: int, first: int, end: int, last: int) -> _Piece:
        joined = end < last and word_at(self._tokens, end) == "and"
        rest = self._small(end + joined, last) if end + joined < last else None
        if rest is None or rest.whole or int(rest.digits) == 0 or len(rest.digits) > len("12"):
            return _Piece(str(value), first, end, whole=True)
        after = self._small(rest.last, last) if rest.last < last else None
        if len(rest.digits) == 1 and after is not None:
            # "Four hundred and four twelve": the digit begins the next room.
            return _Piece(str(value), first, end, whole=True)
        return _Piece(str(value + int(rest.digits)), first, rest.last, whole=True)

    def _partition(self, pieces: Sequence[_Piece]) -> tuple[list[_Piece], int]:
        """Split pieces into rooms, and count the pieces left over; as few as can be of either."""
        best: list[tuple[int, list[_Piece]]] = [(0, [])]
        for end in range(1, len(pieces) + 1):
            options = [(best[end - 1][0] + 1, best[end - 1][1])]
            for size in range(1, min(end, 5) + 1):
                left, rooms = best[end - size]
                if room := self._room(pieces[end - size : end], alone=len(pieces) == 1):
                    options.append((left, [*rooms, room]))
            best.append(min(options, key=lambda option: (option[0], len(option[1]))))
        return best[-1][1], best[-1][0]

    def _room(self, parts: Sequence[_Piece], *, alone: bool) -> _Piece | None:
        digits = "".join(part.digits for part in parts)
        first = parts[0].first == self._first
        if digits.startswith("0") and not (self._named and first and len(digits) >= _ROOM[0]):
            return None
        if len(parts) == 1:
            long = parts[0].whole and len(digits) in range(_ROOM[0], _ROOM[1] + 2)
            named = self._lead in words.DOORS | words.DOORS_PLURAL and first
            short = alone or self._named or len(digits) >= _ROOM[0]  # in "rooms four twelve fourteen" it goes on
            fits = long or (named and short and len(digits) <= _ROOM[1])
        else:
            # "Double two" says two single digits; "oh" never stands last alone but in "one oh oh".
            sizes = tuple(len(part.digits) for part in parts)
            multiples = any(word_at(self._tokens, part.first) in words.MULTIPLES for part in parts)
            fits = not any(part.whole for part in parts) and (sizes in _SHAPES or (multiples and len(digits) in _ROOM))
            fits = fits and not any(part.digits == "0" and len(parts) == len("12") for part in parts)
        return _Piece(digits, parts[0].first, parts[-1].last, whole=True) if fits else None


def _is_phone(pieces: Sequence[_Piece], tokens: Sequence[Token]) -> bool:
    sizes = tuple(len(piece.digits) for piece in pieces)
    if sum(sizes) >= _PHONE_DIGITS and set(sizes) == {1}:
        return True
    hyphens = all(tokens[after.first].before == "-" for _, after in pairwise(pieces))
    return sizes in _PHONES and hyphens


def find_quantities(text: str) -> list[Quantity]:
    """Find quantities said in the text ("two", "a dozen", "12"), without the numbers that may be doors."""
    return quantities_outside(text, [(number.start, number.end) for number in find_numbers(text)])
