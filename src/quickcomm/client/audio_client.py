"""Streams a source to a server and survives whatever happens in between.

source → uplink (unacked audio) → link (one connection) → typed events. A connection may break at any time; the next one
resumes with the token, sends again from `next_offset`, and durable events that were heard before are not told twice.
A live source outlasts its conversation: where the server ended that, the client goes on in another one, linked to it.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import msgspec

from quickcomm.client.connecting import Dropped, open_socket
from quickcomm.client.errors import NotAllowedError, ProtocolError, RefusedError, UnauthorizedError, UnreachableError
from quickcomm.client.link import Link
from quickcomm.client.options import StreamOptions
from quickcomm.client.seen import Seen
from quickcomm.client.sources import AudioSource, KeyReleased, Missing, Sleep
from quickcomm.client.uplink import Uplink
from quickcomm.contracts.audio_socket import Ack, AudioFormat, Ended, Insights, Ready, Received, Utterance
from quickcomm.contracts.conversations import Ledger
from quickcomm.kernel.clock import Clock, SystemClock
from quickcomm.kernel.errors import QuickCommError

_EVENTS_HELD: Final = 256
_LEAST_MEMORY_MS: Final = 2_000
_REFUSED_AGAIN_S: Final = 30.0
"""A live source that was welcome before asks again after so long: the site may get back keys that it has lost."""


class Disconnected(msgspec.Struct, frozen=True, kw_only=True):
    """The client's own: the connection is gone and will be tried again in `retry_in_s`."""

    reason: str
    retry_in_s: float


class Continued(msgspec.Struct, frozen=True, kw_only=True):
    """The client's own: the server had ended the conversation of a live source, which goes on in another one."""

    conversation_id: str
    continues: str
    """The one that has ended; `ledger` is its account."""
    ledger: Ledger


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """The client's own: the server has lost `samples` that it had acknowledged, and counts its events from 1 again."""

    samples: int


Event = Received | Disconnected | Continued | Forgotten


def _chance() -> float:
    return secrets.randbelow(1_000_001) / 1_000_000


class AudioClient:
    """One source, once. `async with client.stream() as events: async for event in events: …`."""

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
        self._welcome = False
        self._connected_last = 0.0
        self._finished_at = 0.0
        self.ended: Ended | None = None

    @property
    def format(self) -> AudioFormat:
        return self._source.format

    @property
    def conversation_id(self) -> str:
        """The conversation that the sound goes to now."""
        return self._options.conversation_id

    @property
    def insists(self) -> bool:
        """Whether the source lives: then the client never gives up."""
        return self._source.live and not self._uplink.finished

    @property
    def memory_s(self) -> float:
        """Seconds of sound that are kept at most while no server takes it."""
        return self.format.seconds(self._uplink.memory)

    @property
    def lost(self) -> int:
        """Samples a speaker that were lost because no server took them for too long; each is part of a declared gap."""
        return self._uplink.lost

    @property
    def produced(self) -> int:
        """Samples a speaker that the source has given so far to this conversation, gaps included."""
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

        Where a live source goes on in another conversation, `Continued` is told in place of `Ended`.

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
        block = self._source.format.block_bytes
        rest = b""
        try:
            async for chunk in self._source.chunks():
                self._uplink.live = self._source.live
                if isinstance(chunk, Missing):
                    self._uplink.append_gap(chunk.samples)
                elif isinstance(chunk, KeyReleased):
                    self._uplink.release()
                else:
                    rest += chunk
                    whole = len(rest) - len(rest) % block
                    self._uplink.append(rest[:whole], self._clock.monotonic() if self._source.live else None)
                    rest = rest[whole:]
                self._to_send.set()
                while not self._source.live and not self._uplink.room:
                    self._room.clear()
                    await self._room.wait()
        except QuickCommError as error:
            self._source_failed = error
        self._close_uplink()

    def _close_uplink(self) -> None:
        if not self._uplink.finished:
            self._finished_at = self._clock.monotonic()
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
        try:
            headers = {"Authorization": f"Bearer {self._options.key}"}
            socket = await open_socket(session, address, headers, self._options.patience, self._options.url)
        except (UnauthorizedError, NotAllowedError, RefusedError) as error:
            self._ask_again(error)
            raise
        async with socket:
            link = Link(socket, self._uplink, self._to_send, self._tell, self._clock)
            try:
                await link.run(self._options.patience.connect)
            except (UnauthorizedError, ProtocolError) as error:
                self._ask_again(error)
                raise
            finally:
                if link.ready:
                    self._connected_last = self._clock.monotonic()
                if link.progressed:
                    self._failures = 0
        if self.ended is None:
            raise Dropped("the server ended the conversation")

    def _ask_again(self, error: QuickCommError) -> None:
        """A live source that was welcome before does not take a refusal for good."""
        if self._welcome and self.insists:
            raise Dropped(str(error), after_s=_REFUSED_AGAIN_S) from error

    async def _tell(self, event: Received, _text: str) -> None:
        self._welcome |= isinstance(event, Ready)
        match event:
            case Ready() if event.next_offset < self._uplink.acked or self._seen.is_behind(event.last_seq):
                await self._start_over(max(0, self._uplink.acked - event.next_offset))
            case Ack():
                self._uplink.on_ack(event.offset)
                self._to_send.set()
                self._room.set()
            case Utterance() | Insights() if not self._seen.fresh(event):
                return
            case Ended() if self._goes_on(event):
                await self._go_on(event)
                return
            case Ended():
                self.ended = event
            case _:
                pass
        await self._events.put(event)

    async def _start_over(self, samples: int) -> None:
        """The server has lost what it had acknowledged: its events count from 1 again."""
        self._seen.reset()
        await self._events.put(Forgotten(samples=samples))

    def _goes_on(self, ended: Ended) -> bool:
        """Whether there is, or may come, sound that the conversation which has ended does not have."""
        got = self._received(ended)
        return self._source.live and (not self._uplink.finished or 0 < got < self._uplink.produced)

    def _received(self, ended: Ended) -> int:
        return ended.ledger.received // self.format.speakers

    async def _go_on(self, ended: Ended) -> None:
        """Begin another conversation with what the one that has ended does not have."""
        before = self._options.conversation_id
        self._uplink.begin_anew(self._received(ended))
        self._options = self._options.continued()
        self._seen = Seen()
        self._room.set()
        await self._events.put(
            Continued(conversation_id=self._options.conversation_id, continues=before, ledger=ended.ledger)
        )

    async def _back_off(self, drop: Dropped) -> None:
        patience = self._options.patience
        self._failures = 0 if drop.planned else self._failures
        delay = drop.after_s + patience.delay(self._failures, self._chance())
        self._failures += 1
        alone = self._clock.monotonic() - max(self._connected_last, self._finished_at)
        limit = None if self.insists else patience.give_up_after
        if limit is not None and alone + delay > limit:
            raise UnreachableError(f"No connection to {self._options.url} for {alone:.0f} s, giving up: {drop}.")
        await self._events.put(Disconnected(reason=str(drop), retry_in_s=delay))
        await self._sleep(delay)
