"""Where an utterance may be cut into the things that it asks; the learnt cutter decides which cuts count."""

import re

import msgspec

from quickcomm.intelligence.model.reading import Reader, Reading

_ALSO = (
    "and also|and then|and while you'?re (?:at it|there)|while you'?re (?:at it|there)|also|plus|then|as well as|oh and"
    "|and oh|on top of that|after that|and after|one more thing|another thing|and another"
)
_LINK = re.compile(
    rf"(?P<strong>[.!?;]\s+)|(?P<dash>\s+-+\s+)|(?P<also>[,\s]+(?:{_ALSO})[,\s]+)|(?P<comma_and>,\s*(?:and|but)\s+)"
    r"|(?P<and>\s+and\s+)|(?P<but>\s+but\s+)|(?P<comma>,\s+)",
    re.IGNORECASE,
)
LINKS = ("strong", "dash", "also", "comma_and", "and", "but", "comma")
_OPENERS = (
    "please|also|can (?:you|we|someone|somebody)|could (?:you|we|someone)|we|i|they|she|he|the|guests?"
    r"|there(?:'s| is| are)?|room|\d"
)
_NEW_NEED = re.compile(rf"^\W*(?:(?:{_OPENERS})\b|\w+ (?:needs?|wants?|is|has|are|called))", re.IGNORECASE)
_REASON = re.compile(
    r"\W*(?:(?:because|'?cause|cuz|otherwise|or else|before|until|since"
    r"|so (?:that|we|they|i|he|she|it|people|nobody|can))\b"
    r"|i need (?:it|them|that|this) (?:for|by|before)\b"
    r"|(?:he|she|they|it|people)(?:'s|'re|'ve| is| are| was| has| have)? "
    r"(?:been|starts?|begins?|already|still|keeps?|can't|couldn't|says? (?:it|they|he|she|that)|upset|late for)\b)",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\W*(?:(?:no|actually)\W+)*(?:never ?mind|(?:scratch|cancel|belay|strike|forget) (?:that|it))\b", re.IGNORECASE
)
_REQUEST = re.compile(
    r"\W*(?:(?:please|also|and|then|just|maybe|oh)\W+)*"
    r"(?:(?:can|could|would|will) \w+|bring|send|get|take|grab|run|drop|put|pick|clean|clear|fix|check|look|find|see"
    r"|tell|call|have|move|open|turn|swap|replace|change|set|make|order|(?:we |i )?need|someone|somebody"
    r"|who(?:'s)?|is there)\b"
    r"|.{0,40}(?<!\bit )\b(?:needs?|wants?|would like|asking for|asked for|(?:is|are) out of|as well|too|also)\b",
    re.IGNORECASE,
)
_CONTRAST = re.compile(r"(?:^|(?<=\W))(?:but|except|though|although|only)\b", re.IGNORECASE)
_MAX_CUTS = 6
_MIN_WORDS = 2


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A place where the text may be cut: the left part ends at `start`, the right one begins at `end`."""

    start: int
    end: int
    link: str


def candidates(text: str, reader: Reader) -> list[Cut]:
    """Cuts that leave at least two words on either side, at most a handful, outside names of places and things.

    What begins as a reason ("because", "they start in") or takes back what was said is not cut off.
    """
    reading = reader.read(text)
    taken = [(m.start, m.end) for m in (*reading.places, *reading.rooms)] + [(t.start, t.end) for t in reading.things]
    rooms = [(m.start, m.end) for m in reading.rooms]
    cuts: list[Cut] = []
    at = 0
    for match in _LINK.finditer(reading.text):
        if any(start < match.start() and match.end() < end for start, end in taken):
            continue
        if _joins_rooms(match, rooms):
            continue
        left, right = reading.text[at : match.start()], reading.text[match.end() :]
        if _REASON.match(right) or _TAKEN_BACK.match(right):
            continue
        # "5, 0, 7" is one word.
        spelled = sum(len(m.words.split()) - 1 for m in reading.rooms if at <= m.start and m.end <= match.start())
        if len(left.split()) - spelled >= _MIN_WORDS and len(right.split()) >= _MIN_WORDS:
            link = match.lastgroup or "comma"
            keep = match.start() + 1 if link == "strong" else match.start()
            cuts.append(Cut(start=keep, end=match.end(), link=link))
            at = match.end()
    ranked = sorted(cuts, key=lambda cut: LINKS.index(cut.link))[:_MAX_CUTS]
    return sorted(ranked, key=lambda cut: cut.start)


def asks_anew(left: Reading, right: Reading) -> bool:
    """Return True if the right side of a cut looks like a request of its own: it says so, or names another room."""
    new = {room.value for room in right.rooms} - {room.value for room in left.rooms}
    return bool(new) or _REQUEST.match(right.text) is not None


def contrasts(text: str, cut: Cut) -> bool:
    """Return True if the right side of a cut takes the left one up with "but" or its like."""
    return _CONTRAST.search(text[cut.start : cut.end]) is not None or _CONTRAST.match(text[cut.end :]) is not None


def starts_need(text: str) -> bool:
    """Whether a clause begins as a request or statement of its own."""
    return _NEW_NEED.match(text) is not None


def pieces(text: str, cuts: list[Cut]) -> list[tuple[int, int]]:
    """Spans of the parts that the cuts leave."""
    starts = [0, *(cut.end for cut in cuts)]
    ends = [*(cut.start for cut in cuts), len(text)]
    return list(zip(starts, ends, strict=True))


def _joins_rooms(match: re.Match[str], rooms: list[tuple[int, int]]) -> bool:
    """Whether the link only joins two rooms, as in "412 and 414"."""
    return any(end == match.start() for _, end in rooms) and any(start == match.end() for start, _ in rooms)
