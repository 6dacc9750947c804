"""How the whole site is, from what the instances tell: one health for the page, and words for who is away."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf
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

HEARS: Final = "audio"
UNDERSTANDS: Final = "intelligence"
AWAY_AFTER_S: Final = 2.0
"""A process that is replaced is nothing to alarm people for."""
STALE_AFTER_S: Final = 3.0
"""Three times what an instance takes from one word to the next: it hangs."""
AWAY_WORDS: Final[Mapping[str, str]] = {
    HEARS: (
        "The audio service is away: nothing new is heard until it is back, and radios keep what is said meanwhile. "
        "What is on the page stays."
    ),
    UNDERSTANDS: (
        "The intelligence service is away: what is said is on the page, but not understood until it is back. Then the "
        "cards are completed; nothing is lost."
    ),
}
"""By module."""
NOT_KNOWN: Final = "Not known while the intelligence service is away"


def away_code(module: str) -> str:
    """Of the alarm."""
    return f"{module}.away"


class _Told(msgspec.Struct):
    status: InstanceStatus
    at: float


class _Module:
    """What the instances of one module tell."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._instances: dict[str, _Told] = {}
        self.last = InstanceStatus()
        self._heard = clock.monotonic()
        self.heard_ns = clock.now_ns()

    def told(self, name: str, status: InstanceStatus) -> None:
        self._heard, self.heard_ns = self._clock.monotonic(), self._clock.now_ns()
        self.last = status
        self._instances[name] = _Told(status, self._heard if name else inf)

    def lost(self, name: str) -> None:
        self._instances.pop(name, None)

    def shown(self) -> list[InstanceStatus] | None:
        """Of those that are there; for a moment the last word of one that was. None: the module is away."""
        now = self._clock.monotonic()
        present = [told.status for told in self._instances.values() if now - told.at < STALE_AFTER_S]
        if not present and now - self._heard >= AWAY_AFTER_S:
            return None
        return present or [self.last]


class Overview:
    """`told` and `lost` as it happens, `health` whenever somebody looks."""

    def __init__(self, clock: Clock, budget: Budget) -> None:
        """`budget`: until an instance has told another one."""
        self._budget = budget
        self._modules = {module: _Module(clock) for module in AWAY_WORDS}
        self._own: dict[str, tuple[Alarm, ...]] = {}

    @property
    def budget(self) -> Budget:
        """What the stages may take where the instances run."""
        return self._budget

    def told(self, module: str, name: str, status: InstanceStatus) -> None:
        """Take note of how a module of an instance is; of others than those above, of its alarms.

        `name`: empty for this process itself, which is never unavailable to itself, however late it is.
        """
        known = self._modules.get(module)
        if known is None:
            self._own[module] = status.alarms
            return
        if module == UNDERSTANDS and status.budget != known.last.budget:  # it knows whether there is a model
            self._budget = _budget(status.budget, self._budget)
        known.told(name, status)

    def lost(self, name: str) -> None:
        """Take note that an instance is not connected any more."""
        for known in self._modules.values():
            known.lost(name)

    @property
    def away(self) -> tuple[str, ...]:
        """Return the modules of which no process answers."""
        return tuple(module for module, known in self._modules.items() if known.shown() is None)

    def health(self, stages: tuple[StageHealth, ...], trace_url: str | None) -> Health:
        """Return the health of the site as the page shows it."""
        shown = {module: known.shown() for module, known in self._modules.items()}
        hears, understands = shown[HEARS] or [], shown[UNDERSTANDS]
        own = [alarm for alarms in self._own.values() for alarm in alarms]
        away = [self._away(module) for module, found in shown.items() if found is None]
        told = [alarm for found in shown.values() for one in found or () for alarm in one.alarms]
        alarms = _by_code([*own, *away, *told])
        return Health(
            status="degraded" if alarms else "ok",
            sessions=sum(one.sessions for one in hears),
            stt_backlog_s=max((one.stt_backlog_s for one in hears), default=0.0),
            alarms=alarms,
            classifier=_classifier(understands) if understands else ClassifierHealth(message=NOT_KNOWN),
            budget=self._budget,
            stages=stages,
            trace_url=trace_url,
        )

    def _away(self, module: str) -> Alarm:
        since = rfc3339(self._modules[module].heard_ns)
        return Alarm(code=away_code(module), message=AWAY_WORDS[module], since=since)


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
