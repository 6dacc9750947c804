"""What is asked of the model, and what it claims: made by prompts, held against the text by `grounding`."""

import msgspec

from quickcomm.contracts.insight import Urgency


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance to classify, with what was said before it on the same channel (oldest first)."""

    text: str
    channel: str = ""
    context: tuple[str, ...] = ()
    site: str = "main"
    conversation_id: str = ""
    utterance_id: str = ""
    doubtful: bool = False
    """The words are a guess, or missing: another language, or not clear."""
    certain: tuple[str, ...] = ()
    """Of a doubtful one, the words that were heard clearly."""


class DraftItem(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    quantity: int = 1


class DraftEvidence(msgspec.Struct, frozen=True, kw_only=True):
    rooms: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    urgency: tuple[str, ...] = ()


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """One insight as the model claims it: right in form, not yet held against the text or the site pack."""

    intent: str
    department: str
    urgency: Urgency
    rooms: tuple[str, ...] = ()
    items: tuple[DraftItem, ...] = ()
    summary: str = ""
    confidence: float = 0.5
    evidence: DraftEvidence = DraftEvidence()
