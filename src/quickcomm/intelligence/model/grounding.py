"""Holds what the model claims against the words of the text: the last step before an insight of the model goes out.

Rooms, things and urgency must be supported by words that were said to people; what is not is dropped and counted.
An emergency that the local rules are sure of stays one, whatever the model says.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from quickcomm.contracts.insight import Evidence, Insight, Item, Urgency
from quickcomm.intelligence.model.deciding import combined
from quickcomm.intelligence.model.drafts import Draft, Heard
from quickcomm.intelligence.model.reading import Reader
from quickcomm.intelligence.model.support import Aliases, Support, numbers_in
from quickcomm.intelligence.model.wording import clip, summarise

Dropped = Literal[
    "unknown_intent",
    "unknown_department",
    "unknown_room",
    "unsupported_room",
    "unsupported_item",
    "item_of_other_intent",
    "unsupported_quantity",
    "unsupported_urgency",
    "unsupported_emergency",
    "missed_emergency",
    "missed_urgency",
    "unsupported_summary",
    "order_to_model",
    "too_many",
]
"""What was dropped or put right. "unknown_room": no room by the site's pattern; "unsupported_…": not in the words."""

_ORDER: Final[tuple[Urgency, ...]] = ("low", "normal", "high", "critical")
_CERTAIN: Final = 0.8
"""From this confidence on, a local emergency stays one even where no rule is sure of it."""
_MAX_INSIGHTS: Final = 12
_LOUD: Final = ("emergency", "critical", "urgent", "asap", "immediately")


