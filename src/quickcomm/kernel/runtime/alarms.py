"""Alarms with the time since when each holds."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from quickcomm.contracts.health import Alarm

Found = tuple[str, str] | Alarm
"""Code and message of what is wrong; an alarm where it is known since when."""


class Since:
    """Remembers when an alarm came, for as long as it is found again each time."""

    def __init__(self) -> None:
        self._alarms: dict[str, Alarm] = {}

    def dated(self, found: Iterable[Found]) -> list[Alarm]:
        """Return them as alarms, an alarm as it is; the time of others is forgotten."""
        now = rfc3339(datetime.now(UTC))
        before = self._alarms
        self._alarms = {
            each.code: each
            for each in (
                one if isinstance(one, Alarm) else Alarm(code=one[0], message=one[1], since=_since(before, one[0], now))
                for one in found
            )
        }
        return list(self._alarms.values())


def rfc3339(time: datetime) -> str:
    """Return a time in UTC, to the second."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _since(before: Mapping[str, Alarm], code: str, now: str) -> str:
    return before[code].since if code in before else now
