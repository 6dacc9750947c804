"""The bus between processes: Redis Streams on one Valkey (or Redis ≥ 7) server, with the guarantees of `port.py`.

A stream has `PARTITIONS` parts; a key is always in the same one. Each part has one consumer a group, by a lease that is
taken over when it is not renewed. See docs/adr/0012-bus-on-redis-streams.md.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog

from quickcomm.contracts.checking import Standing, Waiting
from quickcomm.contracts.erasing import Erased, Scope, Wanted
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import NotFoundError, QuickCommError
from quickcomm.kernel.messaging.bus.port import DeadLetter, Handler
from quickcomm.kernel.messaging.bus.redis_assignments import Fence
from quickcomm.kernel.messaging.bus.redis_consumer import Letter
from quickcomm.kernel.messaging.bus.redis_erasing import RedisMessages
from quickcomm.kernel.messaging.bus.redis_group import Member, register
from quickcomm.kernel.messaging.bus.redis_link import BusRefusedError, Link, Script
from quickcomm.kernel.messaging.bus.redis_names import PREFIX, Names
from quickcomm.kernel.messaging.bus.redis_publisher import Publisher
from quickcomm.kernel.messaging.bus.redis_scripts import BACKLOG, FULL, OLDEST, REPLAY, TRIM
from quickcomm.kernel.messaging.bus.redis_standing import standings

HIGH_WATER: Final = 10_000
TRIM_EVERY_S: Final = 60.0
TOGETHER: Final = 256
PINGS: Final = 2
"""The quicker one counts: a process may be busy for a moment."""
_BACKLOG: Final = Script(BACKLOG)
_OLDEST: Final = Script(OLDEST)
_FULL: Final = Script(FULL)
_REPLAY: Final = Script(REPLAY)
_TRIM: Final = Script(TRIM)
_letters: Final = msgspec.msgpack.Decoder(Letter)

log = structlog.get_logger(__name__)


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters, and bytes that the server uses of those it may use: 0 where nobody knows, or there is no limit."""

    letters: int
    memory_used: int = 0
    memory_most: int = 0


