"""Erases messages and dead letters in Valkey, and has its file written anew without them."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import structlog

from quickcomm.contracts.erasing import Scope, Wanted
from quickcomm.kernel.erasing.reading import is_erased, is_meant
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.redis_consumer import Letter
from quickcomm.kernel.messaging.bus.redis_link import BusRefusedError, Link
from quickcomm.kernel.messaging.bus.redis_names import Names

PAGE: Final = 500
REWRITTEN_WITHIN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.1
ATTEMPTS: Final = 3
AGAIN_S: Final = 1.0
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
        """Have the append-only file begin anew; return by when what was deleted is gone, where that is not now.

        Raises `BusUnavailableError` where the store does not answer.
        """
        for _ in range(ATTEMPTS):
            try:
                if await self._written_anew():
                    return ""
            except BusRefusedError as error:
                log.warning("erasure.file_not_written_anew", error=str(error))
                return LATER
            except QuickCommError as error:  # such as a connection that broke
                log.info("erasure.file_written_again", error=str(error))
                await asyncio.sleep(AGAIN_S)
        await self._info()
        log.warning("erasure.file_not_written_anew")
        return LATER

    async def _written_anew(self) -> bool:
        """Return True once it is. A store that was started again meanwhile counts from 0 anew, and has not done it."""
        before = _rewrites(await self._idle())
        await self._link.call("BGREWRITEAOF")
        told = await self._idle()
        is_counted = before is None or (_rewrites(told) or 0) > before
        return is_counted and not _is_busy(told) and str(told.get("aof_last_bgrewrite_status", "ok")).strip() == "ok"

    async def _idle(self) -> dict[str, Any]:
        """Return what the store says once it writes no file anew, or after a while."""
        until = time.monotonic() + REWRITTEN_WITHIN_S
        while _is_busy(told := await self._info()) and time.monotonic() < until:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(LOOK_EVERY_S)
        return told

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


def _is_busy(told: dict[str, Any]) -> bool:
    return bool(int(told.get("aof_rewrite_in_progress", 0)) or int(told.get("aof_rewrite_scheduled", 0)))


def _rewrites(told: dict[str, Any]) -> int | None:
    """Return how often it has begun since it was started; None where it does not say that."""
    return int(told["aof_rewrites"]) if "aof_rewrites" in told else None
