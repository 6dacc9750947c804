"""What a language model answered, checked again: the schema is a request to the endpoint, this is the proof."""

from typing import Annotated, Final

import msgspec

from quickcomm.contracts.insight import Urgency
from quickcomm.intelligence.model.prompt_file import AnswerParameters
from quickcomm.intelligence.model.wording import clip
from quickcomm.intelligence.ports import Draft, DraftEvidence, DraftItem, ModelAnswerError
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.site_pack import SitePack

MAX_ANSWER: Final = 32_768
MAX_INSIGHTS: Final = 16

_Short = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
_Quote = Annotated[str, msgspec.Meta(max_length=2_000)]
_Quotes = Annotated[tuple[_Quote, ...], msgspec.Meta(max_length=40)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing that was not asked for."""


class _Item(_Strict, frozen=True, kw_only=True):
    name: _Short
    quantity: Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class _Evidence(_Strict, frozen=True, kw_only=True):
    rooms: _Quotes
    items: _Quotes
    urgency: _Quotes


class _Insight(_Strict, frozen=True, kw_only=True):
    intent: str
    department: str
    urgency: Urgency
    rooms: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=40)], ...], msgspec.Meta(max_length=40)]
    items: Annotated[tuple[_Item, ...], msgspec.Meta(max_length=40)]
    summary: Annotated[str, msgspec.Meta(max_length=2_000)] | msgspec.UnsetType = msgspec.UNSET
    confidence: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | msgspec.UnsetType = msgspec.UNSET
    evidence: _Evidence | msgspec.UnsetType = msgspec.UNSET


class _Answer(_Strict, frozen=True, kw_only=True):
    insights: Annotated[tuple[_Insight, ...], msgspec.Meta(min_length=1, max_length=MAX_INSIGHTS)]


_decoder = msgspec.json.Decoder(_Answer)


def parse_answer(text: str, pack: SitePack, asked: AnswerParameters) -> tuple[Draft, ...]:
    """At least one draft. Raises `ModelAnswerError` that tells the field, and never what was said."""
    if len(text) > MAX_ANSWER:
        raise ModelAnswerError(f"The model's answer has {len(text):,} characters; at most {MAX_ANSWER:,} are read.")
    try:
        answer = _decoder.decode(text)
    except MALFORMED as error:
        raise ModelAnswerError(f"The model's answer is not as the schema asks: {_reason(error)}") from None
    return tuple(_draft(one, pack, asked, f"insights[{place}]") for place, one in enumerate(answer.insights))


def _draft(one: _Insight, pack: SitePack, asked: AnswerParameters, where: str) -> Draft:
    if one.intent not in pack.intents:
        raise ModelAnswerError(f"The model's answer has an intent that the site pack has not, at {where}.")
    if one.department not in pack.departments:
        raise ModelAnswerError(f"The model's answer has a department that the site pack has not, at {where}.")
    for name in ("summary", "confidence", "evidence"):
        if getattr(asked, name) != (getattr(one, name) is not msgspec.UNSET):
            raise ModelAnswerError(f"The model's answer should have `{name}` exactly if it is asked for, at {where}.")
    evidence = DraftEvidence()
    if isinstance(one.evidence, _Evidence):
        evidence = DraftEvidence(rooms=one.evidence.rooms, items=one.evidence.items, urgency=one.evidence.urgency)
    draft = Draft(
        intent=one.intent,
        department=one.department,
        urgency=one.urgency,
        rooms=one.rooms,
        items=tuple(DraftItem(name=item.name, quantity=item.quantity) for item in one.items),
        summary=clip(" ".join(one.summary.split())) if isinstance(one.summary, str) else "",
        evidence=evidence,
    )
    return (
        draft
        if isinstance(one.confidence, msgspec.UnsetType)
        else msgspec.structs.replace(draft, confidence=one.confidence)
    )


def _reason(error: Exception) -> str:
    """Tell the place and what was expected; what msgspec quotes may be what somebody said, and stays out."""
    if not isinstance(error, msgspec.ValidationError):
        return "it is no JSON, or is cut off."
    said, _, path = str(error).partition(" - at ")
    for quoting, instead in (
        ("Invalid enum value", "Invalid enum value"),
        ("Object contains unknown", "Unknown field"),
    ):
        if said.startswith(quoting):
            said = instead
    return f"{said.split(', got')[0]} at {path or '`$`'}."
