"""Erases messages and dead letters in Valkey, and has its file written anew without them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec
import structlog

from quickcomm.contracts.erasing import Scope, Wanted
from quickcomm.kernel.erasing.reading import is_erased, is_meant
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.redis_consumer import Letter
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import Names

PAGE: Final = 500
REWRITTEN_WITHIN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.1
LATER: Final = "when the store writes its file anew (BGREWRITEAOF)"
_letters: Final = msgspec.msgpack.Decoder(Letter)
log = structlog.get_logger(__name__)


class RedisMessages:
    """All that the streams and the dead letters have."""

    def __init__(self, link: Link, names: Names) -> None:
        self._link = link
        self._names = names

    async def find(self, wanted: Wanted) -> set[str]:
        """Return the ids of utterances that a name or a time stands for."""
        found = {is_meant(payload, wanted) async for _, _, payload in self._messages()}
        found |= {is_meant(letter.payload, wanted) async for _, letter in self._dead_letters()}
        return {each for each in found if each is not None}

    async def erase(self, scope: Scope) -> dict[str, int]:
        """Delete what has words of the scope; return how many messages and dead letters it was."""
        messages = letters = 0
        async for place, key, payload in self._messages():
            if is_erased(payload, key, scope):
                messages += await self._link.call("XDEL", *place)
        async for number, letter in self._dead_letters():
            if is_erased(letter.payload, letter.key, scope):
                letters += await self._link.call("HDEL", self._names.dead, number)
        return {"messages": messages, "dead letters": letters}

    async def write_file_anew(self) -> str:
        """Have the append-only file begin anew; return by when what was deleted is gone, where that is not now."""
        try:
            await self._settled(lambda told: not int(told.get("aof_rewrite_in_progress", 0)))
            await self._link.call("BGREWRITEAOF")
            is_written = await self._settled(_is_written)
        except QuickCommError as error:
            log.warning("erasure.file_not_written_anew", error=str(error))
            return LATER
        return "" if is_written else LATER

    async def _settled(self, is_so: Callable[[dict[str, Any]], bool]) -> bool:
        until = time.monotonic() + REWRITTEN_WITHIN_S
        while not (done := is_so(await self._info())) and time.monotonic() < until:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(LOOK_EVERY_S)
        return done

    async def _info(self) -> dict[str, Any]:
        told = await self._link.call("INFO", "persistence")
        if isinstance(told, dict):  # the client library may have read it
            return {str(name): value for name, value in told.items()}
        return dict(line.split(":", 1) for line in told.decode().splitlines() if ":" in line)

    async def _messages(self) -> AsyncIterator[tuple[tuple[str, bytes], str, bytes]]:
        """Yield place, key and payload of each message."""
        for stream in sorted(name.decode() for name in await self._link.call("SMEMBERS", self._names.streams)):
            for part in self._names.parts(stream):
                after = "-"
                while page := await self._link.call("XRANGE", part, after, "+", "COUNT", PAGE):
                    for entry, fields in page:
                        yield (part, entry), fields[b"k"].decode(), fields[b"p"]
                    after = f"({page[-1][0].decode()}"

    async def _dead_letters(self) -> AsyncIterator[tuple[int, Letter]]:
        for number in sorted(map(int, await self._link.call("HKEYS", self._names.dead))):
            stored = await self._link.call("HGET", self._names.dead, number)
            if stored is not None:
                yield number, _letters.decode(stored)


def _is_written(told: dict[str, Any]) -> bool:
    busy = int(told.get("aof_rewrite_in_progress", 0)) or int(told.get("aof_rewrite_scheduled", 0))
    return not busy and str(told.get("aof_last_bgrewrite_status", "ok")).strip() == "ok"
