"""Finds rooms and other places in an utterance; feeds clauses, summaries and features.

A room is only what the words support: an unsupported room sends somebody to the wrong door, which is worse than none.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from quickcomm.intelligence.model.digits import identifier_spans
from quickcomm.intelligence.model.mention import Mention
from quickcomm.intelligence.model.series import with_series
from quickcomm.kernel.doubtful_numbers import find_doubtful
from quickcomm.kernel.number_tokens import says_place
from quickcomm.kernel.site_pack import Places, compile_patterns
from quickcomm.kernel.spoken_numbers import find_numbers

_DIGITS = {
    **{word: str(value) for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))},
    "oh": "0",
    "o": "0",
    "niner": "9",
}  # fmt: skip
_DIGIT_RUN = re.compile(
    rf"(?<![\w.])(?:(?:{'|'.join(_DIGITS)}|\d+)(?:[ \t,]+|-)){{2,}}(?:{'|'.join(_DIGITS)}|\d+)(?![\w.])", re.IGNORECASE
)
_WRITTEN = re.compile(r"(?<![\w.:,$#-])\d[\dA-Za-z]*(?:-\d[\dA-Za-z]*)*(?![\w:]|[.,]\d)")
_CLOCK = re.compile(r"(?:0?[1-9]|1\d|2[0-3])(?:00|15|30|45)")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TWO = {word: str(value) for value, word in enumerate(_TEENS, start=10)} | {
    word: str(value) for value, word in zip(range(20, 100, 10), _TENS, strict=True)
}
_SOUND = {"ate": "8", "for": "4", "fore": "4", "to": "2", "too": "2", "won": "1", "tree": "3"}
_DIGIT_WORDS = "|".join([*_DIGITS, *_SOUND])
_FIRST, _SECOND = "|".join(_SOUND), "|".join(_TWO)
_SOUNDS = re.compile(
    rf"(?<![\w'])(?P<first>{_FIRST})\s+(?P<tens>oh|o|{_SECOND})(?:[\s-]+(?P<last>{_DIGIT_WORDS}))?(?![\w'])",
    re.IGNORECASE,
)
_WANTS_PLACE = re.compile(r"\b(?:in|at|to|for|from|near|by|outside|please|and|clean|ready|suites)\W*$", re.IGNORECASE)
_SAYS_SOMETHING = re.compile(
    r"\W+(?:needs?|wants?|is|has|asking|asks|says|left|still|got|would|called|no|vacant|done|please)\b",
    re.IGNORECASE,
)
_SORRY = r"[\s,.;:-]+(?:no|wait|sorry|i mean|i meant|make that|make it|that's|it's|actually|room)"
_INSTEAD = re.compile(
    r"[\s,.;:-]*(?:no|no no|sorry|no sorry|oh sorry|no wait|wait|wait no|correction|negative|i mean|i meant|make that"
    rf"|scratch that|rather|actually|excuse me|my bad)(?:{_SORRY})*[\s,.;:-]*",
    re.IGNORECASE,
)
_RATHER = re.compile(r"[\s,]*not\s+", re.IGNORECASE)
_INSIDE = re.compile(r"\b(?:in|inside|outside)\s+$", re.IGNORECASE)
_GUEST = re.compile(r"\W{1,3}guest(?:\b(?!s)|'s\b)", re.IGNORECASE)
_LONG = 5
"""From this many digits on people say a number digit by digit, and it is an account rather than a door."""


class PlaceFinder:
    """Reads rooms and locations by the pack's rules. Safe to share between threads."""

    def __init__(self, places: Places) -> None:
        self._pattern = re.compile(places.pattern)
        self._registry = frozenset(places.registry)
        lead = "|".join(re.escape(word) for word in sorted(places.lead, key=len, reverse=True)) or "(?!)"
        self._lead = re.compile(rf"(?<!\w)(?:{lead})(?:\s+(?:number|no\.?))?[\s:#]*$", re.IGNORECASE)
        self._after = _at_end(places.not_after)
        self._clock_after = _at_end(places.clock_after)
        self._before = _at_start(places.not_before)
        self._locations = compile_patterns(tuple(sorted(places.locations, key=len, reverse=True)))

    def rooms(self, text: str) -> list[Mention]:
        """Rooms in the order spoken, each mention by itself (the same room may come twice)."""
        found: list[Mention] = []
        identifiers = identifier_spans(text)
        for mention in sorted(_numbers(text), key=lambda m: (m.start, -m.end)):
            if found and mention.start < found[-1].end:
                continue
            if any(start < mention.end and mention.start < end for start, end in identifiers):
                continue
            if self._holds(mention) and self._plausible(text, mention, found):
                found.append(mention)
        return with_series(text, _corrected(text, found), self._registry)

    def guesses(self, text: str) -> list[Mention]:
        """Numbers of a room's form that may be rooms, though rules alone would not believe it.

        Words that sound like one ("ate fifteen"), "in 219 bags on the bed", "827 guest is waiting".
        """
        numbers = [m for m in _numbers(text) if self._pattern.fullmatch(m.value)]
        return [m for m in numbers if m.guessed or _INSIDE.search(text[: m.start]) or _GUEST.match(text[m.end :])]

    def written(self, claim: str) -> str | None:
        """How a room is written that somebody names: "Room 412", "412." and "four twelve" are all 412."""
        plain = claim.strip().strip(".,;:#'\"()[] ")
        if self._pattern.fullmatch(plain):
            return plain.upper()
        named = self.rooms(plain) or self.rooms(f"room {plain}")
        return named[0].value if len(named) == 1 else None

    def unverified(self, rooms: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(room for room in rooms if room not in self._registry) if self._registry else ()

    def locations(self, text: str) -> list[Mention]:
        if self._locations is None:
            return []
        return [
            Mention(value=" ".join(m.group().lower().split()), words=m.group(), start=m.start(), end=m.end())
            for m in self._locations.finditer(text)
        ]

    def _holds(self, mention: Mention) -> bool:
        """Decide which reading of a number holds: a door that the site has, or a time, an amount, a list.

        Without a registry the likelier one does.
        """
        known = mention.value in self._registry if self._registry else mention.likely
        return self._pattern.fullmatch(mention.value) is not None and (known or not mention.doubtful)

    def _plausible(self, text: str, mention: Mention, found: list[Mention]) -> bool:
        before, after = text[: mention.start], text[mention.end :]
        if self._lead.search(before) or mention.guessed:
            return not mention.guessed or bool(self._lead.search(before)) or _strong(before, after)
        if self._before is not None and self._before.match(after):
            return False
        if mention.value in self._registry and not mention.doubtful:
            return True
        placed = mention.doubtful or says_place(before)
        time = self._clock_after is not None and _CLOCK.fullmatch(mention.value) and self._clock_after.search(before)
        if time and not placed:
            return False
        if found and re.fullmatch(r"\s*(?:,|and|or|&|to|through|,\s*and)\s*", text[found[-1].end : mention.start]):
            return True
        return self._after is None or not self._after.search(before)


def _at_end(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    return None if (found := compile_patterns(patterns)) is None else _anchored(found, "", r"[\s:#]*$", r"(?<!\w)")


def _at_start(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    return None if (found := compile_patterns(patterns)) is None else _anchored(found, r"[\s-]*", r"(?!\w)", "")


def _anchored(pattern: re.Pattern[str], head: str, tail: str, bound: str) -> re.Pattern[str]:
    body = pattern.pattern.removeprefix(r"(?<![\w])").removesuffix(r"(?![\w])")
    return re.compile(f"{bound}{head}{body}{tail}", re.IGNORECASE)


def _numbers(text: str) -> Iterator[Mention]:
    for number in find_numbers(text):
        yield Mention(value=number.digits, words=number.words, start=number.start, end=number.end)
    for one in find_doubtful(text):
        yield Mention(value=one.digits, words=one.words, start=one.start, end=one.end, likely=one.likely, doubtful=True)
    yield from _heard_wrong(text)
    for match in _WRITTEN.finditer(text):
        yield Mention(value=match.group().upper(), words=match.group(), start=match.start(), end=match.end())
    for match in _DIGIT_RUN.finditer(text):
        digits = "".join(_DIGITS.get(word, word) for word in re.split(r"[\s,-]+", match.group().lower()))
        if len(digits) >= _LONG:
            yield Mention(value=digits, words=match.group(), start=match.start(), end=match.end())


def _heard_wrong(text: str) -> Iterator[Mention]:
    """Numbers behind words that sound like them: "ate oh six" is 806."""
    for match in _SOUNDS.finditer(text):
        first, tens = _SOUND[match["first"].lower()], match["tens"].lower()
        last = (match["last"] or "").lower()
        digit = _SOUND.get(last) or _DIGITS.get(last, "")
        if tens in _TWO:
            value = first + _TWO[tens][:1] + digit if digit and _TWO[tens].endswith("0") else first + _TWO[tens]
            end = match.end() if digit and _TWO[tens].endswith("0") else match.end("tens")
        elif digit:
            value, end = f"{first}0{digit}", match.end()
        else:
            continue
        yield Mention(value=value, words=text[match.start() : end], start=match.start(), end=end, guessed=True)


def _strong(before: str, after: str) -> bool:
    """At the very start with a verb after it, or after a word that wants a place."""
    return bool(_WANTS_PLACE.search(before)) or (not before.strip() and bool(_SAYS_SOMETHING.match(after)))


def _corrected(text: str, found: list[Mention]) -> list[Mention]:
    """Without what the speaker takes back: "214, no wait, 241", "214 not 240"."""
    dropped: set[int] = set()
    for i, (a, b) in enumerate(pairwise(found)):
        between = text[a.end : b.start]
        if _INSTEAD.fullmatch(between):
            dropped.add(i)
        elif _RATHER.fullmatch(between):
            dropped.add(i + 1)
    gone = {found[i].value for i in dropped}
    kept = [m for i, m in enumerate(found) if i not in dropped]
    return [m for m in kept if m.value not in gone] if dropped and len(kept) > 1 else kept


def distinct(mentions: list[Mention]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(mention.value for mention in mentions))
