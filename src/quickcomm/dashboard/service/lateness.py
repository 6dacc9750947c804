"""The one alarm about lateness: whether cards come late now, in plain words. Stages are the Health panel's."""

from statistics import median
from typing import Final

import msgspec

from quickcomm.contracts.health import Alarm
from quickcomm.dashboard.model.views import rfc3339
from quickcomm.dashboard.ports import Health
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.telemetry.live import LiveStages

CODE: Final = "cards.late"
SAME_CAUSE: Final = frozenset({"audio.stt_behind"})
"""Alarms that say the same: one line is enough."""
WINDOW_S: Final = 30.0
"""The alarm is about now; the percentiles of the Health panel are of the last five minutes."""
ENOUGH: Final = 3
"""One or two late cards are no reason to work otherwise."""
RAISE_S: Final = 1.0
CLEAR_S: Final = 0.5
"""Half the cards of the window must be so late; two thresholds, so that the alarm does not flicker."""


class Lateness:
    """Late is what lies beyond `budget.total`, whichever stages kept theirs."""

    def __init__(self, clock: Clock, stages: LiveStages) -> None:
        self._clock = clock
        self._stages = stages
        self._since_ns: int | None = None

    def told(self, health: Health) -> Health:
        """Return the health with the alarm, if cards come late now."""
        late_s = self._late_s(health.budget.total)
        if late_s < (RAISE_S if self._since_ns is None else CLEAR_S):
            self._since_ns = None
            return health
        if self._since_ns is None:
            self._since_ns = self._clock.now_ns()
        if any(alarm.code in SAME_CAUSE for alarm in health.alarms):
            return health
        message = f"Running behind: cards come about {max(1.0, late_s):.0f} s late."
        alarm = Alarm(code=CODE, message=message, since=rfc3339(self._since_ns))
        return msgspec.structs.replace(health, status="degraded", alarms=(*health.alarms, alarm))

    def _late_s(self, budget_ms: float) -> float:
        totals = self._stages.totals(WINDOW_S)
        return (median(totals) - budget_ms) / 1e3 if len(totals) >= ENOUGH else 0.0
