"""Every utterance's stages counted: exact histograms, and percentiles of the last minutes against the budgets."""

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from quickcomm.contracts.timing import Latency
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.telemetry.settings import Budget
from quickcomm.kernel.telemetry.side import label_of, side_here
from quickcomm.kernel.telemetry.stages import STAGES, TOTAL, StageHealth

WINDOW_S: Final = 300.0
MAX_SAMPLES: Final = 1_024
"""Of a stage; with more in the window, the newest count."""
ENOUGH: Final = 20
"""A 95th percentile of fewer says nothing, and so no budget is called broken for it."""
FRESH_S: Final = 1.0
_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_WORDS: Final = {stage.name: stage.words for stage in STAGES} | {TOTAL: "End of speech to page"}
NAMES: Final = tuple(_WORDS)

_MODULES: Final = {stage.name: stage.module for stage in STAGES} | {TOTAL: "dashboard"}

SECONDS = Histogram(
    "quickcomm_stage_seconds", "Time an utterance spent in each stage", ["stage", "side"], buckets=_BUCKETS
)
OVER = Counter(
    "quickcomm_stage_over_budget", "Utterances for which a stage took longer than its budget", ["stage", "side"]
)
"""Of those that `SECONDS` counts: five of 100 may, and that is the error budget."""
ALLOWED = Gauge("quickcomm_stage_budget_seconds", "What each stage may take for 95 of 100 utterances", ["stage"])
USED = Gauge(
    "quickcomm_budget_used_ratio",
    "95th percentile of the last five minutes ÷ budget; above 1 it is broken",
    ["stage", "side"],
)
"""`side`: which one served the stage, during a migration; else empty, and of all."""


_Sample = tuple[float, float, str]
"""When, milliseconds, and the label of the side; empty without a migration."""


class LiveStages:
    def __init__(self, clock: Clock, budget: Callable[[], Budget]) -> None:
        self._clock = clock
        self._budget = budget
        self._samples: dict[str, deque[_Sample]] = {name: deque(maxlen=MAX_SAMPLES) for name in NAMES}
        self._told: tuple[float, tuple[StageHealth, ...]] | None = None
        self._sides: set[tuple[str, str]] = set()
        for name in NAMES:
            SECONDS.labels(name, "")
            OVER.labels(name, "")
            USED.labels(name, "").set_function(partial(self._used, name))
            ALLOWED.labels(name).set_function(partial(self._allowed_s, name))

    def observe(self, latency: Latency) -> None:
        """A finished receipt; once an utterance."""
        sides = latency.served_by
        for name in NAMES:
            ms = getattr(latency, name, None)
            if ms is not None:
                self._add(name, ms, label_of(sides.get(_MODULES[name])))

    def painted(self, ms: float) -> None:
        """A page has shown a card."""
        self._add("painted", ms, label_of(side_here()))

    def health(self) -> tuple[StageHealth, ...]:
        """Of the stages that were measured in the last minutes."""
        now = self._clock.monotonic()
        if self._told is None or now - self._told[0] >= FRESH_S:
            budget = self._budget()
            self._told = now, tuple(one for name in NAMES if (one := self._of(name, now, budget)) is not None)
        return self._told[1]

    def totals(self, seconds: float) -> list[float]:
        """Return how long each card of the last `seconds` took from the last word to the push, in ms."""
        since = self._clock.monotonic() - seconds
        return [ms for at, ms, _ in self._samples[TOTAL] if at >= since]

    def _add(self, name: str, ms: float, side: str) -> None:
        SECONDS.labels(name, side).observe(ms / 1e3)
        if ms > getattr(self._budget(), name):
            OVER.labels(name, side).inc()
        if side and (name, side) not in self._sides:
            self._sides.add((name, side))
            USED.labels(name, side).set_function(partial(self._used_by, name, side))
        self._samples[name].append((self._clock.monotonic(), ms, side))
        # What is asked for now must show what has just come in where little has: a percentile of few changes with each.
        if len(self._samples[name]) <= ENOUGH:
            self._told = None

    def _of(self, name: str, now: float, budget: Budget) -> StageHealth | None:
        samples = self._samples[name]
        while samples and samples[0][0] < now - WINDOW_S:
            samples.popleft()
        if not samples:
            return None
        values = sorted(ms for _, ms, _ in samples)
        p95, allowed = _percentile(values, 0.95), getattr(budget, name)
        words = _WORDS[name]
        broken = len(values) >= ENOUGH and p95 > allowed
        return StageHealth(
            stage=name,
            words=words,
            count=len(values),
            p50_ms=_percentile(values, 0.5),
            p95_ms=p95,
            p99_ms=_percentile(values, 0.99),
            budget_ms=allowed,
            used=round(p95 / allowed, 3) if allowed else 0.0,
            breach=f"{words} ({name}) takes {p95:.0f} ms (95th percentile); {allowed:.0f} ms are allowed."
            if broken
            else "",
        )

    def _allowed_s(self, name: str) -> float:
        allowed: float = getattr(self._budget(), name)
        return allowed / 1e3

    def _used(self, name: str) -> float:
        return next((one.used for one in self.health() if one.stage == name), 0.0)

    def _used_by(self, name: str, side: str) -> float:
        """Return the share of its budget that a stage has used on a side."""
        since, allowed = self._clock.monotonic() - WINDOW_S, getattr(self._budget(), name)
        values = sorted(ms for at, ms, where in self._samples[name] if where == side and at >= since)
        return round(_percentile(values, 0.95) / allowed, 3) if values and allowed else 0.0


def _percentile(ordered: list[float], share: float) -> float:
    """Nearest rank."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1)
