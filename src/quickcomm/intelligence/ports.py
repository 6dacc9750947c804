"""What intelligence needs from outside: something that classifies."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from quickcomm.contracts.insight import Insight


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
