"""Few-shot examples: the pack's labelled phrases that are most like an utterance, with evidence and summary added.

Likeness is the cosine of TF-IDF over word and character n-grams (see `ngrams`), looked up in an inverted index: well
under a millisecond for some thousand phrases. Making the index takes about half a second, and writing out an example
a millisecond: `warm` does both ahead, in a thread.
"""

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from quickcomm.contracts.insight import Item
from quickcomm.intelligence.adapters.ngrams import Ngrams
from quickcomm.intelligence.model.clauses import candidates, pieces
from quickcomm.intelligence.model.reading import Reader, Reading
from quickcomm.intelligence.model.wording import summarise
from quickcomm.intelligence.ports import Draft, DraftEvidence, DraftItem
from quickcomm.intelligence.service.prompt_version import Example
from quickcomm.kernel.emergencies import tidy
from quickcomm.kernel.site_pack import Phrase, PhraseInsight, SitePack

_CLEAR, _UNCLEAR = 0.9, 0.4
"""What examples say of their confidence: an example that is always sure teaches a model to be so."""
_CONSIDERED = 64
PAUSE_S = 0.002
"""Between two examples that are written out ahead: the event loop's thread goes first."""
_NUMBER = re.compile(r"\b\d{2,}[a-z]?\b")
_NOT_WORDS = re.compile(r"[^\w' ]+")


def normal_form(text: str) -> str:
    """Lower case, no punctuation, numbers alike: phrases that differ only in the room have one form."""
    words = _NUMBER.sub("number", _NOT_WORDS.sub(" ", tidy(text).lower()))
    return " ".join(words.split())


