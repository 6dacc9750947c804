"""Reads an utterance by the pack's rules: places, things, urgency, danger, cues. Feeds the learnt model."""

import re
from collections.abc import Mapping, Sequence

import msgspec

from quickcomm.intelligence.model.items import ItemFinder, Thing
from quickcomm.intelligence.model.mention import Mention
from quickcomm.intelligence.model.mentions import PlaceFinder
from quickcomm.kernel.emergencies import EmergencyRules, Hit, tidy
from quickcomm.kernel.site_pack import SitePack, compile_patterns

_URGENCIES = ("low", "high", "critical")
_DIGIT_WORDS = {
    word: str(value)
    for value, word in enumerate(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], start=1
    )
}  # fmt: skip
_ASKS = re.compile(
    r"\?\s*$|^\W*(?:is|are|was|has|have|do|does|did|can|could|who|what|where|when|which|any)\b", re.IGNORECASE
)
_NOT_WORDS = re.compile(r"[^\w' ]+", re.UNICODE)
_MARKS = re.compile(r"[,.;!?](?!\d)")
_NOT_SAID = re.compile(r"[^\w' ,.;!?]+", re.UNICODE)
_BIG = re.compile(r"\b\d{3,}\b")
_LONG, _SHORT = 12, 4


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What rules alone find in a text. `plain` is how the learnt model sees it; `flags` are its signs, 0 or 1."""

    text: str
    plain: str
    rooms: tuple[Mention, ...]
    places: tuple[Mention, ...]
    things: tuple[Thing, ...]
    urgent: tuple[Hit, ...]
    danger: tuple[Hit, ...]
    near_miss: bool
    called: str
    """The department that is called at the start ("Housekeeping, …"), or empty."""
    flags: tuple[float, ...]
    settled: frozenset[str] = frozenset()
    """Intents that the pack's `always` wordings name."""
    ruled_out: frozenset[str] = frozenset()
    """Intents that the pack's `unless` wordings exclude."""


class Reader:
    """A pack's rules, compiled. Safe to share between threads."""

    def __init__(self, pack: SitePack) -> None:
        self.pack = pack
        self.places = PlaceFinder(pack.places)
        self._items = ItemFinder(pack.items)
        self._urgency = [
            (rule, compile_patterns(rule.patterns), compile_patterns(rule.unless)) for rule in pack.urgency
        ]
        self._emergencies = EmergencyRules(pack.emergency)
        self._cues = [compile_patterns(pack.intents[name].cues) for name in sorted(pack.intents)]
        self._always = _compiled({name: intent.always for name, intent in pack.intents.items()})
        self._unless = _compiled({name: intent.unless for name, intent in pack.intents.items()})
        self._within = compile_patterns(pack.places.within)
        self._departments = [compile_patterns(pack.departments[name].cues) for name in sorted(pack.departments)]
        self._named = [_named(pack.departments[name].aliases) for name in sorted(pack.departments)]
        self._call_signs = _call_signs(pack)
        self.flag_count = len(self.read("").flags)

    def read(self, text: str, *, flags: bool = True) -> Reading:
        """`flags`: whether the signs for the learnt model are wanted, too."""
        text = tidy(text)
        rooms = tuple(self.places.rooms(text))
        places = tuple(self.places.locations(text))
        spans = [(m.start, m.end) for m in rooms]
        things = tuple(self._items.items(text, spans)) if self.pack.items.intents else ()
        called, body = self._call_sign(text)
        danger, near_miss = self._emergencies.hits(text)
        plain = self.plain(text[body:], tuple(_shifted(m, body) for m in rooms if m.start >= body))
        said = self.plain(text[body:], tuple(_shifted(m, body) for m in rooms if m.start >= body), marks=True)
        reading = Reading(
            text=text,
            plain=plain,
            rooms=rooms,
            places=places,
            things=things,
            urgent=tuple(self._urgent(text)),
            danger=danger,
            near_miss=near_miss,
            called=called,
            flags=(),
            settled=_matching(self._always, said),
            ruled_out=_matching(self._unless, said),
        )
        return msgspec.structs.replace(reading, flags=self._flags(reading)) if flags else reading

    def plain(self, text: str, rooms: tuple[Mention, ...], *, marks: bool = False) -> str:
        """Lower case, no punctuation, rooms and large numbers masked: written and heard text come out alike.

        `marks`: commas, full stops, exclamation and question marks stay, each as a word.
        """
        noun = self.pack.places.noun
        parts, at = [], 0
        for room in rooms:
            parts += [text[at : room.start], f" {noun} "]
            at = room.end
        words = ("".join(parts) + text[at:]).lower()
        words = _NOT_SAID.sub(" ", _MARKS.sub(r" \g<0> ", words)) if marks else _NOT_WORDS.sub(" ", words)
        words = _BIG.sub("number", words)
        out: list[str] = []
        for word in words.split():
            kept = _DIGIT_WORDS.get(word, word.strip("'"))
            if kept and not (kept == noun and out and out[-1] in {noun, f"{noun}s"}):
                out.append(kept)
        return " ".join(out)

    def elsewhere(self, reading: Reading) -> bool:
        """Return True if the text names a place other than a part of a room."""
        return any(self._within is None or not self._within.fullmatch(place.words) for place in reading.places)

    def _call_sign(self, text: str) -> tuple[str, int]:
        if self._call_signs is None or (match := self._call_signs.match(text)) is None:
            return "", 0
        name = next(key for key, value in match.groupdict().items() if value)
        return name, match.end() if len(text) - match.end() > 1 else 0

    def _urgent(self, text: str) -> list[Hit]:
        hits = []
        for rule, pattern, unless in self._urgency:
            if pattern is None or (unless is not None and unless.search(text)):
                continue
            hits += [
                Hit(label=rule.level, words=m.group(), start=m.start(), end=m.end(), sure=rule.always)
                for m in pattern.finditer(text)
            ]
        return sorted(hits, key=lambda hit: hit.start)

    def _flags(self, reading: Reading) -> tuple[float, ...]:
        text, words = reading.text, len(reading.plain.split())
        levels = {hit.label for hit in reading.urgent}
        kinds = {(hit.label, hit.sure) for hit in reading.danger}
        rules = [(rule.kind, sure) for rule in self.pack.emergency.rules for sure in (True, False)]
        signs = [
            bool(reading.rooms),
            len({m.value for m in reading.rooms}) > 1,
            bool(reading.places),
            bool(reading.things),
            len(reading.things) > 1,
            any(t.item.quantity > 1 for t in reading.things),
            bool(_ASKS.search(text)),
            any(hit.sure for hit in reading.danger),
            bool(reading.danger),
            reading.near_miss,
            words <= 1,
            words <= _SHORT,
            words > _LONG,
            *(level in levels for level in _URGENCIES),
            *(rule in kinds for rule in rules),
            *(reading.called == name for name in sorted(self.pack.departments)),
            *(pattern is not None and bool(pattern.search(text)) for pattern in self._named),
            *(pattern is not None and bool(pattern.search(text)) for pattern in self._cues),
            *(name in reading.settled for name in sorted(self._always)),
            *(name in reading.ruled_out for name in sorted(self._unless)),
            *(pattern is not None and bool(pattern.search(text)) for pattern in self._departments),
        ]
        return tuple(float(sign) for sign in signs)


