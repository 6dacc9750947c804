"""Figures about what both sides of audio heard of the same sound. Pure. See docs/adr/0048."""

from collections.abc import Iterator
from typing import Final

import msgspec

from quickcomm.contracts.migration import Figure, FigureNumbers, FigureSide, Hearings
from quickcomm.traffic.model.comparing import outcome_of, waits
from quickcomm.traffic.model.statistics import fewest, wilson

WORDS: Final = "word errors"
UTTERANCES: Final = "missed or extra"
HEARD: Final = frozenset({WORDS, UTTERANCES})


class Rare(msgspec.Struct, frozen=True, kw_only=True):
    """A share of `of` samples that is at most `limit`."""

    name: str
    words: str
    share: float
    of: int
    limit: float

    def figure(self, confidence: float, alarm_confidence: float, seconds: float) -> Figure:
        """Return what is found."""
        share, of = min(1.0, self.share), self.of
        low, high = wilson(share * of, of, confidence)
        alarm, _ = wilson(share * of, of, alarm_confidence)
        outcome = outcome_of(passes=high <= self.limit, fails=alarm > self.limit)
        side = FigureSide(value=share if of else None, low=low, high=high, samples=of)
        numbers = (FigureNumbers(outcome=outcome, unit="share", service=side, limit=self.limit),)
        detail = f"{self.words}, at most {self.limit:.0%}"
        if outcome != "wait":
            return Figure(name=self.name, outcome=outcome, detail=detail, numbers=numbers)
        needed = fewest(lambda size: wilson(share * size, size, confidence)[1] <= self.limit)
        return waits(self.name, detail, of, needed, seconds, numbers)


def compared(found: Hearings, word_errors: float, utterance_errors: float) -> Iterator[Rare]:
    """Yield how the side that does not serve has heard; the text of the other one is the reference.

    The words of an utterance may all be wrong for one reason, so that each utterance counts as one sample.
    """
    of = found.utterances
    wrong = found.wrong / found.words if found.words else float(bool(found.extra))
    words = f"{found.wrong} of {found.words} words in {of} utterances"
    yield Rare(name=WORDS, words=words, share=wrong, of=of or found.extra, limit=word_errors)
    lost = found.missed + found.extra
    words = f"{found.missed} missed and {found.extra} too many of {of} utterances"
    yield Rare(name=UTTERANCES, words=words, share=lost / max(of, lost, 1), of=max(of, lost), limit=utterance_errors)
