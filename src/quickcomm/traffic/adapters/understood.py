"""What both sides understood of the same utterances: added up over processes, and put together for operators."""

from collections.abc import Iterable, Sequence
from statistics import quantiles
from typing import Final

from quickcomm.contracts.evidence import (
    MAX_DIFFERENCES,
    RECENT,
    Difference,
    FieldAgreement,
    Measured,
    Shadowed,
    Spending,
)
from quickcomm.contracts.migration import SideUnderstanding, Understandings
from quickcomm.contracts.routes import ModuleRoute, Side

SHOWN: Final = 20
"""Differences, of those that are kept."""
PER_CENT: Final = 100
Times = tuple[float, ...]


def spent_together(found: Iterable[Spending]) -> Spending:
    """Add up."""
    each = list(found)
    return Spending(
        answers=sum(one.answers for one in each),
        calls=sum(one.calls for one in each),
        prompt_tokens=sum(one.prompt_tokens for one in each),
        completion_tokens=sum(one.completion_tokens for one in each),
        cost=sum(one.cost for one in each),
    )


def shadowed_together(found: Sequence[Shadowed]) -> Shadowed | None:
    """Add up; None where there is none."""
    if not found:
        return None
    return Shadowed(
        compared=sum(each.compared for each in found),
        alike=sum(each.alike for each in found),
        fields=_fields(found),
        own_ms=tuple(ms for each in found for ms in each.own_ms),
        served_ms=tuple(ms for each in found for ms in each.served_ms),
        spent=spent_together(each.spent for each in found),
        unanswered=sum(each.unanswered for each in found),
        unserved=sum(each.unserved for each in found),
        degraded=sum(each.degraded for each in found),
        shed=sum(each.shed for each in found),
        differences=_newest(found, MAX_DIFFERENCES),
        recent=tuple(sorted(one for each in found for one in each.recent)[-RECENT:]),
    )


def recently_alike(sides: Iterable[Measured | None]) -> tuple[int, int] | None:
    """Return how many of the newest comparisons were alike, of how many; None where there are too few."""
    both = shadowed_together([each.shadow for each in sides if each is not None and each.shadow])
    if both is None or len(both.recent) < RECENT:
        return None
    return sum(alike for _, alike in both.recent), len(both.recent)


def times_ms(side: Measured | None, other: Measured | None) -> Times:
    """Return how long a side took for what both understood: as the shadow, and as the one that served."""
    own = side.shadow.own_ms if side is not None and side.shadow is not None else ()
    served = other.shadow.served_ms if other is not None and other.shadow is not None else ()
    return own + served


def understandings(
    service: Measured | None,
    monolith: Measured | None,
    route: ModuleRoute = ModuleRoute(),  # noqa: B008 - frozen
) -> Understandings | None:
    """Return what both sides understood of the same utterances; None where neither is a shadow of the other."""
    both = shadowed_together([each.shadow for each in (service, monolith) if each is not None and each.shadow])
    if both is None:
        return None
    return Understandings(
        compared=both.compared,
        alike=both.alike,
        fields=both.fields,
        sides=(_side(route.candidate, service, monolith), _side(route.base, monolith, service)),
        unanswered=both.unanswered,
        unserved=both.unserved,
        degraded=both.degraded,
        shed=both.shed,
        differences=both.differences[:SHOWN],
    )


def _side(name: Side, side: Measured | None, other: Measured | None) -> SideUnderstanding:
    times = times_ms(side, other)
    return SideUnderstanding(
        side=name,
        p50_ms=_percentile(times, 50),
        p95_ms=_percentile(times, 95),
        samples=len(times),
        served=Spending() if side is None else side.spent,
        shadow=Spending() if side is None or side.shadow is None else side.shadow.spent,
    )


def _percentile(times: Times, at: int) -> float | None:
    if len(times) < 2:  # noqa: PLR2004 - of one, there is no percentile
        return times[0] if times else None
    return round(quantiles(times, n=PER_CENT, method="inclusive")[at - 1], 1)


def _fields(found: Sequence[Shadowed]) -> tuple[FieldAgreement, ...]:
    each = [field for one in found for field in one.fields]
    return tuple(
        FieldAgreement(
            name=name,
            alike=sum(field.alike for field in each if field.name == name),
            of=sum(field.of for field in each if field.name == name),
        )
        for name in dict.fromkeys(field.name for field in each)
    )


def _newest(found: Sequence[Shadowed], limit: int) -> tuple[Difference, ...]:
    each = (difference for one in found for difference in one.differences)
    return tuple(sorted(each, key=lambda one: one.at_ns, reverse=True)[:limit])
