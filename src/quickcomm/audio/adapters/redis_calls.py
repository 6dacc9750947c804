"""Calls of the session store to Valkey: tried again for a second, and what is known of those without an answer."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from quickcomm.contracts.audio_socket import DurableEvent
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.bus.port import BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_link import Argument, Link, Script

RETRY_S: Final = (0.05, 0.1, 0.2, 0.4)
UNSURE_AT_MOST: Final = 1_000


class Calls:
    """Each call may be done twice without harm. Raises `BusUnavailableError` at last."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._unsure: dict[tuple[str, str], None] = {}
        """Calls without an answer, the oldest first. Whoever tries again may be another process: it is bounded."""

    async def call(self, command: str, *arguments: Argument) -> Any:
        async def once() -> Any:
            return await self._link.call(command, *arguments)

        return (await self._tried(once))[0]

    async def run(
        self, script: Script, keys: Sequence[str], *arguments: Argument, unsure: tuple[str, str] | None = None
    ) -> tuple[Any, bool]:
        """Return the answer, and whether the script may have run before without our hearing of it.

        `unsure`: what the call is about, to be remembered where no answer comes at all.
        """
        before = unsure in self._unsure
        try:
            answer, repeated = await self._tried(lambda: self._link.run(script, keys, *arguments))
        except BusUnavailableError:
            if unsure is not None:
                self._remember(unsure)
            raise
        if unsure is not None:
            self._unsure.pop(unsure, None)
        return answer, before or repeated

    def _remember(self, unsure: tuple[str, str]) -> None:
        self._unsure[unsure] = None
        if len(self._unsure) > UNSURE_AT_MOST:
            del self._unsure[next(iter(self._unsure))]

    async def _tried(self, call: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """Call until an answer comes; return it, and whether it was called before."""
        repeated = False
        for wait in RETRY_S:
            try:
                return await call(), repeated
            except BusUnavailableError:
                repeated = True
                await self._clock.sleep(wait)
        return await call(), repeated


def around_seq(data: bytes) -> tuple[bytes, bytes]:
    """Return what comes before and after the number. What was said cannot pass for it: there, quotes are escaped."""
    head, found, tail = data.partition(b'"seq":0,')
    assert found, "the message has a seq, and another field behind it"  # noqa: S101 - a programming error
    return head + b'"seq":', b"," + tail


def stored_event(answer: Sequence[Any], event: DurableEvent, *, repeated: bool) -> DurableEvent | None:
    """Return the event that was stored; None where that was done by another call than this one."""
    if answer[0] == b"known" and not repeated:
        return None
    return msgspec.structs.replace(event, seq=answer[1] if answer[0] == b"known" else answer[0])