def _compiled(patterns: Mapping[str, Sequence[str]]) -> dict[str, re.Pattern[str]]:
    compiled = {name: compile_patterns(tuple(own)) for name, own in patterns.items()}
    return {name: pattern for name, pattern in compiled.items() if pattern is not None}


def _matching(patterns: Mapping[str, re.Pattern[str]], said: str) -> frozenset[str]:
    return frozenset(name for name, pattern in patterns.items() if pattern.search(said))


def _named(aliases: Sequence[str]) -> re.Pattern[str] | None:
    """Match a department wherever it is spoken of: "security to the lobby", "two more bartenders"."""
    return compile_patterns(tuple(re.escape(alias).replace(r"\ ", " ") + "s?" for alias in aliases))


def _call_signs(pack: SitePack) -> re.Pattern[str] | None:
    """Match "Housekeeping, …", "Hey engineering this is front desk, …" at the start of a text."""
    groups = [
        f"(?P<{name}>{'|'.join(sorted(map(re.escape, department.aliases), key=len, reverse=True))})"
        for name, department in pack.departments.items()
        if department.aliases
    ]
    if not groups:
        return None
    anyone = "|".join(
        sorted((re.escape(alias) for d in pack.departments.values() for alias in d.aliases), key=len, reverse=True)
    )
    names = "|".join(groups)
    hail = r"\W*(?:(?:hey|hi|hello|okay|ok|good morning|morning|calling|base to|come in)\W+)?"
    caller = rf"(?:\W+(?:this is|it's|from|for|to)\s+(?:\w+\s+(?:at|in|from)\s+)?(?:the\s+)?(?:{anyone})\b)?"
    end = r"(?:\W*[,:.!?-]+\s*|\s+(?=do you copy|come in|please|can you|we))"
    return re.compile(rf"{hail}(?:{names})\b{caller}{end}", re.IGNORECASE)


def _shifted(mention: Mention, by: int) -> Mention:
    return msgspec.structs.replace(mention, start=mention.start - by, end=mention.end - by)