class PhraseExamples:
    """Implements `service.prompt_version.Examples`."""

    def __init__(self, shared: "SharedExamples", left_out: frozenset[str] = frozenset()) -> None:
        """`left_out`: normal forms of phrases that must not be examples."""
        self._shared = shared
        self._left_out = left_out

    @classmethod
    def of(cls, pack: SitePack, phrases: Callable[[], Sequence[Phrase]]) -> "PhraseExamples":
        """`phrases` is called once, when the first example is asked for."""
        return cls(SharedExamples(pack, phrases))

    def warm(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Make the index and write out all examples; takes seconds, so call it in a thread."""
        for place in range(len(self._shared.index.phrases)):
            if stop():
                return
            self._shared.example(place)
            time.sleep(PAUSE_S)

    def pick(self, text: str, count: int, per_intent: int) -> Sequence[Example]:
        if not count:
            return ()
        index = self._shared.index
        taken: list[int] = []
        forms: set[str] = set()
        of_intent: dict[str, int] = {}
        several = 0  # phrases with more than one need; more than half of them teach a model to find two everywhere
        for place in index.nearest(normal_form(text), _CONSIDERED + len(self._left_out)):
            form, insights = index.forms[place], index.phrases[place].insights
            intent = insights[0].intent
            full = of_intent.get(intent, 0) >= per_intent or (len(insights) > 1 and several >= count // 2)
            if form in self._left_out or form in forms or full:
                continue
            forms.add(form)
            several += len(insights) > 1
            of_intent[intent] = of_intent.get(intent, 0) + 1
            taken.append(place)
            if len(taken) == count:
                break
        return [self._shared.example(place) for place in reversed(taken)]

    def without(self, texts: Iterable[str]) -> "PhraseExamples":
        return PhraseExamples(self._shared, self._left_out | {normal_form(text) for text in texts})


class SharedExamples:
    """What all views of the same phrases have in common: the index, and examples that were written out before."""

    def __init__(self, pack: SitePack, phrases: Callable[[], Sequence[Phrase]]) -> None:
        self._pack = pack
        self._phrases = phrases
        self._lock = threading.Lock()
        self.example = lru_cache(maxsize=None)(self._written_out)

    @property
    def index(self) -> "_Index":
        with self._lock:
            return self._index

    @cached_property
    def _index(self) -> "_Index":
        return _Index(self._phrases())

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self._pack)

    def _written_out(self, place: int) -> Example:
        phrase = self.index.phrases[place]
        return Example(text=phrase.text, drafts=drafts_of(phrase, self._reader))


class _Index:
    """Phrases by their n-grams: for each column the rows that have it."""

    def __init__(self, phrases: Sequence[Phrase]) -> None:
        self.phrases = phrases
        self.forms = [normal_form(phrase.text) for phrase in phrases]
        self._ngrams = Ngrams.fit(self.forms)
        rows = self._ngrams.transform(self.forms)
        of_row = np.repeat(np.arange(len(phrases)), np.diff(rows.ends))
        order = np.argsort(rows.columns, kind="stable")
        self._rows, self._values = of_row[order], rows.values[order]
        self._starts = np.searchsorted(rows.columns[order], np.arange(rows.width + 1))

    def nearest(self, form: str, count: int) -> list[int]:
        """Places of phrases, the most like `form` first; those that came first in the file before others as like."""
        scores = self._scores(form)
        if count < len(scores):
            least = np.partition(scores, len(scores) - count)[len(scores) - count]
            likely = np.flatnonzero(scores >= least)
        else:
            likely = np.arange(len(scores))
        order = np.lexsort((likely, -scores[likely]))
        return [int(place) for place in likely[order[:count]]]

    def _scores(self, form: str) -> npt.NDArray[np.float64]:
        own = self._ngrams.transform([form])
        starts = self._starts[own.columns]
        counts = self._starts[own.columns + 1] - starts
        total = int(counts.sum())
        if not total:
            return np.zeros(len(self.phrases))
        # Places of all entries of these columns, one column after the other, without a loop over columns.
        places = np.arange(total) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        weights = self._values[places] * np.repeat(own.values, counts)
        return np.round(np.bincount(self._rows[places], weights, minlength=len(self.phrases)), 6)


def drafts_of(phrase: Phrase, reader: Reader) -> tuple[Draft, ...]:
    """The right answer for a labelled phrase; evidence and summary are what the pack's rules find in its words."""
    whole = reader.read(phrase.text)
    parts = _parts(phrase, whole, reader)
    return tuple(
        _draft(insight, whole, part, reader.pack) for insight, part in zip(phrase.insights, parts, strict=True)
    )


def _parts(phrase: Phrase, whole: Reading, reader: Reader) -> list[Reading]:
    """The part of the text that each insight is about: the cut whose parts have most of what the labels say."""
    needed = len(phrase.insights) - 1
    text = tidy(phrase.text)
    if not needed:
        return [whole]
    read = cache(lambda start, end: reader.read(text[start:end]))
    options = [
        [read(*span) for span in pieces(text, list(cuts))]
        for cuts in itertools.combinations(candidates(text, reader), needed)
    ]
    if not options:
        return [whole] * len(phrase.insights)
    return max(options, key=lambda parts: sum(map(_agreement, phrase.insights, parts)))


def _agreement(insight: PhraseInsight, part: Reading) -> int:
    rooms = {mention.value for mention in part.rooms}
    things = {thing.item.name for thing in part.things}
    return len(rooms & set(insight.rooms)) + len(things & {item.name for item in insight.items})


def _draft(insight: PhraseInsight, whole: Reading, part: Reading, pack: SitePack) -> Draft:
    hits = part.danger if insight.urgency == "critical" else part.urgent
    urgent = [hit.words for hit in hits if insight.urgency in {"critical", hit.label}]
    return Draft(
        intent=insight.intent,
        department=insight.department,
        urgency=insight.urgency,
        rooms=insight.rooms,
        items=tuple(DraftItem(name=item.name, quantity=item.quantity) for item in insight.items),
        summary=summarise(pack, insight.intent, part, insight.rooms, insight.items),
        confidence=_UNCLEAR if insight.intent == pack.unclear else _CLEAR,
        evidence=DraftEvidence(
            rooms=_distinct(mention.words for mention in whole.rooms if mention.value in insight.rooms),
            items=_distinct(words for item in insight.items for words in _item_words(item, whole)),
            urgency=_distinct(urgent),
        ),
    )


def _item_words(item: Item, whole: Reading) -> list[str]:
    """Where a thing is spoken of: as the rules read it, or where its name stands in the text."""
    found = [thing.words for thing in whole.things if thing.item.name == item.name]
    if not found:
        place = whole.text.lower().find(item.name.lower())
        found = [whole.text[place : place + len(item.name)]] if place >= 0 else []
    return found


def _distinct(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word.strip()))