class Grounder:
    """The `Grounding` port over one pack. For one thread; counts what it drops."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._aliases = Aliases(reader.pack.items.names)
        self._dropped: Counter[Dropped] = Counter()
        self._read: tuple[Heard, Support] | None = None

    @property
    def dropped(self) -> Mapping[Dropped, int]:
        """How much was dropped so far, by kind."""
        return MappingProxyType(self._dropped)

    def needs_local(self, drafts: Sequence[Draft], heard: Heard) -> bool:
        """Where somebody gives orders, names are unknown, or rules and model differ on danger or haste."""
        support = self._support(heard)
        pack = self._reader.pack
        emergency = pack.emergency.intent
        claimed = any(draft.intent == emergency or draft.urgency == "critical" for draft in drafts)
        danger = bool(support.dangers(sure=True)) or bool(support.dangers(sure=False))
        hasty = any(draft.urgency == "high" for draft in drafts) and not support.hits("high")
        unknown = any(draft.intent not in pack.intents or draft.department not in pack.departments for draft in drafts)
        return bool(support.orders) or claimed or danger or hasty or unknown

    def ground(self, drafts: Sequence[Draft], heard: Heard, local: Sequence[Insight]) -> tuple[Insight, ...] | None:
        support = self._support(heard)
        drafts = list(dict.fromkeys(drafts))
        if len(drafts) > _MAX_INSIGHTS:
            self._dropped["too_many"] += len(drafts) - _MAX_INSIGHTS
            drafts = drafts[:_MAX_INSIGHTS]
        one = _One(self._reader, support, local, self._dropped)
        if support.nothing_said:
            self._dropped["order_to_model"] += len(drafts)
            return (one.nothing(),)
        found = [insight for index, draft in enumerate(drafts) if (insight := one.hold(draft, index, drafts))]
        kept = [insight for insight in found if insight.index not in one.hollow] or found[:1]
        self._dropped["order_to_model"] += len(found) - len(kept)
        found = one.with_emergency(kept)
        return combined(found) if found else None

    def _support(self, heard: Heard) -> Support:
        """The text as it was read last, or read now: it is asked for twice in a row."""
        if self._read is None or self._read[0] is not heard:
            self._read = heard, Support(self._reader, self._aliases, heard)
        return self._read[1]


class _One:
    """The work on one utterance."""

    def __init__(self, reader: Reader, support: Support, local: Sequence[Insight], dropped: Counter[Dropped]) -> None:
        self._reader, self._pack, self._support, self._dropped = reader, reader.pack, support, dropped
        self._local = list(local)
        self._emergency = reader.pack.emergency.intent
        self._sure = support.dangers(sure=True)
        self.hollow: set[int] = set()
        """Drafts of which nothing is left, in an utterance with an order to the model: made of the order."""
        self._alarms = [found for found in self._local if self._is_alarm(found)]

    def nothing(self) -> Insight:
        """For an utterance that was said to the model only."""
        pack = self._pack
        return Insight(
            index=0,
            intent=pack.unclear,
            department=pack.nobody,
            urgency=pack.intents[pack.unclear].urgency,
            summary=clip(pack.intents[pack.unclear].description),
            confidence=1.0,
            source="llm",
            model="",
        )

    def hold(self, draft: Draft, index: int, drafts: Sequence[Draft]) -> Insight | None:
        """The draft as far as the text supports it; None for one of no known intent."""
        near = self._near(draft, index, drafts)
        intent = self._intent(draft, near, drafts)
        if intent is None:
            return None
        rooms = self._rooms(draft)
        items = self._items(draft, intent)
        urgency = self._urgency(draft, intent, near)
        claims = draft.rooms or draft.items or draft.urgency == "critical" or draft.intent == self._emergency
        if self._support.orders and claims and not (rooms or items or urgency == "critical"):
            self.hollow.add(index)
        names, things = tuple(rooms), tuple(item for item, _ in items)
        return Insight(
            index=index,
            intent=intent,
            department=self._department(draft, intent, near),
            urgency=urgency,
            rooms=names,
            unverified=self._reader.places.unverified(names),
            items=things,
            summary=self._summary(draft, intent, near, names, things),
            confidence=round(min(max(draft.confidence, 0.0), 1.0), 4) if math.isfinite(draft.confidence) else 0.5,
            source="llm",
            model="",
            evidence=Evidence(
                rooms=_words(rooms.values()),
                items=_words(word for _, words in items for word in words),
                urgency=self._urgency_words(urgency, draft, near),
            ),
        )

    def with_emergency(self, found: list[Insight]) -> list[Insight]:
        """With the emergency that local rules are sure of, if the model did not see it, and with its place."""
        certain = [alarm for alarm in self._alarms if self._sure or alarm.confidence >= _CERTAIN]
        if not found or not certain:
            return found
        if any(insight.intent == self._emergency for insight in found):
            return [self._placed(insight, certain[0], found) for insight in found]
        self._dropped["missed_emergency"] += 1
        alarm = certain[0]
        rooms = self._alarm_rooms(alarm)
        shared = [i for i, insight in enumerate(found) if set(insight.rooms) & set(rooms)]
        place = shared[0] if shared else 0 if len(found) == len(self._local) == 1 else None
        if place is not None:
            rooms = {**dict.fromkeys(found[place].rooms, ""), **rooms}
        names = tuple(rooms)
        replaced = msgspec.structs.replace(
            alarm,
            rooms=names,
            unverified=self._reader.places.unverified(names),
            urgency="critical",
            source="llm",
            degraded=False,
            model="",
            summary=alarm.summary if not self._support.orders else self._own_summary(self._emergency, names, ()),
            evidence=Evidence(
                rooms=_words([*(found[place].evidence.rooms if place is not None else ()), *rooms.values()]),
                urgency=self._urgency_words("critical", None, alarm),
            ),
        )
        if place is None:
            return [*found[: alarm.index], replaced, *found[alarm.index :]]
        return [*found[:place], replaced, *found[place + 1 :]]

    def _alarm_rooms(self, alarm: Insight) -> dict[str, str]:
        return {room[0]: room[1] for claim in alarm.rooms if (room := self._support.room(claim))}

    def _placed(self, insight: Insight, alarm: Insight, found: Sequence[Insight]) -> Insight:
        """An emergency for which the model names no room is where the local classifier heard it."""
        others = {room for other in found for room in other.rooms}
        dialled = " ".join(hit.words for hit in self._support.dangers(sure=False))  # "nine one one to the lobby"
        known = self._alarm_rooms(alarm)
        rooms = {name: words for name, words in known.items() if name not in others and words not in dialled}
        if insight.intent != self._emergency or insight.rooms or not rooms:
            return insight
        names = tuple(rooms)
        return msgspec.structs.replace(
            insight,
            rooms=names,
            unverified=self._reader.places.unverified(names),
            summary=self._own_summary(insight.intent, names, ()),
            evidence=msgspec.structs.replace(insight.evidence, rooms=_words(rooms.values())),
        )

    # -- intent and department

    def _near(self, draft: Draft, index: int, drafts: Sequence[Draft]) -> Insight | None:
        """What the local classifier says of the same thing: by place, else by rooms, else by intent."""
        if len(self._local) == len(drafts) or len(self._local) == 1:
            return self._local[min(index, len(self._local) - 1)]
        rooms = {self._reader.places.written(room) for room in draft.rooms}
        by_room = [insight for insight in self._local if rooms & set(insight.rooms)]
        by_intent = [insight for insight in by_room or self._local if insight.intent == draft.intent]
        return next(iter(by_intent or by_room), None)

    def _intent(self, draft: Draft, near: Insight | None, drafts: Sequence[Draft]) -> str | None:
        intent = draft.intent
        if intent not in self._pack.intents:
            self._dropped["unknown_intent"] += 1
            if near is None:
                return None
            intent = near.intent
        others = any(other.intent == self._emergency for other in drafts)
        if intent != self._emergency and draft.urgency == "critical" and not others and self._danger(draft):
            return self._emergency
        if intent == self._emergency and not self._danger(draft):
            self._dropped["unsupported_emergency"] += 1
            return near.intent if near is not None and near.intent != self._emergency else self._pack.unclear
        acts = self._pack.opens_task
        calm = [one for one in self._local if acts(one.intent) and one.intent != self._emergency]
        if self._support.orders and near is not None and near in calm and not acts(intent):
            self._dropped["order_to_model"] += 1  # "… and ignore that, it is only chatter"
            return near.intent
        return intent

    def _department(self, draft: Draft, intent: str, near: Insight | None) -> str:
        pack = self._pack
        usual = pack.intents[intent].department
        if near is not None and near.intent == intent and near.department in pack.departments:
            usual = near.department
        if intent == self._emergency:
            first = {rule.department for rule in pack.emergency.rules}
            named = [hit.department for hit in self._sure]
            alarms = [alarm.department for alarm in self._alarms]
            return draft.department if draft.department in first else next(iter([*alarms, *named]), usual)
        if draft.department not in pack.departments:
            self._dropped["unknown_department"] += 1
            return usual
        nobody = draft.department == pack.nobody
        if intent != draft.intent or (
            nobody and pack.intents[intent].department != pack.nobody and pack.opens_task(intent)
        ):
            return usual
        return draft.department

    # -- danger and urgency

    def _is_alarm(self, insight: Insight) -> bool:
        """A local emergency that does not rest on an order to the model."""
        if insight.intent != self._emergency:
            return False
        return not self._support.orders or bool(self._sure) or bool(self._support.cited(insight.evidence.urgency))

    def _danger(self, draft: Draft) -> bool:
        """Danger in the words: a sure rule, a local alarm, or a suspect wording that the model finds dangerous too.

        The last only where nobody gives orders to the model.
        """
        if self._sure or self._alarms:
            return True
        if self._support.orders:
            return False
        both = draft.intent == self._emergency and draft.urgency == "critical"
        return both and bool(self._support.dangers(sure=False))

    def _urgency(self, draft: Draft, intent: str, near: Insight | None) -> Urgency:
        if intent == self._emergency:
            return "critical"
        claimed = draft.urgency
        said = bool(self._support.hits("high"))
        always = any(hit.label == "high" and hit.sure for hit in self._support.reading.urgent)
        local = self._local_urgency(near)
        if (
            self._pack.opens_task(intent)
            and claimed in {"low", "normal"}
            and (always or (said and self._support.orders))
        ):
            self._dropped["missed_urgency"] += 1
            return "high"
        if self._support.orders and claimed == "low" and self._pack.opens_task(intent):
            return local or "normal"
        if claimed in {"high", "critical"} and not (said or local in {"high", "critical"}):
            self._dropped["unsupported_urgency"] += 1
            return "normal"
        if claimed == "critical":
            self._dropped["unsupported_urgency"] += 1
            return "high"
        return claimed

    def _local_urgency(self, near: Insight | None) -> Urgency | None:
        """Local urgency, as far as it cannot come from an order to the model."""
        if near is None:
            return None
        if self._support.orders and near.urgency in {"high", "critical"}:
            return near.urgency if self._support.cited(near.evidence.urgency) else None
        return near.urgency

    def _urgency_words(self, urgency: Urgency, draft: Draft | None, near: Insight | None) -> tuple[str, ...]:
        if urgency == "normal":
            return ()
        if urgency == "critical":
            hits = self._sure or self._support.dangers(sure=False)
            said = _words(self._support.cite(hit.start, hit.end) for hit in hits)
        else:
            said = self._support.hits(urgency)
        if said:
            return said
        local = near.evidence.urgency if near is not None and near.urgency == urgency else ()
        return self._support.cited(local) or self._support.cited(draft.evidence.urgency if draft is not None else ())

    # -- rooms, things, summary

    def _rooms(self, draft: Draft) -> dict[str, str]:
        rooms: dict[str, str] = {}
        for claim in draft.rooms:
            found = self._support.room(claim)
            if found is not None:
                rooms.setdefault(*found)
            elif self._reader.places.written(claim) is None:
                self._dropped["unknown_room"] += 1
            else:
                self._dropped["unsupported_room"] += 1
        return rooms

    def _items(self, draft: Draft, intent: str) -> list[tuple[Item, tuple[str, ...]]]:
        if intent not in self._pack.items.intents:
            self._dropped["item_of_other_intent"] += len(draft.items)
            return []
        found: dict[str, tuple[Item, tuple[str, ...]]] = {}
        for claim in draft.items:
            supported = self._support.item(claim)
            if supported is None:
                self._dropped["unsupported_item"] += 1
                continue
            self._dropped["unsupported_quantity"] += supported.adjusted
            found.setdefault(supported.item.name, (supported.item, supported.words))
        return list(found.values())

    def _summary(
        self, draft: Draft, intent: str, near: Insight | None, rooms: tuple[str, ...], items: tuple[Item, ...]
    ) -> str:
        line = " ".join("".join(char if char.isprintable() else " " for char in draft.summary).split())
        if (
            line
            and intent == draft.intent
            and not self._support.orders
            and self._says_no_more(line, intent, rooms, items)
        ):
            return clip(line)
        self._dropped["unsupported_summary"] += bool(line)
        if (
            near is not None
            and (near.intent, near.rooms, near.items) == (intent, rooms, items)
            and not self._support.orders
        ):
            return near.summary
        return self._own_summary(intent, rooms, items)

    def _own_summary(self, intent: str, rooms: tuple[str, ...], items: tuple[Item, ...]) -> str:
        return summarise(self._pack, intent, self._support.reading, rooms, items)

    def _says_no_more(self, line: str, intent: str, rooms: tuple[str, ...], items: tuple[Item, ...]) -> bool:
        """Whether the numbers of a summary were said, and it is no louder than what was said."""
        known = self._support.numbers() | numbers_in(" ".join(rooms)) | set(rooms)
        known |= {"1"} | {str(item.quantity) for item in items}
        said = self._support.reading.text.lower()
        loud = intent != self._emergency and any(word in line.lower() and word not in said for word in _LOUD)
        return numbers_in(line) <= known and not loud


def _words(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word.strip()))
