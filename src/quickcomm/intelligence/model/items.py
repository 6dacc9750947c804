"""Finds the things that are asked for, with how many; feeds insights and summaries.

Known things come from the pack; after a wording that asks ("needs …"), what follows is taken as a thing by its shape.
"""

import re
from collections.abc import Iterable

import msgspec

from quickcomm.contracts.insight import Item
from quickcomm.kernel.site_pack import Items, compile_patterns
from quickcomm.kernel.spoken_numbers import Quantity, find_quantities

_MAX_NAME = 80
_MAX_ITEMS = 12
_MAX_COUNT = 10_000
_WORD = re.compile(r"[^\W\d_][\w'&-]*", re.UNICODE)
_NUMERAL = re.compile(r"(?<![\w.,:])(\d{1,4})\s+$")

_SIZE = re.compile(
    r"[\s-]+(?:ounces?|oz|watts?|volts?|amps?|inch(?:es)?|lit(?:er|re)s?|gallons?|pounds?|f(?:oo|ee)t|met(?:er|re)s?|packs?)\b",
    re.IGNORECASE,
)
_KIND = re.compile(r"(?<![\w'])([^\W\d_][\w-]*)\s+$")
_KINDS = 2
_BOTH = 2
_NUMBERED = re.compile(r"\s+(\d{1,2}|[a-z]+)\b(?! of\b)", re.IGNORECASE)
_GOES = re.compile(r"\s+(?:to|for)\b(?!\s+[a-z]+(?:\s+[a-z]+)?\s*[,:])", re.IGNORECASE)
_AND = re.compile(
    r"\s*,?\s+and\s+(?=(?:a|an|some|\d+|one|two|three|four|five|six|seven|eight|nine|ten|couple|few|another|more)\s)",
    re.IGNORECASE,
)

# English words that end a noun phrase, or never start one.
_STOP = frozenset(
    [
        "to",
        "for",
        "in",
        "at",
        "on",
        "by",
        "with",
        "and",
        "or",
        "from",
        "of",
        "please",
        "asap",
        "now",
        "when",
        "if",
        "so",
        "because",
        "since",
        "before",
        "after",
        "as",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "who",
        "which",
        "that",
        "they",
        "she",
        "he",
        "it",
        "its",
        "it's",
        "they're",
        "she's",
        "he's",
        "we",
        "we're",
        "i",
        "i'm",
        "you",
        "your",
        "our",
        "their",
        "his",
        "her",
        "my",
        "this",
        "these",
        "those",
        "the",
        "there",
        "here",
        "up",
        "down",
        "over",
        "right",
        "away",
        "immediately",
        "urgently",
        "quickly",
        "soon",
        "today",
        "tonight",
        "tomorrow",
        "also",
        "too",
        "again",
        "then",
        "but",
        "not",
        "no",
        "don't",
        "can",
        "could",
        "would",
        "will",
        "should",
        "can't",
        "has",
        "have",
        "had",
        "need",
        "needs",
        "want",
        "wants",
        "room",
        "rooms",
        "suite",
        "about",
        "copy",
        "thanks",
        "thank",
        "okay",
        "ok",
        "um",
        "uh",
        "yeah",
        "yes",
        "hey",
        "hi",
        "hello",
        "did",
        "do",
        "does",
        "got",
        "get",
        "getting",
        "bring",
        "send",
        "asking",
        "what",
        "where",
        "how",
        "why",
        "any",
        "ready",
        "working",
        "broken",
        "out",
        "off",
        "into",
        "under",
        "behind",
        "near",
        "next",
        "until",
        "till",
        "gone",
        "waiting",
        "thanks",
        "while",
    ]
)
_LEADING = frozenset(
    [
        "a",
        "an",
        "the",
        "some",
        "more",
        "extra",
        "another",
        "additional",
        "few",
        "couple",
        "of",
        "other",
        "spare",
        "fresh",
        "clean",
        "new",
        "any",
        "just",
        "like",
        "maybe",
        "about",
        "least",
        "at",
        "please",
        "also",
        "our",
        "their",
        "his",
        "her",
        "my",
        "your",
        "those",
        "these",
        "that",
        "this",
        "one",
    ]
)
_MODIFIERS = _LEADING | {"set", "sets", "pair", "pairs", "pack", "packs", "box", "boxes", "case", "cases"}


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    """An item with the words that say it: `words` is `text[start:end]`, quantity included."""

    item: Item
    words: str
    start: int
    end: int


