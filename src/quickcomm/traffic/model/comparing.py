"""Compares samples of both sides, and says of each figure whether it passed, waits, or is a breach. Pure."""

import math
from typing import Final

import msgspec

from quickcomm.contracts.migration import Figure, FigureNumbers, FigureSide, Outcome
from quickcomm.traffic.model.statistics import fewest_for_quantile, quantile_bounds

SHOWN_WHOLE: Final = 10.0
"""Milliseconds from which no fraction is shown."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of both sides in ms, of which the quantile `q` is compared; `margin`: so many times as much passes."""

    name: str
    words: str
    q: float
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    margin: float
    budget: float | None = None
    what: str = ""
    """The stage."""

    def figure(self, confidence: float, alarm_confidence: float, seconds: float) -> Figure:
        """Return what is found. Both bounds must hold together: each has half of the error that is allowed."""
        confidence = 1 - (1 - confidence) / 2
        own_low, high = quantile_bounds(self.ours, self.q, confidence)
        their_low, their_own_high = quantile_bounds(self.theirs, self.q, confidence)
        low, _ = quantile_bounds(self.ours, self.q, alarm_confidence)
        _, their_high = quantile_bounds(self.theirs, self.q, alarm_confidence)
        within = self.budget is not None and high <= self.budget
        fails = low > self.margin * their_high and (self.budget is None or low > self.budget)
        outcome = outcome_of(passes=within or high <= self.margin * their_low, fails=fails)
        numbers = FigureNumbers(
            what=self.what,
            outcome=outcome,
            unit="ms",
            service=_side(self.ours, self.q, own_low, high),
            monolith=_side(self.theirs, self.q, their_low, their_own_high),
            limit=self.budget,
            margin=self.margin,
            quantile=self.q,
        )
        ours, theirs = len(self.ours), len(self.theirs)
        detail = f"{self.words} at most {_ms(high)} of {ours}, monolith at least {_ms(their_low)} of {theirs}"
        if outcome == "breach":
            detail = f"{self.words} at least {_ms(low)} of {ours}, monolith at most {_ms(their_high)} of {theirs}"
            detail += f", budget {_ms(self.budget)}" if self.budget else ""
        if outcome != "wait":
            return Figure(name=self.name, outcome=outcome, detail=detail, numbers=(numbers,))
        have, needed = min(ours, theirs), fewest_for_quantile(self.q, confidence)
        return waits(self.name, detail, have, needed if have < needed else 2 * have, seconds, (numbers,))


def _side(samples: tuple[float, ...], q: float, low: float, high: float) -> FigureSide:
    ordered = sorted(samples)
    return FigureSide(
        value=ordered[math.ceil(q * len(ordered)) - 1] if ordered else None,
        low=_finite(low),
        high=_finite(high),
        samples=len(ordered),
    )


def _finite(bound: float) -> float | None:
    return None if math.isinf(bound) else bound


def outcome_of(*, passes: bool, fails: bool) -> Outcome:
    return "breach" if fails else "pass" if passes else "wait"


def waits(
    name: str, detail: str, have: int, needed: int | None, seconds: float, numbers: tuple[FigureNumbers, ...] = ()
) -> Figure:
    """Say how many samples are missing, and about how long they take at the rate so far."""
    missing = None if needed is None else max(1, needed - have)
    in_s = missing * seconds / have if missing is not None and have and seconds else None
    more = "no number of samples like these is enough" if missing is None else f"about {missing} samples are missing"
    return Figure(name=name, outcome="wait", detail=f"{detail}; {more}", missing=missing, in_s=in_s, numbers=numbers)


def _ms(found: float) -> str:
    return "unknown" if math.isinf(found) else f"{found:.0f} ms" if found >= SHOWN_WHOLE else f"{found:.1f} ms"
