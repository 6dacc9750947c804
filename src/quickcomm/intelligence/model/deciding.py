"""From rules and probabilities to an insight: the last word on intent, department, urgency and evidence."""

from collections.abc import Mapping, Sequence

import msgspec

from quickcomm.contracts.insight import Evidence, Insight, Urgency
from quickcomm.intelligence.model.mention import Mention
from quickcomm.intelligence.model.mentions import distinct
from quickcomm.intelligence.model.reading import Reading
from quickcomm.intelligence.model.wording import summarise
from quickcomm.kernel.site_pack import SitePack

Chances = Mapping[str, float]

_ORDER: tuple[Urgency, ...] = ("low", "normal", "high", "critical")
_SURE_RULE = 0.5
DOUBTED = 0.5
"""How sure a report can be at most that is taken up again with "but"."""
_NAMED = 5.0
_NEAR_MISS_MODEL = 0.85
"""Where the words are those of a known near miss, the learnt model alone must be this sure of danger."""


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """What the learnt heads say about one clause; each maps a name to its probability."""

    intent: Chances
    department: Chances
    urgency: Chances
    danger: float
    usual: Mapping[str, Chances]
    """How much an intent speaks for each department, beside what was said: factors above 0."""


class Clause(msgspec.Struct, frozen=True, kw_only=True):
    """One thing asked: `start` is where it begins in the utterance; `rooms` may come from a neighbouring clause."""

    reading: Reading
    opinion: Opinion
    rooms: tuple[Mention, ...]


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    intent: str
    department: str
    urgency: Urgency
    confidence: float


def is_danger(pack: SitePack, reading: Reading, chance: float) -> bool:
    """High recall: a certain wording, a suspect one that the model does not doubt, or a model that is alarmed."""
    bar = pack.emergency
    if any(hit.sure for hit in reading.danger):
        return chance >= bar.veto
    if reading.danger:
        return chance >= bar.suspect_threshold
    return chance >= (_NEAR_MISS_MODEL if reading.near_miss else bar.threshold)


def decide(pack: SitePack, reading: Reading, opinion: Opinion) -> Decided:
    emergency = pack.emergency.intent
    if is_danger(pack, reading, opinion.danger):
        sure = any(hit.sure for hit in reading.danger)
        confidence = _SURE_RULE + (1 - _SURE_RULE) * opinion.danger if sure else opinion.danger
        return Decided(
            intent=emergency, department=_who_first(pack, reading, opinion), urgency="critical", confidence=confidence
        )
    settled = reading.settled - reading.ruled_out
    intent, confidence = _likeliest(pack, reading, opinion, settled)
    if confidence < pack.certain or not reading.plain:
        intent, confidence = (
            pack.unclear,
            max(opinion.intent.get(pack.unclear, 0.0), 1.0 - confidence if reading.plain else 1.0),
        )
    return Decided(
        intent=intent,
        department=pack.intents[intent].department if settled else _department(pack, intent, opinion),
        urgency=_urgency(pack, intent, reading, opinion),
        confidence=min(max(confidence, 0.0), 1.0),
    )


def _likeliest(pack: SitePack, reading: Reading, opinion: Opinion, settled: frozenset[str]) -> tuple[str, float]:
    """Return the intent and its probability, given what the pack's wordings settle or rule out."""
    possible = {name: p for name, p in opinion.intent.items() if name != pack.emergency.intent}
    if settled:
        intent = max(sorted(settled), key=lambda name: possible.get(name, 0.0))
        return intent, max(possible.get(intent, 0.0), _SURE_RULE)
    left = {name: p for name, p in possible.items() if name not in reading.ruled_out} or possible
    rest = (sum(left.values()) / sum(possible.values())) or 1.0
    intent = max(left, key=lambda name: left[name])
    return intent, left[intent] / rest


def doubted(pack: SitePack, decided: Decided) -> Decided:
    """Return the decision on a report that is taken up with "but" about the same place: less sure, if it was sure."""
    if pack.opens_task(decided.intent):
        return decided
    return msgspec.structs.replace(decided, confidence=min(decided.confidence, DOUBTED))


