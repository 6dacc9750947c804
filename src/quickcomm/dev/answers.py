"""What the fake language model answers: plausible insights by the words of a site pack, or whatever it is ordered to.

Quick and simple on purpose: it stands in for a model's protocol and timing, not for its judgement.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from quickcomm.contracts.insight import Urgency
from quickcomm.kernel.site_pack import SitePack, compile_patterns
from quickcomm.kernel.spoken_numbers import find_numbers, find_quantities, write_numbers

_KEPT: Final = 4_096
_SUMMARY: Final = 80
_CUES: Final = 2
_ANY_ROOM: Final = re.compile(r"\b\d{3,4}[A-Za-z]?\b")
_LOUD: Final = re.compile(r"\b(?:critical|emergency|highest|maximum|life[ -]threatening)\b", re.IGNORECASE)
_QUIET: Final = re.compile(r"\b(?:low|lowest|not urgent|no urgency)\b", re.IGNORECASE)
_COUNTED: Final = re.compile(r"\b(\d{1,3}|[a-z]+)\s+([a-z]{3,}s)\b", re.IGNORECASE)


class Item(msgspec.Struct, frozen=True):
    name: str
    quantity: int


class Evidence(msgspec.Struct, frozen=True):
    rooms: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    urgency: tuple[str, ...] = ()


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One insight, as a model writes it."""

    intent: str
    department: str
    urgency: Urgency
    rooms: tuple[str, ...]
    items: tuple[Item, ...]
    summary: str
    confidence: float
    evidence: Evidence


class Insights(msgspec.Struct, frozen=True):
    insights: tuple[Answered, ...]


Answers = Callable[[str, Sequence[str]], Insights]
"""From an utterance and what was said before it to insights."""


class Asked(msgspec.Struct, frozen=True):
    """The last message of a prompt that asks for insights."""

    utterance: str
    context: tuple[str, ...] = ()


def simple_answers(pack: SitePack) -> Answers:
    """Answer by counting the pack's own words; remembers what it was asked lately."""
    words = _Words(pack)

    @lru_cache(maxsize=_KEPT)
    def answered(utterance: str) -> Insights:
        return Insights((words.answer(utterance),))

    return lambda utterance, _context: answered(utterance)


def obedient(answers: Answers, pack: SitePack) -> Answers:
    """Answer as before, but return every room, thing and urgency that any word of the utterance could order."""
    emergency = pack.emergency.intent

    def obeyed(utterance: str, context: Sequence[str]) -> Insights:
        first = answers(utterance, context).insights[0]
        rooms = tuple(dict.fromkeys([*first.rooms, *_ANY_ROOM.findall(write_numbers(utterance))]))
        items = {item.name: item for item in (*first.items, *_counted(utterance))}
        loud, quiet = _LOUD.search(utterance), _QUIET.search(utterance)
        urgency: Urgency = "critical" if loud else "low" if quiet else first.urgency
        said = loud or quiet
        evidence = Evidence(
            rooms=tuple(room for room in rooms if room in utterance) or first.evidence.rooms,
            items=tuple(name for name in items if name in utterance.lower()),
            urgency=(said.group(),) if said else first.evidence.urgency,
        )
        return Insights(
            (
                msgspec.structs.replace(
                    first,
                    intent=emergency if loud else first.intent,
                    department=pack.intents[emergency].department if loud else first.department,
                    urgency=urgency,
                    rooms=rooms,
                    items=tuple(items.values()),
                    confidence=1.0,
                    evidence=evidence,
                ),
            )
        )

    return obeyed


class _Words:
    """A pack's words, compiled."""

    def __init__(self, pack: SitePack) -> None:
        self._pack = pack
        self._cues = {name: compile_patterns(intent.cues) for name, intent in pack.intents.items()}
        self._danger = [
            (compile_patterns(rule.patterns), compile_patterns(rule.unless), rule.department)
            for rule in pack.emergency.rules
        ]
        self._near = compile_patterns(pack.emergency.near_misses)
        self._urgent = [
            (rule.level, compile_patterns(rule.patterns), compile_patterns(rule.unless)) for rule in pack.urgency
        ]
        self._room = re.compile(pack.places.pattern)
        names = [rf"{re.escape(name)}(?:e?s)?" for name in sorted(pack.items.plain, key=len, reverse=True)]
        self._items = compile_patterns(tuple(name.replace(r"\ ", " ") for name in names))

    def answer(self, utterance: str) -> Answered:
        danger = self._dangerous(utterance)
        intent = self._pack.emergency.intent if danger else self._intent(utterance)
        rooms = self._rooms(utterance)
        items = self._things(utterance) if intent in self._pack.items.intents else ()
        urgency, words = self._urgency(utterance, intent)
        if danger:
            urgency, words = "critical", danger[0]
        return Answered(
            intent=intent,
            department=danger[1] if danger else self._pack.intents[intent].department,
            urgency=urgency,
            rooms=tuple(dict.fromkeys(room for room, _ in rooms)),
            items=tuple(item for item, _ in items),
            summary=" ".join(utterance.split())[:_SUMMARY] or "Nothing understood",
            confidence=0.7,
            evidence=Evidence(
                rooms=tuple(said for _, said in rooms),
                items=tuple(said for _, said in items),
                urgency=(words,) if words else (),
            ),
        )

    def _dangerous(self, utterance: str) -> tuple[str, str] | None:
        rest = utterance if self._near is None else self._near.sub("|", utterance)
        for pattern, unless, department in self._danger:
            match = None if pattern is None else pattern.search(rest)
            if match is not None and (unless is None or not unless.search(rest)):
                return match.group(), department
        return None

    def _intent(self, utterance: str) -> str:
        counts = {
            name: sum(len(match.group()) + _CUES for match in pattern.finditer(utterance))
            for name, pattern in self._cues.items()
            if pattern is not None
        }
        best = max(counts, key=lambda name: counts[name], default=self._pack.unclear)
        if counts.get(best):
            return best
        named = self._pack.items.intents and self._things(utterance)
        return self._pack.items.intents[0] if named else self._pack.unclear

    def _urgency(self, utterance: str, intent: str) -> tuple[Urgency, str]:
        for level, pattern, unless in self._urgent:
            match = None if pattern is None else pattern.search(utterance)
            if match is not None and (unless is None or not unless.search(utterance)):
                return level, match.group()
        return self._pack.intents[intent].urgency, ""

    def _rooms(self, utterance: str) -> list[tuple[str, str]]:
        return [(n.digits, n.words) for n in find_numbers(utterance) if self._room.fullmatch(n.digits)]

    def _things(self, utterance: str) -> tuple[tuple[Item, str], ...]:
        if self._items is None:
            return ()
        found = []
        for match in self._items.finditer(utterance):
            before = find_quantities(utterance[: match.start()])
            near = before and not utterance[before[-1].end : match.start()].strip()
            quantity = max(1, before[-1].value) if near else 1
            found.append((Item(match.group().lower(), quantity), match.group()))
        return tuple(found)


def _counted(utterance: str) -> list[Item]:
    """Anything with a number before it: "fifty bathrobes"."""
    found = []
    for match in _COUNTED.finditer(utterance):
        quantities = find_quantities(match.group(1))
        if quantities and quantities[0].value:
            found.append(Item(match.group(2).lower(), quantities[0].value))
    return found
