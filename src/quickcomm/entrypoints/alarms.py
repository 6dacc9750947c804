"""Alarms with the time since when each holds."""

from collections.abc import Iterable
from datetime import UTC, datetime

from quickcomm.contracts.health import Alarm
from quickcomm.entrypoints.process import rfc3339


class Since:
    """Remembers when an alarm came, for as long as it is found again each time."""

    def __init__(self) -> None:
        self._alarms: dict[str, Alarm] = {}

    def dated(self, found: Iterable[tuple[str, str]]) -> list[Alarm]:
        """Return the alarms of these codes and messages; the time of others is forgotten."""
        now = rfc3339(datetime.now(UTC))
        before = self._alarms
        self._alarms = {
            code: Alarm(code=code, message=message, since=before[code].since if code in before else now)
            for code, message in found
        }
        return list(self._alarms.values())
