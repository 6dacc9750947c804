"""Keeps words that were not understood from becoming work; stands before the classifiers.

A text that the engine itself doubts is a guess: its rooms, items and requests are as likely invented as said. The
utterance gets one `unclear` insight, so that a person listens. Only a word of danger that was heard clearly is passed
on, as an emergency that is not confirmed: docs/adr/0032.
"""

import re
from collections.abc import Sequence
from typing import Final

from quickcomm.contracts.insight import Evidence, Insight
from quickcomm.intelligence.ports import Classifier, Heard
from quickcomm.kernel.site_pack import SitePack

UNCONFIRMED: Final = 0.5
"""How sure an emergency in a doubtful text can be at most."""
LISTEN: Final = "Listen: what was said was not understood"
_TELLING: Final = 4
_SMALL: Final = frozenset({"from", "have", "here", "that", "there", "they", "this", "with"})
_WORD: Final = re.compile(r"[^\W_]+")


class Doubting:
    """A `Classifier`: `classifier` for what was understood, `local` for dangers in what was not."""

    def __init__(self, classifier: Classifier, local: Classifier, pack: SitePack) -> None:
        self._classifier, self._local, self._pack = classifier, local, pack

    @property
    def model(self) -> str:
        return self._classifier.model

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        """See `Classifier.classify`. A language model is not asked about a doubtful text."""
        doubtful = [one for one in heard if one.doubtful]
        if not doubtful:
            return await self._classifier.classify(heard)
        clear = [one for one in heard if not one.doubtful]
        understood = iter(await self._classifier.classify(clear) if clear else ())
        guessed = iter(await self._local.classify(doubtful))
        return [self._kept(one, next(guessed)) if one.doubtful else next(understood) for one in heard]

    def _kept(self, heard: Heard, guessed: Sequence[Insight]) -> tuple[Insight, ...]:
        certain = {word for text in heard.certain for word in _words(text)}
        dangers = [one for one in guessed if one.intent == self._pack.emergency.intent]
        for danger in dangers:
            cited = next((text for text in danger.evidence.urgency if _is_among(certain, _words(text))), None)
            if cited is not None:
                return (self._unconfirmed(danger, cited),)
        return (self._unclear(),)

    def _unconfirmed(self, danger: Insight, cited: str) -> Insight:
        return Insight(
            index=0,
            intent=danger.intent,
            department=danger.department,
            urgency=danger.urgency,
            summary=f"Listen now: “{cited[:40]}” was heard, not confirmed",
            confidence=min(danger.confidence, UNCONFIRMED),
            model=self._local.model,
            evidence=Evidence(urgency=(cited,)),
        )

    def _unclear(self) -> Insight:
        unclear = self._pack.unclear
        return Insight(
            index=0,
            intent=unclear,
            department=self._pack.intents[unclear].department,
            urgency="low",
            summary=LISTEN,
            confidence=1.0,
            model=self._local.model,
        )


def _is_among(certain: set[str], words: list[str]) -> bool:
    """Return True if the words that tell something were all heard clearly: of "there is a fire", "fire"."""
    telling = [word for word in words if len(word) >= _TELLING and word not in _SMALL] or words
    return bool(telling) and certain.issuperset(telling)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
