"""Looks after the site's store while `up` runs: how it is, what people must be told, and what it must be given back."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.keys.copy import KeyCopy
from quickcomm.kernel.keys.redis import KeyNames
from quickcomm.kernel.messaging.bus.home import Home, HomeInStore
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.kernel.runtime.store_alarms import ALARMS, LOST
from quickcomm.operate.up.store import Facts, alarms_of, parse_facts

LOOK_EVERY_S: Final = 1.0
ANSWER_WITHIN_S: Final = 3.0

log = structlog.get_logger(__name__)


class StoreWatch:
    """`keys`: the copy of what the store must have."""

    def __init__(self, link: Link, clock: Clock, keys: KeyCopy, prefix: str = PREFIX) -> None:
        self._link = link
        self._clock = clock
        self._mark = KeyNames(prefix).home
        self._store = HomeInStore(link, prefix)
        self._said: dict[str, str] = {}
        self._told: bytes | None = None
        self.keys = keys
        self.facts: Facts | None = None
        """What the store says of itself; None while it does not answer."""

    async def run(self, home: Home) -> None:
        """Look each second, until cancelled. `home`: the mark that the store must have."""
        while True:
            try:
                async with self._clock.timeout(ANSWER_WITHIN_S):
                    self.facts = parse_facts(await self._link.call("INFO"))
                    await self.look(home)
            except (QuickCommError, OSError) as error:  # a TimeoutError is an OSError
                self.facts = None
                self._say("store.not_looked_after", str(error) or "it takes too long to answer")
            else:
                self._said.pop("store.not_looked_after", None)
            await self._clock.sleep(LOOK_EVERY_S)

    async def patiently(self, call: Callable[[], Awaitable[object]]) -> None:
        """Call until the store answers."""
        await self._link.patiently(call)

    async def look(self, home: Home) -> None:
        """Give the store back what it has lost, copy what it has, and leave the alarms where processes find them.

        Raises `QuickCommError` of the store.
        """
        there = await self._store.read()
        if there is not None and there.id != home.id:
            self._say("store.of_another_site", "The store has another site's data now. Give each site a store.")
            return
        lost = await self.keys.join()
        if there is None or lost:
            await self._link.call("HSET", self._mark, LOST, self._clock.now_ns())
            log.error("store.data_lost", keys_put_back=lost)
            self._told = None
        if there is None:
            # Last of all: until it is there, a key that is missing is no wrong one.
            await self._store.write(home)
        await self._tell()

    async def _tell(self) -> None:
        found = alarms_of(self.facts) if self.facts is not None else ()
        for alarm in found:
            self._say(alarm.code, alarm.message)
        encoded = msgspec.json.encode(found)
        if encoded != self._told:
            await self._link.call("HSET", self._mark, ALARMS, encoded)
            self._told = encoded

    def _say(self, event: str, why: str) -> None:
        """Log it once, and again when it is another one."""
        if self._said.get(event) != why:
            log.warning(event, why=why)
        self._said[event] = why
