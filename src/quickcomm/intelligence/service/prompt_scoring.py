"""How well answers agree with labels: per field, what is taken for what, how honest the confidence is. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import msgspec

from quickcomm.contracts.prompts import PromptNumbers
from quickcomm.kernel.site_pack import Phrase, PhraseInsight, SitePack

BINS: Final = 10
NOTHING: Final = "(nothing)"
"""Stands in a confusion where there is no insight on the one side."""


class _Item(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def quantity(self) -> int: ...


class Judged(Protocol):
    """What is held against the labels: a draft of the model, or the insight that was made of it."""

    @property
    def intent(self) -> str: ...
    @property
    def department(self) -> str: ...
    @property
    def urgency(self) -> str: ...
    @property
    def rooms(self) -> Sequence[str]: ...
    @property
    def items(self) -> Sequence[_Item]: ...
    @property
    def confidence(self) -> float: ...


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a version made of a case. `found` None: no usable answer."""

    found: tuple[Judged, ...] | None = None
    error: str = ""
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Confusion(msgspec.Struct, frozen=True, kw_only=True):
    """So many times `expected` was taken for `found`."""

    expected: str
    found: str
    count: int


def numbers(cases: Sequence[Phrase], outcomes: Sequence[Outcome], pack: SitePack) -> PromptNumbers:
    pairs = [pair for case, outcome in zip(cases, outcomes, strict=True) for pair in aligned(case, outcome)]
    intent, department, urgency, rooms = (_share(_agree(name, pair) for pair in pairs) for name in _FIELDS)
    items = _f1([(_things(want), _things(got)) for want, got in pairs])
    dangers = [
        (case, outcome)
        for case, outcome in zip(cases, outcomes, strict=True)
        if any(one.intent == pack.emergency.intent for one in case.insights)
    ]
    missed = [
        None for _, outcome in dangers if pack.emergency.intent not in {one.intent for one in outcome.found or ()}
    ]
    answered = sorted(outcome.seconds * 1_000 for outcome in outcomes if outcome.found is not None)
    return PromptNumbers(
        cases=len(cases),
        failed=sum(outcome.found is None for outcome in outcomes),
        score=round((intent + department + urgency + rooms + items) / 5, 4),
        intent=intent,
        department=department,
        urgency=urgency,
        rooms=rooms,
        items=items,
        dangers=len(dangers),
        dangers_missed=len(missed),
        calibration_error=calibration_error(
            [(got.confidence, want is not None and got.intent == want.intent) for want, got in pairs if got is not None]
        ),
        latency_p50_ms=_quantile(answered, 0.5),
        latency_p95_ms=_quantile(answered, 0.95),
        prompt_tokens=sum(outcome.prompt_tokens for outcome in outcomes),
        completion_tokens=sum(outcome.completion_tokens for outcome in outcomes),
        cost=round(sum(outcome.cost for outcome in outcomes), 6),
    )


def aligned(case: Phrase, outcome: Outcome) -> list[tuple[PhraseInsight | None, Judged | None]]:
    """Labels and answers in pairs, the most alike first; what is left on either side stands alone."""
    wanted, found = list(case.insights), list(outcome.found or ())
    ranked = sorted(
        ((_likeness(want, got), w, g) for w, want in enumerate(wanted) for g, got in enumerate(found)),
        key=lambda triple: (-triple[0], abs(triple[1] - triple[2]), triple[1]),
    )
    taken: dict[int, int] = {}
    for _, w, g in ranked:
        if w not in taken and g not in taken.values():
            taken[w] = g
    pairs: list[tuple[PhraseInsight | None, Judged | None]] = [
        (want, found[taken[w]] if w in taken else None) for w, want in enumerate(wanted)
    ]
    return pairs + [(None, got) for g, got in enumerate(found) if g not in taken.values()]


def confusion(cases: Sequence[Phrase], outcomes: Sequence[Outcome]) -> tuple[Confusion, ...]:
    """Only what was mistaken, the most frequent first."""
    pairs = [pair for case, outcome in zip(cases, outcomes, strict=True) for pair in aligned(case, outcome)]
    counts = Counter((want.intent if want else NOTHING, got.intent if got else NOTHING) for want, got in pairs)
    wrong = [(key, count) for key, count in counts.items() if key[0] != key[1]]
    return tuple(
        Confusion(expected=key[0], found=key[1], count=count)
        for key, count in sorted(wrong, key=lambda pair: (-pair[1], pair[0]))
    )


def wrong_fields(case: Phrase, outcome: Outcome) -> tuple[str, ...]:
    """In which fields an answer differs from the labels."""
    pairs = aligned(case, outcome)
    fields = [name for name in _FIELDS if not all(_agree(name, pair) for pair in pairs)]
    if any(_things(want) != _things(got) for want, got in pairs):
        fields.append("items")
    return tuple(fields)


def falls_below(candidate: PromptNumbers, live: PromptNumbers) -> tuple[str, ...]:
    """Why a candidate must not go live unasked; empty where it is as good."""
    reasons = []
    if candidate.score < live.score:
        reasons.append(f"its score is {candidate.score:.1%}, the live version's {live.score:.1%}")
    if candidate.dangers_missed > live.dangers_missed:
        reasons.append(
            f"it misses {candidate.dangers_missed} of {candidate.dangers} dangers, "
            f"the live version {live.dangers_missed}"
        )
    return tuple(reasons)


def calibration_error(said: Sequence[tuple[float, bool]]) -> float:
    """Expected calibration error over `(confidence, right)`, ten bins of equal width; 0 for none."""
    if not said:
        return 0.0
    error = 0.0
    for number in range(BINS):
        own = [(c, right) for c, right in said if min(int(c * BINS), BINS - 1) == number]
        if own:
            error += abs(sum(c for c, _ in own) - sum(right for _, right in own))
    return round(error / len(said), 4)


_FIELDS: Final = ("intent", "department", "urgency", "rooms")
_Pair = tuple[PhraseInsight | None, Judged | None]


def _agree(name: str, pair: _Pair) -> bool:
    want, got = pair
    if want is None or got is None:
        return False
    if name == "rooms":
        return _rooms(want.rooms) == _rooms(got.rooms)
    return bool(getattr(want, name) == getattr(got, name))


def _likeness(want: PhraseInsight, got: Judged) -> float:
    pair = (want, got)
    shared = sum((_things(want) & _things(got)).values())
    return 2.0 * _agree("intent", pair) + sum(_agree(name, pair) for name in _FIELDS[1:]) + min(shared, 3) / 3


def _rooms(rooms: Iterable[str]) -> set[str]:
    return {room.strip().lower() for room in rooms}


def _things(one: PhraseInsight | Judged | None) -> Counter[tuple[str, int]]:
    """Names without regard to case and a plural's s."""
    items: Sequence[_Item] = one.items if one is not None else ()
    return Counter((item.name.strip().lower().removesuffix("s"), item.quantity) for item in items)


def _f1(pairs: Sequence[tuple[Counter[tuple[str, int]], Counter[tuple[str, int]]]]) -> float:
    """Over all things of all cases together; 1 where there is nothing to find and nothing was found."""
    hits = sum(sum((want & got).values()) for want, got in pairs)
    total = sum(sum(want.values()) + sum(got.values()) for want, got in pairs)
    return round(2 * hits / total, 4) if total else 1.0


def _share(hits: Iterable[bool]) -> float:
    known = list(hits)
    return round(sum(known) / len(known), 4) if known else 0.0


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank; 0 for none."""
    if not ordered:
        return 0.0
    return round(ordered[max(math.ceil(share * len(ordered)), 1) - 1], 1)
