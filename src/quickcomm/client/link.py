"""One connection: sends what the uplink has, hears what the server says, until it ends or breaks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final

import aiohttp
import msgspec

from quickcomm.client.connecting import Dropped, closed
from quickcomm.client.errors import ProtocolError
from quickcomm.client.uplink import CapturedAt, Uplink
from quickcomm.contracts.audio_socket import (
    Ack,
    Captured,
    Control,
    Ended,
    ErrorReported,
    Insights,
    Ready,
    Received,
    Reconnect,
    Utterance,
    decode_event,
)
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED, QuickCommError

_LAST_WORDS_S: Final = 2.0


class Link:
    """`tell` is awaited for each event in turn, with its text; while it waits, the socket is not read."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        uplink: Uplink,
        to_send: asyncio.Event,
        tell: Callable[[Received, str], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._socket = socket
        self._uplink = uplink
        self._to_send = to_send
        self._tell = tell
        self._clock = clock
        self._ahead_ms: float | None = None
        """How far the server's clock is ahead of ours; None where it does not take our word for times."""
        self._error: ErrorReported | None = None
        self._moving: Reconnect | None = None
        self._sender: asyncio.Task[None] | None = None
        self._ended = False
        self.ready = False
        self.progressed = False

    async def run(self, ready_within_s: float) -> None:
        """Returns after `ended`; raises `Dropped` or what the server's refusal means."""
        failed: QuickCommError | None = None
        async with asyncio.TaskGroup() as tasks:
            try:
                async with asyncio.timeout(ready_within_s) as deadline:
                    await self._hear(tasks, deadline)
            except TimeoutError:
                pass  # No `ready`, or no close after `reconnect`: both count as a drop.
            except QuickCommError as error:
                failed = error  # Raised outside the group, which would wrap it.
            finally:
                self._stop_sending()
        if failed is not None:
            raise failed
        if not self._ended:
            raise self._why()

    async def _hear(self, tasks: asyncio.TaskGroup, deadline: asyncio.Timeout) -> None:
        async for text in self._messages():
            event = parse(text)
            self._note(event)
            await self._tell(event, text)
            match event:
                case Ready() if self._sender is None:
                    deadline.reschedule(None)
                    self._sender = tasks.create_task(self._send(event))
                case Reconnect():
                    # What it has said or acked before it closes is still worth hearing.
                    deadline.reschedule(asyncio.get_running_loop().time() + _LAST_WORDS_S)
                    self._stop_sending()
                case Ended():
                    return
                case _:
                    pass

    def _stop_sending(self) -> None:
        if self._sender is not None:
            self._sender.cancel()

    async def _messages(self) -> AsyncIterator[str]:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.ERROR:
                return
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise ProtocolError("The server sent something that is no text; is this a QuickComm server?")
            yield message.data

    def _note(self, event: Received) -> None:
        match event:
            case Ready():
                self.ready = True
                if event.now_ms is not None:
                    self._ahead_ms = event.now_ms - self._clock.monotonic() * 1_000
            case Ack() | Utterance() | Insights():
                self.progressed = True
            case ErrorReported():
                self._error = event
            case Reconnect():
                self._moving = event
            case Ended():
                self._ended = True
            case _:
                pass

    async def _send(self, ready: Ready) -> None:
        self._uplink.on_ready(ready.next_offset, ready.max_unacked_ms)
        # A broken connection is the receiver's to report: it may still hold what the server said last.
        with suppress(ConnectionError):
            while True:
                self._to_send.clear()
                while (message := self._uplink.next_message()) is not None:
                    if isinstance(message, bytes):
                        await self._socket.send_bytes(message)
                    elif isinstance(message, CapturedAt):
                        await self._say_when(message)
                    else:
                        await self._say(message)
                await self._to_send.wait()

    async def _say(self, message: Control) -> None:
        await self._socket.send_str(msgspec.json.encode(message).decode())

    async def _say_when(self, captured: CapturedAt) -> None:
        if self._ahead_ms is not None:
            at_ms = round(captured.at * 1_000 + self._ahead_ms)
            await self._say(Captured(offset=captured.offset, at_ms=at_ms))

    def _why(self) -> QuickCommError | Dropped:
        if self._moving is not None:
            reason = self._moving.reason or "the server asked to connect again"
            return Dropped(reason, after_s=self._moving.after_ms / 1_000, planned=True)
        if not self.ready and self._error is None and not self._socket.closed:
            return Dropped("the server said nothing")
        return closed(self._socket.close_code, self._error)


def parse(message: str) -> Received:
    """Read a text message of the server. Raises `ProtocolError` for what is not an event at all."""
    try:
        return decode_event(message)
    except MALFORMED as error:
        # Not the message itself: it may hold what somebody said.
        raise ProtocolError(f"The server sent a message that is no valid event: {error}") from error
