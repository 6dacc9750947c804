"""What both sides of audio heard of the same conversations: added up over processes, and put together for operators."""

from collections.abc import Iterable
from statistics import quantiles
from typing import Final

from quickcomm.contracts.evidence import MAX_DIFFERENCES, HeardInShadow
from quickcomm.contracts.migration import Hearings

SHOWN: Final = 20
"""Differences, of those that are kept."""
PER_CENT: Final = 100


def heard_together(found: Iterable[HeardInShadow | None]) -> HeardInShadow | None:
    """Add up; None where there is none."""
    each = [one for one in found if one is not None]
    if not each:
        return None
    differences = (difference for one in each for difference in one.differences)
    return HeardInShadow(
        utterances=sum(one.utterances for one in each),
        words=sum(one.words for one in each),
        wrong=sum(one.wrong for one in each),
        missed=sum(one.missed for one in each),
        extra=sum(one.extra for one in each),
        starts_ms=tuple(ms for one in each for ms in one.starts_ms),
        ends_ms=tuple(ms for one in each for ms in one.ends_ms),
        shed=sum(one.shed for one in each),
        lost=sum(one.lost for one in each),
        differences=tuple(sorted(differences, key=lambda one: one.at_ns, reverse=True)[:MAX_DIFFERENCES]),
    )


def hearings(found: Iterable[HeardInShadow | None]) -> Hearings | None:
    """Return what both sides heard, for operators; None where neither hears what the other one serves."""
    both = heard_together(found)
    if both is None:
        return None
    return Hearings(
        utterances=both.utterances,
        words=both.words,
        wrong=both.wrong,
        missed=both.missed,
        extra=both.extra,
        start_p95_ms=_percentile_95(both.starts_ms),
        end_p95_ms=_percentile_95(both.ends_ms),
        shed=both.shed,
        lost=both.lost,
        differences=both.differences[:SHOWN],
    )


def _percentile_95(times: tuple[float, ...]) -> float | None:
    """Return how far times are apart at most, of 95 in 100; None without any."""
    apart = [abs(ms) for ms in times]
    if len(apart) < 2:  # noqa: PLR2004 - of one, there is no percentile
        return apart[0] if apart else None
    return round(quantiles(apart, n=PER_CENT, method="inclusive")[94], 1)
