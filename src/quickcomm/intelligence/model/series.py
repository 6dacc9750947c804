"""Rooms that are named together: "rooms 401 through 405", "rooms 412, 14 and 16". Used by `mentions`."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from quickcomm.intelligence.model.mention import Mention
from quickcomm.kernel.number_words import DOORS_PLURAL, FUNCTION, SMALL, TEN, VERBS

_PLURAL: Final = re.compile(rf"\b(?:{'|'.join(sorted(DOORS_PLURAL))})(?: numbers?)?\W*$", re.IGNORECASE)
_LIST: Final = re.compile(rf"\b(?:{'|'.join(sorted(DOORS_PLURAL))})\b[\w\s,&]*$", re.IGNORECASE)
_THROUGH: Final = re.compile(r"\s*(?:(?P<sure>through|thru)|to|till|until|[-\u2010-\u2013])\s*", re.IGNORECASE)
_TWO: Final = {word: f"{value}" for word, value in SMALL.items() if value >= TEN}
_SHORT: Final = re.compile(
    rf"(?:\s*,\s*(?:and\s+)?|\s+(?:and|or)\s+|\s+)(?P<short>\d\d|{'|'.join(sorted(_TWO, key=len, reverse=True))})"
    r"(?![\w:%]|[.,]\d)(?=(?P<gap>\W*)(?P<next>\w+)?)",
    re.IGNORECASE,
)
_SERIES: Final = (*sorted(DOORS_PLURAL), "through", "thru")
_LONGEST: Final = 60
"""Rooms in one range."""
_FLOOR: Final = 100


def with_series(text: str, rooms: list[Mention], registry: frozenset[str]) -> list[Mention]:
    """Return the rooms with those between the ends of a range, and those of which only the last digits are said.

    What a registry does not know is left out. The place of a room within a range is the whole range.
    """
    lower = text.lower()
    if not rooms or not any(word in lower for word in _SERIES):
        return rooms
    found = [each for room in rooms for each in (room, *_shortened(text, room, registry))]
    filled = [found[0]]
    for first, last in pairwise(found):
        filled += [*_between(text, first, last, registry), last]
    return filled


def _between(text: str, first: Mention, last: Mention, registry: frozenset[str]) -> Iterator[Mention]:
    link = _THROUGH.fullmatch(text[first.end : last.start])
    if link is None or not (link["sure"] or _PLURAL.search(text[: first.start])):
        return
    if not (first.value.isdigit() and last.value.isdigit()):
        return
    low, high = int(first.value), int(last.value)
    if low // _FLOOR != high // _FLOOR or high - low > _LONGEST:
        return
    words = text[first.start : last.end]
    for number in range(low + 1, high):
        if not registry or str(number) in registry:
            yield Mention(value=str(number), words=words, start=first.start, end=last.end)


def _shortened(text: str, room: Mention, registry: frozenset[str]) -> Sequence[Mention]:
    """Read "rooms 412, 14 and 16": numbers of two digits on the same floor."""
    if not room.value.isdigit() or not _LIST.search(text[: room.start]):
        return ()
    found: list[Mention] = []
    at = room.end
    while (match := _SHORT.match(text, at)) is not None:
        after = (match["next"] or "").lower()
        listed = after.isdigit() or after in _TWO or after in FUNCTION | VERBS or not match["gap"].isspace()
        value = room.value[:-2] + _TWO.get(match["short"].lower(), match["short"])
        if not listed or (registry and value not in registry):
            break
        start, at = match.start("short"), match.end("short")
        found.append(Mention(value=value, words=text[start:at], start=start, end=at))
    return found
