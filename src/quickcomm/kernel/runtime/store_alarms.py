"""What is wrong with the store, for the page and `status` of every process: `up` finds it out and leaves it there."""

from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED, QuickCommError
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX

LOOK_EVERY_S: Final = 1.0
LOST: Final = "lost_ns"
"""In the mark of the site: when the store was last found without its data."""
ALARMS: Final = "alarms"
"""In the mark of the site: a list of `StoreAlarm`, as JSON."""
SHOWN_NS: Final = 3600 * 1_000_000_000
LOST_CODE: Final = "store.lost"
LOST_NOW: Final = (
    "The store has lost its data. Radios keep what is not acknowledged and try again; their keys are put back by "
    "`quickcomm up`: see that it runs."
)
LOST_AT: Final = (
    "The store lost its data at {at} UTC. Keys were put back, radios go on in new conversations; what waited in it to "
    "be understood or shown is lost: listen to what was said just before. People sign in again. Find out why: was it "
    "emptied, out of memory, or started without its file?"
)

log = structlog.get_logger(__name__)


class StoreAlarm(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class StoreAlarms:
    """Reads the mark of the site each second."""

    def __init__(self, url: str, clock: Clock, prefix: str = PREFIX) -> None:
        self._link = Link(url)
        self._clock = clock
        self._mark = f"{prefix}:home"
        self.found: tuple[tuple[str, str], ...] = ()
        """Code and message of each."""

    async def run(self) -> None:
        """Until cancelled. While the store does not answer, others say so, and what is known stays."""
        while True:
            try:
                self.found = await self._read()
            except QuickCommError as error:
                log.debug("store.alarms_not_read", error=str(error))
            await self._clock.sleep(LOOK_EVERY_S)

    async def aclose(self) -> None:
        await self._link.aclose()

    async def _read(self) -> tuple[tuple[str, str], ...]:
        mark, lost_ns, alarms = await self._link.call("HMGET", self._mark, "id", LOST, ALARMS)
        if mark is None:
            return ((LOST_CODE, LOST_NOW),)
        found = [(each.code, each.message) for each in _decoded(alarms)]
        if lost_ns is not None and self._clock.now_ns() - int(lost_ns) < SHOWN_NS:
            at = datetime.fromtimestamp(int(lost_ns) / 1e9, UTC).strftime("%H:%M:%S")
            found.append((LOST_CODE, LOST_AT.format(at=at)))
        return tuple(found)


def _decoded(alarms: bytes | None) -> list[StoreAlarm]:
    try:
        return [] if alarms is None else msgspec.json.decode(alarms, type=list[StoreAlarm])
    except MALFORMED:
        return []