class ItemFinder:
    """Reads items by the pack's lexicon and asking words. Safe to share between threads."""

    def __init__(self, items: Items) -> None:
        plain = sorted({_inflected(name) for name in items.plain}, key=len, reverse=True)
        self._names = [(entry.name, compile_patterns(entry.aliases)) for entry in items.names if entry.aliases]
        self._plain = compile_patterns(tuple(plain))
        self._asking = compile_patterns(items.asking)
        self._not = frozenset(items.not_items)

    def items(self, text: str, taken: Iterable[tuple[int, int]] = ()) -> list[Thing]:
        """Things in the order spoken; `taken` are spans (rooms, places, names) that are none."""
        spans = list(taken)
        found: list[Thing] = []
        asking = self._asking_spans(text)
        known = self._known(text)
        starts = {start for start, _, _ in known}
        for start, end, name in sorted(known, key=lambda k: (k[0], -k[1])):
            if end + 1 in starts and text[end : end + 1].isspace():
                continue  # the next is what it is: "cocktail napkins"
            if _free(start, end, spans) and not _is_label(text, end, spans):
                first = start if name else _widened(text, start, self._not, spans + asking)
                thing = _thing(text, first, end, name)
                found.append(thing)
                spans.append((thing.start, thing.end))
        for start, end in self._asked(text):
            if _free(start, end, spans):
                thing = _thing(text, start, end, None)
                if thing.item.name.lower() not in self._not:
                    found.append(thing)
                    spans.append((thing.start, thing.end))
        found += self._joined(text, found, spans)
        return sorted(found, key=lambda thing: thing.start)[:_MAX_ITEMS]

    def _joined(self, text: str, found: list[Thing], spans: list[tuple[int, int]]) -> list[Thing]:
        """What stands behind a thing and an "and": "two handheld mics and one stand"."""
        more = []
        for thing in found:
            link = _AND.match(text, thing.end)
            span = None if link is None else _phrase(text, link.end(), self._not)
            if span is not None and _free(*span, spans):
                more.append(_thing(text, *span, None))
                spans.append((more[-1].start, more[-1].end))
        return more

    def knows(self, text: str) -> int:
        """How many known things the text names: a sign for the learnt model."""
        return sum(1 for _ in self._known(text))

    def _known(self, text: str) -> list[tuple[int, int, str | None]]:
        found: list[tuple[int, int, str | None]] = []
        for name, pattern in self._names:
            if pattern is not None:
                found += ((m.start(), m.end(), name) for m in pattern.finditer(text))
        if self._plain is not None:
            found += ((m.start(), m.end(), None) for m in self._plain.finditer(text))
        return found

    def _asking_spans(self, text: str) -> list[tuple[int, int]]:
        return [] if self._asking is None else [match.span() for match in self._asking.finditer(text)]

    def _asked(self, text: str) -> list[tuple[int, int]]:
        """Noun phrases after a wording that asks, and one that opens the text and goes somewhere ("dip to 704")."""
        spans = [_phrase(text, end, self._not) for _, end in self._asking_spans(text)]
        opening = _phrase(text, 0, self._not)
        if opening is not None and _GOES.match(text, opening[1]):
            spans.append(opening)
        return [span for span in spans if span is not None]


def _inflected(name: str) -> str:
    """Make a pattern for a name and its plural."""
    head = re.escape(name).replace(r"\ ", " ")
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return f"{head[:-1]}(?:y|ies)"
    if name.endswith(("fe", "f")) and not name.endswith("ff"):
        return rf"(?:{head}s?|{head.removesuffix('e').removesuffix('f')}ves)"
    if name.endswith(("s", "x", "ch", "sh")):
        return f"{head}(?:es)?"
    return f"{head}s?"


def _thing(text: str, start: int, end: int, name: str | None) -> Thing:
    first, quantity = start, 1
    said = [each for each in find_quantities(text) if each.end <= start]
    if (size := _sized(text, said)) is not None:
        said.pop()
        start = size.start if text[size.end : start].isspace() else start  # "twelve ounce steaks"
        quantity, first = said[-1].value, said[-1].start
    elif said and _only_modifiers(text[said[-1].end : start]):
        quantity, first = said[-1].value, said[-1].start
    elif numeral := _NUMERAL.search(text[:start]):
        quantity, first = int(numeral.group(1)), numeral.start(1)
    inner = find_quantities(text[start:end])
    if size is None and inner and inner[0].start == 0:
        quantity, start = inner[0].value, start + inner[0].end
    label = " ".join((name or text[start:end]).lower().split()).strip(" ,.-'")[:_MAX_NAME] or "item"
    count = min(max(quantity, 1), _MAX_COUNT)
    return Thing(item=Item(name=label, quantity=count), words=text[first:end], start=first, end=end)


def _sized(text: str, said: list[Quantity]) -> Quantity | None:
    """Return the last number if it is a size, and the one before it counts: "two twelve ounce steaks"."""
    if len(said) < _BOTH or not text[said[-2].end : said[-1].start].isspace():
        return None
    return said[-1] if _SIZE.match(text, said[-1].end) else None


def _only_modifiers(between: str) -> bool:
    words = between.lower().split()
    return len(words) <= 3 and all(word in _MODIFIERS or (word.isalpha() and word not in _STOP) for word in words)  # noqa: PLR2004


def _is_label(text: str, end: int, spans: list[tuple[int, int]]) -> bool:
    """Whether a small number right behind only says which one it is: "table six"."""
    said = _NUMBERED.match(text, end)
    return said is not None and _free(said.start(1), said.end(1), spans) and bool(find_quantities(f"{said[1]} things"))


def _widened(text: str, start: int, not_items: frozenset[str], spans: list[tuple[int, int]]) -> int:
    """Where a thing begins with the words that say what kind it is: "black linens", "cocktail napkins"."""
    for _ in range(_KINDS):
        before = _KIND.search(text, 0, start)
        if before is None or not _free(before.start(1), before.end(1), spans):
            break
        word = before[1].lower()
        if word in _STOP or word in _MODIFIERS or word in not_items or find_quantities(f"{word} things"):
            break
        start = before.start(1)
    return start


def _phrase(text: str, start: int, not_items: frozenset[str]) -> tuple[int, int] | None:
    """Find the noun phrase that starts at `start`, by its shape: words up to the first that cannot belong to it."""
    words: list[re.Match[str]] = []
    at = start
    for match in _WORD.finditer(text, start):
        gap = text[at : match.start()]
        word = match.group().lower()
        if gap.strip(" \t\n0123456789") or len(words) > 4:  # noqa: PLR2004 - names of things are short
            break
        at = match.end()
        if not words and (word in _LEADING or find_quantities(f"{word} things")):
            continue
        if word in _STOP or word in not_items:
            break
        words.append(match)
    return (words[0].start(), words[-1].end()) if words else None


def _free(start: int, end: int, spans: list[tuple[int, int]]) -> bool:
    return all(end <= left or start >= right for left, right in spans)