def _who_first(pack: SitePack, reading: Reading, opinion: Opinion) -> str:
    """Who must know of a danger: by words and intent, but a certain wording's own department weighs more."""
    named = {hit.department for hit in reading.danger if hit.sure}
    usual = opinion.usual[pack.emergency.intent]

    def weight(name: str) -> float:
        return opinion.department.get(name, 0.0) * usual[name] * (_NAMED if name in named else 1.0)

    return max(sorted(usual), key=weight)


def _department(pack: SitePack, intent: str, opinion: Opinion) -> str:
    """Who is likeliest to act, over all that may be meant: it is often plain where the intent is not."""
    meant = {name: p for name, p in opinion.intent.items() if name != pack.emergency.intent}
    if intent == pack.unclear:
        meant = {intent: 1.0}
    total = dict.fromkeys(sorted(opinion.usual[intent]), 0.0)
    for name, chance in meant.items():
        shares = {who: opinion.department.get(who, 0.0) * factor for who, factor in opinion.usual[name].items()}
        whole = sum(shares.values()) or 1.0
        for who, share in shares.items():
            total[who] += chance * share / whole
    return max(total, key=lambda who: total[who])


def _urgency(pack: SitePack, intent: str, reading: Reading, opinion: Opinion) -> Urgency:
    """Take what was said outright; else what the model finds likeliest."""
    said = {hit.label for hit in reading.urgent if hit.sure}
    if "high" in said and pack.opens_task(intent):
        return "high"
    possible: list[Urgency] = ["low", "normal", "high"]
    return max(possible, key=lambda level: opinion.urgency.get(level, 0.0))


def insight(pack: SitePack, clause: Clause, decided: Decided, *, index: int, model: str) -> Insight:
    """Make the insight of a clause; what it says of rooms, items and urgency is backed by words of the text."""
    reading = clause.reading
    rooms = distinct(list(clause.rooms))
    things = reading.things if decided.intent in pack.items.intents else ()
    items = tuple(thing.item for thing in things)
    return Insight(
        index=index,
        intent=decided.intent,
        department=decided.department,
        urgency=decided.urgency,
        rooms=rooms,
        items=items,
        summary=summarise(pack, decided.intent, reading, rooms, items),
        confidence=round(decided.confidence, 4),
        model=model,
        evidence=Evidence(
            rooms=_words([m.words for m in clause.rooms]),
            items=_words([thing.words for thing in things]),
            urgency=_words(_urgency_words(decided, reading)),
        ),
    )


def _urgency_words(decided: Decided, reading: Reading) -> list[str]:
    if decided.urgency == "critical":
        sure = [hit.words for hit in reading.danger if hit.sure]
        return sure or [hit.words for hit in reading.danger] or [reading.text.strip()[:80]]
    return [hit.words for hit in reading.urgent if hit.label == decided.urgency]


def _words(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word.strip()))


def combined(insights: Sequence[Insight]) -> tuple[Insight, ...]:
    """Neighbours that ask the same for other rooms become one; indexes count anew."""
    out: list[Insight] = []
    for one in insights:
        last = out[-1] if out else None
        if last is not None and _same_need(last, one):
            out[-1] = _joined(last, one)
        else:
            out.append(one)
    return tuple(msgspec.structs.replace(one, index=index) for index, one in enumerate(out))


def _same_need(a: Insight, b: Insight) -> bool:
    return (a.intent, a.department, a.items) == (b.intent, b.department, b.items) and bool(a.items)


def _joined(a: Insight, b: Insight) -> Insight:
    urgency = max(a.urgency, b.urgency, key=_ORDER.index)
    return msgspec.structs.replace(
        a,
        rooms=tuple(dict.fromkeys(a.rooms + b.rooms)),
        urgency=urgency,
        evidence=Evidence(
            rooms=_words(a.evidence.rooms + b.evidence.rooms),
            items=_words(a.evidence.items + b.evidence.items),
            urgency=_words(a.evidence.urgency + b.evidence.urgency),
        ),
    )