class RedisBus:
    """A `Bus`. `open()` before the first use, `aclose()` after the last.

    A subscription outlives the server's absence; a call raises `BusUnavailableError` meanwhile. Where the answer to
    `publish` is lost with the connection, the message may be there all the same: published again, it is there twice.
    """

    def __init__(self, url: str, clock: Clock, *, prefix: str = PREFIX, high_water: int = HIGH_WATER) -> None:
        """`url`: `redis://`, `rediss://` or `unix://`. `high_water`: unacknowledged messages that a partition takes."""
        self._clock = clock
        self._names = Names(prefix)
        self._link = Link(url)
        self._high_water = high_water
        self._publisher = Publisher(self._link, self._names, high_water)

    async def open(self) -> None:
        """Raises `BusUnavailableError` where the server does not answer."""
        await self._link.call("PING")

    async def aclose(self) -> None:
        """May be called again. Subscriptions are cancelled before."""
        await self._link.aclose()

    async def publish(self, stream: str, key: str, payload: bytes) -> None:
        """Return once the server has it. Raises `BusFullError` and `BusUnavailableError`."""
        await self._publisher.publish(stream, key, payload)

    async def publish_many(self, stream: str, messages: Sequence[tuple[str, bytes]]) -> list[bool]:
        """Publish (key, payload) pairs at once, in order; return which were taken: False where a partition is full."""
        return await self._publisher.publish_many(stream, messages)

    async def publish_fenced(self, stream: str, messages: Sequence[tuple[str, bytes, Fence | None]]) -> list[bool]:
        """As `publish_many`, but leave out what another side has to answer by now."""
        return await self._publisher.publish_fenced(stream, messages)

    async def subscribe(self, stream: str, group: str, handler: Handler, *, overlap: int = 1) -> None:
        """Register the group and deliver to it until cancelled. A new group starts with what the stream still holds.

        Several processes may subscribe as the same group: the partitions are shared among them.
        """
        await Member(self._link, self._names, self._clock, stream, group).run(handler, overlap)

    # -- groups -----------------------------------------------------------------------------------------------------

    async def register(self, stream: str, group: str) -> None:
        """From now on nothing is trimmed that the group has not acknowledged. Doing it again changes nothing."""
        await register(self._link, self._names, stream, group)

    async def retire(self, stream: str, group: str) -> None:
        """Nothing waits for this group any more. Stop its consumers before: they would register it again."""
        for name in self._names.parts(stream):
            if await self._link.call("EXISTS", name):
                await self._link.call("XGROUP", "DESTROY", name, group)
        await self._link.call("DEL", self._names.leases(stream, group), self._names.members(stream, group))

    async def backlog(self) -> dict[str, int]:
        """Messages not yet acknowledged, by `stream/group`."""
        found = {}
        for stream in await self._streams():
            pairs = await self._link.run(_BACKLOG, self._names.parts(stream))
            for group, count in zip(pairs[::2], pairs[1::2], strict=True):
                found[f"{stream}/{group.decode()}"] = int(count)
        return found

    async def waiting(self) -> list[Waiting]:
        """As `WholeBus.waiting`."""
        found = []
        for stream in await self._streams():
            triples = await self._link.run(_OLDEST, self._names.parts(stream))
            for group, count, oldest_ms in zip(triples[::3], triples[1::3], triples[2::3], strict=True):
                oldest_ns = int(oldest_ms) * 1_000_000
                found.append(Waiting(stream=stream, group=group.decode(), count=int(count), oldest_ns=oldest_ns))
        return found

    async def standing(self, key: str, utterance_id: str) -> list[Standing]:
        """As `WholeBus.standing`."""
        found = []
        for stream in await self._streams():
            found += await standings(self._link, self._names, stream, key, utterance_id)
        return [msgspec.structs.replace(each, at_most=self._high_water) for each in found]

    async def answer_ms(self) -> float | None:
        """As `WholeBus.answer_ms`. Raises `BusUnavailableError` where it does not answer."""
        taken = []
        for _ in range(PINGS):
            began = self._clock.monotonic()
            await self._link.call("PING")
            taken.append(self._clock.monotonic() - began)
        return round(min(taken) * 1e3, 1)

    async def full(self, stream: str) -> bool:
        """Whether a partition is at its high-water mark: publishing to it raises `BusFullError`."""
        return bool(await self._link.run(_FULL, self._names.parts(stream), self._high_water))

    async def trim(self) -> int:
        """Delete what every registered group has acknowledged; how many messages."""
        total = 0
        for part in [part for stream in await self._streams() for part in self._names.parts(stream)]:
            while deleted := await self._link.run(_TRIM, (part,)):
                total += deleted
        return total

    async def trim_forever(self) -> None:
        """Now and then; several processes may do it."""
        while True:
            try:
                await self.trim()
            except QuickCommError as error:
                log.warning("bus.trim_failed", error=str(error))
            await asyncio.sleep(TRIM_EVERY_S)

    async def _streams(self) -> list[str]:
        return sorted(name.decode() for name in await self._link.call("SMEMBERS", self._names.streams))

    async def condition(self) -> Condition:
        """Return how it is with the server. Raises `BusUnavailableError` where it does not answer."""
        letters = int(await self._link.call("HLEN", self._names.dead))
        try:
            told = parse_info(await self._link.call("INFO", "memory"))
        except BusRefusedError:  # a server of the site's own, where this user may not ask
            return Condition(letters=letters)
        used, most = int(told.get("used_memory", 0)), int(told.get("maxmemory", 0))
        return Condition(letters=letters, memory_used=used, memory_most=most)

    # -- dead letters -----------------------------------------------------------------------------------------------

    async def dead_letters(self) -> list[DeadLetter]:
        numbers = sorted(map(int, await self._link.call("HKEYS", self._names.dead)))
        found = []
        for start in range(0, len(numbers), TOGETHER):
            part = numbers[start : start + TOGETHER]
            stored = await self._link.call("HMGET", self._names.dead, *part)
            found += [_dead_letter(number, value) for number, value in zip(part, stored, strict=True) if value]
        return found

    async def replay(self, dead_letter_id: int) -> None:
        """Publish it again. Groups that handled it already see it twice, and drop it by its id."""
        value = await self._link.call("HGET", self._names.dead, dead_letter_id)
        if value is None:
            raise _missing(dead_letter_id)
        letter = _letters.decode(value)
        keys = (self._names.dead, self._names.of_key(letter.stream, letter.key))
        if not await self._link.run(_REPLAY, keys, dead_letter_id, letter.key, letter.payload):
            raise _missing(dead_letter_id)

    async def find(self, wanted: Wanted) -> set[str]:
        """Return the ids of utterances in messages that a name or a time stands for."""
        return await RedisMessages(self._link, self._names).find(wanted)

    async def erase(self, scope: Scope, *, traces: bool = True) -> list[Erased]:
        messages = RedisMessages(self._link, self._names)
        counts = await messages.erase(scope)
        gone = await messages.write_file_anew() if traces else ""
        return [Erased(store="messages, Valkey", what=what, count=count, gone=gone) for what, count in counts.items()]

    async def drop(self, dead_letter_id: int) -> None:
        if not await self._link.call("HDEL", self._names.dead, dead_letter_id):
            raise _missing(dead_letter_id)


def parse_info(told: Any) -> dict[str, str]:
    """Return what INFO says, by name; the client library may have read it already."""
    if isinstance(told, dict):
        return {str(name): str(value) for name, value in told.items()}
    lines = told.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _dead_letter(number: int, stored: bytes) -> DeadLetter:
    return DeadLetter(id=number, **msgspec.structs.asdict(_letters.decode(stored)))


def _missing(dead_letter_id: int) -> NotFoundError:
    return NotFoundError(f"There is no dead letter {dead_letter_id}.")
