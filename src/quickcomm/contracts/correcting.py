"""Correcting a misheard utterance: the dashboard has the corrected text, intelligence understands it.

The words are in a decision of the dashboard alone. Steps name them by utterance and number: what the executor of
operations keeps has no words, and need not be erased.
"""

from typing import ClassVar, Final

import msgspec

from quickcomm.contracts.commands import Command
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.messaging import Request
from quickcomm.contracts.saga import StepRequest, Undone

MAX_TEXT: Final = 1000
"""Characters of a corrected text."""
REVISIONS: Final = 1000
"""Insights of correction N have revisions from N times this on: later ones of an earlier text are lower."""


class Correcting(msgspec.Struct, frozen=True, kw_only=True):
    """What the operation is started with. `number`: counts the corrections of an utterance."""

    utterance_id: str
    number: int


class CorrectUtterance(Command, frozen=True, kw_only=True, tag="utterances.correct"):
    """Keeps a corrected text, and starts the operation that puts it in force. The same text again is the same one.

    The reply is an `OperationView`, as it stands after some seconds.
    """

    module: ClassVar = "dashboard"
    to: ClassVar = "owner"
    callers: ClassVar = ("dashboard",)
    within_s: ClassVar = 30.0
    about: ClassVar = "what was said"

    site: str
    utterance_id: str
    text: str
    by: str


class Amended(msgspec.Struct, frozen=True, kw_only=True):
    """`at_ns`: since when the text is in force. No words: replies are kept, and are not erased."""

    at_ns: int


class AmendUtterance(StepRequest[Amended], frozen=True, kw_only=True, tag="utterances.amend"):
    """Puts a corrected text in the place of what was heard. Refused as busy until the card is complete."""

    module: ClassVar = "dashboard"
    to: ClassVar = "owner"
    about: ClassVar = "what was said"

    site: str
    utterance_id: str
    number: int
    by: str


class RestoreUtterance(StepRequest[Undone], frozen=True, kw_only=True, tag="utterances.restore"):
    """Takes a corrected text back: the text before it is in force again."""

    module: ClassVar = "dashboard"
    to: ClassVar = "owner"
    about: ClassVar = "what was said"

    site: str
    utterance_id: str
    number: int
    by: str


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """A corrected text, with what it takes to understand it.

    `context`: what was said before on the channel, the oldest first; `found`: the insights so far, whose times and
    receipt those of the corrected text keep.
    """

    text: str
    channel: str
    context: tuple[str, ...]
    found: InsightsFound


class ReadCorrection(Request[Correction], frozen=True, kw_only=True, tag="utterances.correction"):
    """`context`: how many utterances before it."""

    module: ClassVar = "dashboard"
    to: ClassVar = "owner"
    callers: ClassVar = ("intelligence",)
    within_s: ClassVar = 5.0
    about: ClassVar = "what was said"

    site: str
    utterance_id: str
    number: int
    context: int = 0


class Understood(msgspec.Struct, frozen=True, kw_only=True):
    """`insights`: how many were found."""

    revision: int
    insights: int


class UnderstandCorrection(StepRequest[Understood], frozen=True, kw_only=True, tag="utterances.understand"):
    """Finds the insights of a corrected text, and publishes them as the next revision."""

    module: ClassVar = "intelligence"
    to: ClassVar = "owner"
    within_s: ClassVar = 30.0
    about: ClassVar = "what a corrected text asks for"

    site: str
    utterance_id: str
    number: int


def first_revision(number: int) -> int:
    """Return the revision of the first insights of a correction."""
    return number * REVISIONS
