"""Processes that share a session store: who is there, what others have to tell one of them, and whose turn it is."""

import uuid
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from quickcomm.audio.adapters import redis_scripts as lua
from quickcomm.audio.adapters.redis_calls import Calls
from quickcomm.audio.adapters.redis_rows import SessionNames
from quickcomm.audio.ports import Tell
from quickcomm.contracts.audio_socket import decode_durable
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.bus.port import BusFullError, BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_link import Link, Script

PRESENT_S: Final = 10
"""So long after its last word a process may still be there."""
ABSENT_S: Final = 5.0
"""And so long beyond that it must be missed, until it counts as gone for good: after the store was away, all of them
need a moment to say that they are there."""
SAY_EVERY_S: Final = 2.0
MAIL_S: Final = 60
"""Mail is read at once. Of who is gone, it goes by itself."""
TOGETHER: Final = 256

Entry = tuple[bytes, dict[bytes, bytes]]

_PRESENT: Final = Script(lua.PRESENT)

log = structlog.get_logger(__name__)


class Sweep(NamedTuple):
    """Names of quiet conversations: this owner's, and those of lives that are missing."""

    mine: list[str]
    missing: dict[str, list[str]]

    @classmethod
    def of(cls, mine: Sequence[bytes], missing: Sequence[bytes], theirs: Sequence[bytes]) -> "Sweep":
        """Read what the script answers; `theirs`: a life, a name, and so on."""
        lives: dict[str, list[str]] = {life.decode(): [] for life in missing}
        for life, name in zip(theirs[::2], theirs[1::2], strict=True):
            lives[life.decode()].append(name.decode())
        return cls([name.decode() for name in mine], lives)


class Owners:
    """`owner`: a name that one process has at a time; its `life` is another one with each process of that name."""

    def __init__(self, calls: Calls, names: SessionNames, clock: Clock, owner: str) -> None:
        self._calls = calls
        self._names = names
        self._clock = clock
        self.owner = owner
        self.life = f"{owner}#{uuid.uuid4().hex}"
        self._missed: dict[str, float] = {}

    async def be_present(self) -> None:
        await self._calls.run(_PRESENT, (self._names.owner(self.owner),), self.life, PRESENT_S)

    async def stay_present(self) -> None:
        """Say again and again that this process is there, whatever else keeps it busy, until cancelled."""
        while True:
            try:
                await self.be_present()
            except (BusFullError, BusUnavailableError) as error:
                log.warning("presence.failed", error=str(error))
                self.start_over()
            await self._clock.sleep(SAY_EVERY_S)

    async def is_there(self, life: str) -> bool:
        """Return True if the process that lives it has said so lately."""
        name = life.partition("#")[0]
        return bool(await self._calls.call("GET", self._names.owner(name)) == life.encode())

    def gone(self, missing: set[str]) -> set[str]:
        """Return which of the lives that are missing now are gone for good."""
        now = self._clock.monotonic()
        self._missed = {life: self._missed.get(life, now) for life in missing}
        return {life for life, since in self._missed.items() if now - since >= ABSENT_S}

    def start_over(self) -> None:
        """The store was away: who is missed must be missed anew."""
        self._missed = {}

    async def turn(self, work: str, for_s: int) -> bool:
        key = self._names.turn(work)
        if await self._calls.call("SET", key, self.life, "NX", "EX", for_s) is not None:
            return True
        return bool(await self._calls.call("GET", key) == self.life.encode())  # taken before, and the answer was lost

    async def listen(self, link: Link, tell: Tell) -> None:
        """Until cancelled. A store that is away is waited for; what is missed comes with the next event of the log."""
        mail, after = self._names.mail(self.life), "0-0"

        async def new() -> Sequence[Entry]:
            found: Sequence[Entry] = await link.call("XRANGE", mail, f"({after}", "+", "COUNT", TOGETHER)
            return found

        async def news() -> None:
            await link.wait_for(mail, after)

        while True:
            await link.patiently(news)
            for entry, fields in await link.patiently(new):
                after = entry.decode()
                _deliver(fields, tell)


def mine(life: str, owner: str) -> bool:
    """Return whether a process of that name lived it."""
    return life.partition("#")[0] == owner


def _deliver(fields: dict[bytes, bytes], tell: Tell) -> None:
    site, _, conversation_id = fields[b"n"].decode().partition(":")
    tell(site, conversation_id, decode_durable(fields[b"e"]))
