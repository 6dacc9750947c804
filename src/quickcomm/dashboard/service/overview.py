"""How the whole site is, from what the instances tell: one health for the page, and words for who is away."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from quickcomm.contracts.health import Alarm, ClassifierHealth
from quickcomm.contracts.link import InstanceStatus
from quickcomm.dashboard.model.views import rfc3339
from quickcomm.dashboard.ports import Health
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.telemetry import Budget
from quickcomm.kernel.telemetry.stages import StageHealth

AWAY: Final = "core.away"
AWAY_AFTER_S: Final = 2.0
"""A process that is replaced is nothing to alarm people for."""
STALE_AFTER_S: Final = 3.0
"""Three times what an instance takes from one word to the next: it hangs."""
AWAY_WORDS: Final = (
    "The core service is away: nothing new is heard or understood until it is back, and radios keep what is said "
    "meanwhile. What is on the page stays."
)
NOT_KNOWN: Final = "Not known while the core service is away"


class _Told(msgspec.Struct):
    status: InstanceStatus
    at: float


class Overview:
    """`told` and `lost` as it happens, `health` whenever somebody looks."""

    def __init__(self, clock: Clock, budget: Budget) -> None:
        """`budget`: until an instance has told another one."""
        self._clock = clock
        self._budget = budget
        self._instances: dict[str, _Told] = {}
        self._last = InstanceStatus()
        self._heard = clock.monotonic()
        self._heard_ns = clock.now_ns()

    @property
    def budget(self) -> Budget:
        """What the stages may take where the instances run."""
        return self._budget

    def told(self, name: str, status: InstanceStatus) -> None:
        """An instance says how it is."""
        if status.budget != self._last.budget:
            self._budget = _budget(status.budget, self._budget)
        self._heard, self._heard_ns = self._clock.monotonic(), self._clock.now_ns()
        self._last = status
        self._instances[name] = _Told(status, self._heard)

    def lost(self, name: str) -> None:
        """It is connected no more."""
        self._instances.pop(name, None)

    def health(self, stages: tuple[StageHealth, ...], own: Sequence[Alarm], trace_url: str | None) -> Health:
        """`own`: alarms of this process."""
        now = self._clock.monotonic()
        present = [told.status for told in self._instances.values() if now - told.at < STALE_AFTER_S]
        away = not present and now - self._heard >= AWAY_AFTER_S
        shown = present or ([] if away else [self._last])
        alarms = _by_code([*own, *([self._away()] if away else []), *(each for one in shown for each in one.alarms)])
        return Health(
            status="degraded" if alarms else "ok",
            sessions=sum(one.sessions for one in shown),
            stt_backlog_s=max((one.stt_backlog_s for one in shown), default=0.0),
            alarms=alarms,
            classifier=_classifier(shown) if shown else ClassifierHealth(message=NOT_KNOWN),
            budget=self._budget,
            stages=stages,
            trace_url=trace_url,
        )

    def _away(self) -> Alarm:
        return Alarm(code=AWAY, message=AWAY_WORDS, since=rfc3339(self._heard_ns))


def _by_code(alarms: Iterable[Alarm]) -> tuple[Alarm, ...]:
    """Where several have the same one, the first that had it."""
    found: dict[str, Alarm] = {}
    for alarm in alarms:
        known = found.get(alarm.code)
        if known is None or alarm.since < known.since:
            found[alarm.code] = alarm
    return tuple(found.values())


def _classifier(shown: Sequence[InstanceStatus]) -> ClassifierHealth:
    """If one of them answers without its model, people should know."""
    return next((one.classifier for one in shown if one.classifier.degraded), shown[0].classifier)


def _budget(told: Mapping[str, float], before: Budget) -> Budget:
    known = {name: value for name, value in told.items() if name in Budget.__struct_fields__}
    try:
        return msgspec.convert(known, Budget)
    except MALFORMED:
        return before
