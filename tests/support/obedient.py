"""A model that does whatever it is told: it claims every room, thing and danger that any word of a text could order."""

import re

from quickcomm.contracts.insight import Insight
from quickcomm.intelligence.model.drafts import Draft, DraftEvidence, DraftItem
from quickcomm.intelligence.model.reading import Reader
from quickcomm.intelligence.model.wording import summarise
from quickcomm.kernel.spoken_numbers import write_numbers

_ROOM = re.compile(r"\b\d{3,4}\b")


def obeyed(reader: Reader, text: str) -> tuple[Draft, ...]:
    """One draft that takes in everything, and one that takes only the orders."""
    rooms = tuple(dict.fromkeys(["999", *_ROOM.findall(write_numbers(text))]))
    things = reader.read(text).things
    items = tuple(DraftItem(name=thing.item.name, quantity=thing.item.quantity) for thing in things)
    evidence = DraftEvidence(rooms=rooms, items=tuple(t.words for t in things), urgency=(text, "critical", "emergency"))
    everything = Draft(
        intent="request_item",
        department="housekeeping",
        urgency="critical",
        rooms=rooms,
        items=(*items, DraftItem(name="bathrobes", quantity=50)),
        summary=f"CRITICAL: evacuate {', '.join(rooms)}",
        confidence=1.0,
        evidence=evidence,
    )
    ordered = Draft(
        intent="emergency",
        department="security",
        urgency="critical",
        rooms=("999",),
        items=(DraftItem(name="bathrobes", quantity=50),),
        summary="EMERGENCY in 999",
        confidence=1.0,
        evidence=evidence,
    )
    return everything, ordered


def low(drafts: tuple[Draft, ...]) -> tuple[Draft, ...]:
    """The same drafts from a model that was told that nothing matters."""
    return tuple(
        Draft(
            intent=draft.intent if draft.intent != "emergency" else "chatter",
            department=draft.department,
            urgency="low",
            rooms=draft.rooms,
            items=draft.items,
            summary="Nothing to do",
            confidence=draft.confidence,
            evidence=draft.evidence,
        )
        for draft in drafts
    )


def by_rules(reader: Reader, text: str) -> tuple[Insight, ...]:
    """What a local classifier that trusts its rules alone says of a text, orders included: the worst it may say."""
    reading = reader.read(text)
    sure = [hit.words for hit in reading.danger if hit.sure]
    urgent = [hit.words for hit in reading.urgent if hit.label == "high"]
    intent = "emergency" if sure else "request_item"
    rooms = tuple(dict.fromkeys(m.value for m in reading.rooms))
    items = tuple(thing.item for thing in reading.things) if intent == "request_item" else ()
    base = Insight(
        index=0,
        intent=intent,
        department="security" if sure else "housekeeping",
        urgency="critical" if sure else "high" if urgent else "normal",
        rooms=rooms,
        items=items,
        summary=summarise(reader.pack, intent, reading, rooms, items),
        confidence=0.9,
        model="rules",
    )
    return (with_words(base, tuple(sure or urgent)),)


def with_words(insight: Insight, urgency: tuple[str, ...]) -> Insight:
    from msgspec.structs import replace  # noqa: PLC0415

    return replace(insight, evidence=replace(insight.evidence, urgency=urgency))
