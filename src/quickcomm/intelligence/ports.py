"""What intelligence needs from outside: something that classifies."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import InsightsFound


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance to classify, with what was said before it on the same channel (oldest first)."""

    text: str
    channel: str = ""
    context: tuple[str, ...] = ()


class Classifier(Protocol):
    """Never raises for what people say; never returns an empty tuple."""

    @property
    def model(self) -> str: ...

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        """At least one insight for each utterance, in the order spoken."""
        ...


OpensTask = Callable[[str], bool]
"""Whether an intent calls for somebody to act, by the site pack."""


class ResultStore(Protocol):
    """What was published already, and publishing: one step."""

    async def known(self, utterances: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of the (site, utterance id) pairs that have insights."""
        ...

    async def publish(self, found: Sequence[InsightsFound]) -> None:
        """Remember and publish together; what is known by then is left out."""
        ...
