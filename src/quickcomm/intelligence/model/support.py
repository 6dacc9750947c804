"""What an utterance supports: its rooms, things, urgency and danger, each with the words. Used by `grounding`.

Orders to the model are taken out before anything is read. Places in the text stay, so evidence is cited from the
original.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from quickcomm.contracts.insight import Item
from quickcomm.intelligence.model.drafts import DraftItem, Heard
from quickcomm.intelligence.model.items import Thing
from quickcomm.intelligence.model.mention import Mention
from quickcomm.intelligence.model.orders import blanked, find_orders, without_orders
from quickcomm.intelligence.model.reading import Reader
from quickcomm.kernel.emergencies import MAX_TEXT, Hit
from quickcomm.kernel.site_pack import ItemName, compile_patterns
from quickcomm.kernel.spoken_numbers import find_numbers, find_quantities

_REFERS_BACK: Final = re.compile(
    r"\b(?:same(?:\s+(?:room|place|one|guest|suite|again|there|for|thing|as|floor|people|lady|gentleman|number|account|order))?"
    r"|(?:that|this|their|his|her|those|these)\s+(?:rooms?|suites?|guests?|one|place|lady|gentleman|family|couple|account|order)"
    r"|(?:over|up|down|in|back|out|to|from|at)\s+there|there(?!(?:'s|\s+(?:is|are|was|were|has|have|will|might|seems?))\b)"
    r"|again|(?:he|she|they|it)(?:'s|'re)?\s+(?:also|still|now|again|just|needs?|wants?)|as\s+well|another\s+one|one\s+more|also"
    r"|the\s+other\s+(?:room|one|guest))\b",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"[^\W\d_][\w'-]*")
_RUN: Final = re.compile(r"\d+")
_EMPTY: Final = frozenset(
    {"a", "an", "the", "some", "of", "and", "for", "with", "extra", "more", "another", "additional", "new"}
)
_MAX_NAME: Final = 80
_MAX_COUNT: Final = 10_000
_SHORTEST_PLURAL: Final = 3
_GAP: Final = 3
"""Words that may stand between those of one thing: "towels, the big white bath ones" is too far."""


class Supported(msgspec.Struct, frozen=True):
    """A value that the text supports, and the words that say it; `adjusted` where the claim was not quite that."""

    item: Item
    words: tuple[str, ...]
    adjusted: bool = False


class Support:
    """One utterance, read once. `orders` are the spans that were left out."""

    def __init__(self, reader: Reader, aliases: "Aliases", heard: Heard) -> None:
        self.original = heard.text[:MAX_TEXT]
        self.orders = find_orders(self.original)
        self.reading = reader.read(blanked(self.original, self.orders), flags=False)
        self._reader, self._aliases = reader, aliases
        self._rooms = _by_value([*self.reading.rooms, *reader.places.guesses(self.reading.text)])
        refers = _REFERS_BACK.search(self.reading.text)
        self._refers = "" if refers is None else self.cite(refers.start(), refers.end())
        self._context = self._context_rooms(heard.context) if refers is not None else frozenset()

    @property
    def nothing_said(self) -> bool:
        """Whether all of it was said to the model."""
        return bool(self.orders) and not any(char.isalnum() for char in self.reading.text)

    def cite(self, start: int, end: int) -> str:
        return self.original[start:end]

    def cited(self, words: Iterable[str]) -> tuple[str, ...]:
        """Those of the words that stand in the text, outside orders, as they stand there."""
        lower = self.reading.text.lower()
        places = [(lower.find(word.strip().lower()), len(word.strip())) for word in words if word.strip()]
        return _distinct(
            self.cite(at, at + length) for at, length in places if at >= 0 and len(lower) == len(self.original)
        )

    def room(self, claim: str) -> tuple[str, str] | None:
        """The room as it is written, and the words that name it or refer back to it."""
        value = self._reader.places.written(claim)
        if value is None:
            return None
        mention = self._rooms.get(value)
        if mention is not None:
            return value, self.cite(mention.start, mention.end)
        return (value, self._refers) if value in self._context else None

    def item(self, claim: DraftItem) -> Supported | None:
        """The thing with its number, if the text names it: by its own name, an alias, in singular or plural."""
        stems = _stems(claim.name)
        if not stems or claim.name.strip().lower() in self._reader.pack.items.not_items:
            return None
        thing = self._thing(stems)
        spoken = self._spoken(stems)
        if thing is None and not spoken:
            spoken = self._alias(claim.name)
        if thing is None and not spoken:
            return None
        said = _name(claim.name)
        name = said if thing is None or (spoken and _stems(thing.item.name) != stems) else thing.item.name
        words = spoken if thing is None else (self.cite(thing.start, thing.end),)
        quantity = self._quantity(claim.quantity, thing)
        adjusted = quantity != claim.quantity
        return Supported(Item(name=name, quantity=quantity), words, adjusted)

    def hits(self, level: str) -> tuple[str, ...]:
        return _distinct(self.cite(hit.start, hit.end) for hit in self.reading.urgent if hit.label == level)

    def dangers(self, *, sure: bool) -> list[Hit]:
        """Danger in the words: by certain rules, or also by suspect wordings; the names of labels are no danger."""
        names = {self._reader.pack.emergency.intent, "critical"}
        return [hit for hit in self.reading.danger if hit.sure or (not sure and hit.words.lower() not in names)]

    def numbers(self) -> set[str]:
        """Every number that is said, as digits."""
        return numbers_in(self.reading.text) | {m.value for m in self._rooms.values()}

    def _context_rooms(self, context: Sequence[str]) -> frozenset[str]:
        places = self._reader.places
        return frozenset(m.value for said in context for m in places.rooms(without_orders(said)))

    def _thing(self, stems: tuple[str, ...]) -> Thing | None:
        """The thing that is meant: of the same words, or the same kind of thing with more or fewer of them."""
        best: tuple[int, Thing] | None = None
        for thing in self.reading.things:
            own = _stems(thing.item.name) + _stems(thing.words)
            if _stems(thing.item.name) == stems:
                return thing
            if own and stems[-1] in own and (set(stems) <= set(own) or stems[-1] == _stems(thing.item.name)[-1:][0]):
                common = len(set(stems) & set(own))
                best = max(best or (0, thing), (common, thing), key=lambda pair: pair[0])
        return None if best is None else best[1]

    def _spoken(self, stems: tuple[str, ...]) -> tuple[str, ...]:
        """Where the words of a name stand close together in the text."""
        tokens = [(m.start(), m.end(), _stem(m.group())) for m in _WORD.finditer(self.reading.text)]
        for first, (_, _, stem) in enumerate(tokens):
            if stem not in stems:
                continue
            window = tokens[first : first + len(stems) + _GAP]
            last = max((i for i, token in enumerate(window) if token[2] in stems), default=0)
            if set(stems) <= {token[2] for token in window[: last + 1]}:
                return (self.cite(window[0][0], window[last][1]),)
        return ()

    def _alias(self, name: str) -> tuple[str, ...]:
        pattern = self._aliases.of(name)
        match = None if pattern is None else pattern.search(self.reading.text)
        return () if match is None else (self.cite(match.start(), match.end()),)

    def _quantity(self, claimed: int, thing: Thing | None) -> int:
        """The claimed number if it is said; else what rules read beside the thing; else one."""
        read = 1 if thing is None or str(thing.item.quantity) in self._rooms else thing.item.quantity
        if claimed == read or claimed < 1 or claimed > _MAX_COUNT:
            return read
        return claimed if claimed != 1 and claimed in self._counts() else read

    def _counts(self) -> set[int]:
        spans = [(m.start, m.end) for m in self.reading.rooms]
        text = self.reading.text
        said = {q.value for q in find_quantities(text) if not _inside(q.start, spans)}
        runs = (m for m in _RUN.finditer(text) if not _inside(m.start(), spans))
        return said | {int(m.group()) for m in runs if len(m.group()) <= len(str(_MAX_COUNT))}


class Aliases:
    """What the pack calls a thing, and what people call it."""

    def __init__(self, names: Sequence[ItemName]) -> None:
        self._patterns = {_stems(entry.name): compile_patterns(entry.aliases) for entry in names}

    def of(self, name: str) -> re.Pattern[str] | None:
        return self._patterns.get(_stems(name))


def numbers_in(text: str) -> set[str]:
    """Numbers of a text as digits: written, spoken as on a door, and how many."""
    plain = {run.lstrip("0") or "0" for run in _RUN.findall(text.replace(",", ""))} | {
        run.lstrip("0") or "0" for run in _RUN.findall(text)
    }
    return plain | {n.digits for n in find_numbers(text)} | {str(q.value) for q in find_quantities(text)}


def _by_value(mentions: Iterable[Mention]) -> dict[str, Mention]:
    found: dict[str, Mention] = {}
    for mention in mentions:
        found.setdefault(mention.value.upper(), mention)
    return found


def _inside(place: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start <= place < end for start, end in spans)


def _name(claim: str) -> str:
    plain = "".join(char if char.isprintable() else " " for char in claim.lower())
    return " ".join(plain.split()).strip(" ,.-'")[:_MAX_NAME] or "item"


def _stems(name: str) -> tuple[str, ...]:
    return tuple(_stem(word) for word in _WORD.findall(name.lower()) if word not in _EMPTY)


def _stem(word: str) -> str:
    """The singular, roughly: enough to see that "towels" is "towel"."""
    word = word.lower().removesuffix("'s")
    for end, instead in (("ies", "y"), ("ves", "f"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if word.endswith(end) and len(word) > len(end) + 1:
            return word.removesuffix(end) + instead
    return (
        word.removesuffix("s")
        if word.endswith("s") and not word.endswith("ss") and len(word) > _SHORTEST_PLURAL
        else word
    )


def _distinct(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word.strip()))
