"""Streams one conversation to a server and survives whatever happens in between.

source → uplink (unacked audio) → link (one connection) → typed events. A connection may break at any time; the next one
resumes with the token, sends again from `next_offset`, and durable events that were heard before are not told twice.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from quickcomm.client.connecting import Dropped, open_socket
from quickcomm.client.errors import UnreachableError
from quickcomm.client.events import Ack, Disconnected, Ended, Event, Insights, Ready, Received, Utterance
from quickcomm.client.formats import AudioFormat
from quickcomm.client.link import Link
from quickcomm.client.options import StreamOptions
from quickcomm.client.seen import Seen
from quickcomm.client.sources import AudioSource, Missing, Sleep
from quickcomm.client.uplink import Uplink
from quickcomm.kernel.clock import Clock, SystemClock
from quickcomm.kernel.errors import QuickCommError

_EVENTS_HELD: Final = 256
_LEAST_MEMORY_MS: Final = 2_000


def _chance() -> float:
    return secrets.randbelow(1_000_001) / 1_000_000


class AudioClient:
    """One conversation, once. `async with client.stream() as events: async for event in events: …`."""

    def __init__(
        self,
        options: StreamOptions,
        source: AudioSource,
        *,
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
        chance: Callable[[], float] = _chance,
    ) -> None:
        self._options = options
        self._source = source
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._chance = chance
        memory = None if options.memory_ms is None else max(_LEAST_MEMORY_MS, options.memory_ms)
        self._uplink = Uplink(source.format, message_ms=options.message_ms, memory_ms=memory, live=source.live)
        self._seen = Seen(options.after_seq)
        # Overflow policy: the reader of the socket waits, so that TCP holds the server back; nothing is dropped.
        self._events: asyncio.Queue[Event | QuickCommError | None] = asyncio.Queue(_EVENTS_HELD)
        self._to_send = asyncio.Event()
        self._room = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._source_failed: QuickCommError | None = None
        self._failures = 0
        self._connected_last = 0.0
        self.ended: Ended | None = None

    @property
    def format(self) -> AudioFormat:
        return self._source.format

    @property
    def produced(self) -> int:
        """Samples a speaker that the source has given so far, gaps included."""
        return self._uplink.produced

    @property
    def acked(self) -> int:
        return self._uplink.acked

    @property
    def delivered(self) -> bool:
        """Whether the server has been sent everything that the source gave."""
        return self._uplink.finished and self._uplink.position >= self._uplink.produced

    def finish(self) -> None:
        """Takes no more sound; what is in hand is still sent, and the conversation ends properly."""
        if self._pump is not None:
            self._pump.cancel()
        self._close_uplink()

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[AsyncIterator[Event]]:
        """Events until `Ended`. Leaving early drops the connection without ending the conversation.

        Iterating raises `UnauthorizedError`, `NotAllowedError`, `RefusedError`, `ProtocolError`, `UnreachableError`,
        and, after `Ended`, `SourceError` if the source broke.
        """
        failed: BaseException | None = None
        async with asyncio.TaskGroup() as tasks:
            self._pump = tasks.create_task(self._fill())
            runner = tasks.create_task(self._run())
            try:
                yield self._told()
            except BaseException as error:  # noqa: BLE001 - raised again below, where the group does not wrap it
                failed = error
            finally:
                self._pump.cancel()
                runner.cancel()
        if failed is not None:
            raise failed

    async def _told(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, QuickCommError):
                raise event
            yield event

    async def _fill(self) -> None:
        """Source → uplink, held back by the room there unless the source is live."""
        block = self._source.format.block
        rest = b""
        try:
            async for chunk in self._source.chunks():
                if isinstance(chunk, Missing):
                    self._uplink.append_gap(chunk.samples)
                else:
                    rest += chunk
                    whole = len(rest) - len(rest) % block
                    self._uplink.append(rest[:whole])
                    rest = rest[whole:]
                self._to_send.set()
                while not self._source.live and not self._uplink.room:
                    self._room.clear()
                    await self._room.wait()
        except QuickCommError as error:
            self._source_failed = error
        self._close_uplink()

    def _close_uplink(self) -> None:
        self._uplink.finish()
        self._to_send.set()

    async def _run(self) -> None:
        self._connected_last = self._clock.monotonic()
        try:
            async with aiohttp.ClientSession() as session:
                while self.ended is None:
                    try:
                        await self._connect(session)
                    except Dropped as drop:
                        await self._back_off(drop)
            await self._events.put(self._source_failed)
        except QuickCommError as error:
            await self._events.put(error)

    async def _connect(self, session: aiohttp.ClientSession) -> None:
        address = self._options.address(self._source.format, self._seen.after_seq)
        async with await open_socket(session, address, self._options) as socket:
            link = Link(socket, self._uplink, self._to_send, self._tell)
            try:
                await link.run(self._options.patience.connect)
            finally:
                if link.ready:
                    self._connected_last = self._clock.monotonic()
                if link.progressed:
                    self._failures = 0

    async def _tell(self, event: Received) -> None:
        match event:
            case Ack():
                self._uplink.on_ack(event.offset)
                self._to_send.set()
                self._room.set()
            case Utterance() | Insights() if not self._seen.fresh(event):
                return
            case Ready():
                self._seen.begin(event.last_seq)
            case Ended():
                self.ended = event
            case _:
                pass
        await self._events.put(event)

    async def _back_off(self, drop: Dropped) -> None:
        patience = self._options.patience
        self._failures = 0 if drop.planned else self._failures
        delay = drop.after_s + patience.delay(self._failures, self._chance())
        self._failures += 1
        alone = self._clock.monotonic() - self._connected_last
        if patience.give_up_after is not None and alone + delay > patience.give_up_after:
            raise UnreachableError(f"No connection to {self._options.url} for {alone:.0f} s, giving up: {drop}.")
        await self._events.put(Disconnected(reason=str(drop), retry_in_s=delay))
        await self._sleep(delay)
