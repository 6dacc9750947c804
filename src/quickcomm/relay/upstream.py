"""The relay's end towards the owner of a conversation: one connection after another, by the client's own protocol.

Sound stays in the uplink until it is acknowledged. A connection that ends without a reason of the client's is replaced
by the next one, which resumes; what the client has heard already is left out.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlencode

import aiohttp
import msgspec
import structlog
import yarl

from quickcomm.client.connecting import Dropped, open_socket
from quickcomm.client.errors import ProtocolError
from quickcomm.client.link import Link
from quickcomm.client.options import Patience
from quickcomm.client.seen import Seen
from quickcomm.client.uplink import Uplink
from quickcomm.contracts.audio_socket import (
    HELD_BACK_BYTES_S,
    MAX_MESSAGE_MS,
    Ack,
    AudioFormat,
    CloseCode,
    Ended,
    ErrorReported,
    Insights,
    Ready,
    Received,
    Reconnect,
    Utterance,
)
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ForbiddenError, QuickCommError, UnavailableError
from quickcomm.relay.held import Held
from quickcomm.relay.metrics import RESUMED
from quickcomm.relay.settings import RelaySettings

EDGE: Final = "http://edge"
PATIENCE: Final = Patience(first=0.1, longest=2.0)
LEAST_S: Final = 30
"""Sound that a client may have unacknowledged however full the relay is: acks come behind the longest utterance."""
TAIL_S: Final = 1.0
"""So much at the end may be acknowledged only when more sound comes, or the conversation ends."""
TELL_EVERY_S: Final = 1.0
SETTLE_S: Final = 3.0
"""So long after the last ack there comes none any more for the tail."""

log = structlog.get_logger(__name__)


class ClientGoneError(QuickCommError):
    """The client takes nothing any more."""

    code = "relay.client_gone"


class GivenUpError(UnavailableError):
    """No process has taken the conversation for too long."""

    code = "relay.given_up"


class TurnedAwayError(ForbiddenError):
    """The owner refuses the client: `last` is the text of its last event, if there is one."""

    code = "relay.turned_away"

    def __init__(self, close_code: int, last: str | None) -> None:
        super().__init__(f"Closed with {close_code}.")
        self.close_code = close_code
        self.last = last


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for, as it goes upstream."""

    conversation_id: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """With the credential of the client."""
    format: AudioFormat
    token: str
    after_seq: int = 0


class Resumed(msgspec.Struct):
    """How many conversations were resumed upstream since that was last told."""

    count: int = 0

    def add(self) -> None:
        self.count += 1

    async def tell_forever(self, clock: Clock) -> None:
        """Log it at most once a second, until cancelled: a move resumes thousands."""
        while True:
            await clock.sleep(TELL_EVERY_S)
            if self.count:
                log.info("conversations.resumed", count=self.count)
                self.count = 0


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """What all connections of a relay process share."""

    session: aiohttp.ClientSession
    held: Held
    settings: RelaySettings
    clock: Clock
    resumed: Resumed


class Upstream:
    """One conversation. `tell` gets the text of each event that the client shall have."""

    def __init__(self, call: Call, way: Way, tell: Callable[[str], Awaitable[None]]) -> None:
        self._call = call
        self._way = way
        self._tell = tell
        self._uplink = Uplink(call.format, message_ms=MAX_MESSAGE_MS, eager=True)
        self._seen = Seen(call.after_seq)
        self._to_send = asyncio.Event()
        self._moved = asyncio.Event()
        """Set with each ack, and when there is room again."""
        self._first: aiohttp.ClientWebSocketResponse | None = None
        self._held = 0
        self._told_ack = -1
        self._after = ""
        """What ended the last connection; empty before the first."""
        self._error: str | None = None
        self._failures = 0
        self._connection = 0
        self._connected_last = way.clock.monotonic()
        self._ahead_s: float | None = None
        self._captured: tuple[int, float] | None = None
        self.next_offset: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Where the client's sound begins, once the owner has said it."""
        self.ended = False
        self._over = False

    @property
    def held(self) -> int:
        """Return the bytes that are held for this client."""
        return self._held

    @property
    def finished(self) -> bool:
        """Return True if the client has sent everything."""
        return self._uplink.finished

    # -- what the client sends --------------------------------------------------------------------------------------

    def sound(self, pcm: bytes) -> None:
        """Take whole samples of every speaker."""
        samples = len(pcm) // self._call.format.block_bytes
        at: float | None = None
        if self._captured is not None:
            offset, captured_at = self._captured
            at = captured_at + self._call.format.seconds(self._uplink.produced + samples - offset)
        self._uplink.append(pcm, at)
        self._changed()

    def skip(self, samples: int) -> None:
        self._uplink.append_gap(samples)
        self._changed()

    def flush(self, offset: int) -> None:
        self._uplink.release(offset)
        self._changed()

    def captured(self, offset: int, at_ms: int) -> None:
        """Date the sample at `offset` by the client's word; sound sent again is dated by it, too."""
        if self._ahead_s is not None:
            self._captured = offset, at_ms / 1_000 - self._ahead_s

    def end(self) -> None:
        self._uplink.finish()
        self._changed()

    async def room(self, taken: int) -> None:
        """Wait until the client may send more; while there is memory, its `taken` bytes are only read slowly.

        Its pings lie behind its sound.
        """
        least = self._call.format.samples(LEAST_S * 1_000) * self._call.format.block_bytes
        held, clock = self._way.held, self._way.clock
        until = clock.monotonic() + taken / HELD_BACK_BYTES_S
        with held.woken(self._moved):
            while not held.has_room(self._held, least) and (held.full or clock.monotonic() < until):
                self._moved.clear()
                with contextlib.suppress(TimeoutError):
                    async with clock.timeout(None if held.full else until - clock.monotonic()):
                        await self._moved.wait()

    async def delivered(self) -> None:
        """Wait until everything is acknowledged; after `end`, until the conversation has ended.

        The tail is not waited for without end, but its owner has it, and has had some time to die.
        """
        tail = self._call.format.samples(TAIL_S * 1_000)
        while not self.ended and (self._uplink.finished or self._uplink.unacked > self._call.format.frame):
            self._moved.clear()
            connection = self._connection
            if self._unsent or self._uplink.finished or self._uplink.unacked > tail:
                await self._moved.wait()
                continue
            await self._way.clock.sleep(SETTLE_S)
            if connection == self._connection and not self._moved.is_set():
                return

    # -- the owner --------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect for the first time, before the client is let in. Raises `Dropped`, or why the owner refuses it."""
        self._first = await self._connect()

    async def run(self) -> None:
        """Stay connected until the conversation has ended.

        Raises `TurnedAwayError`, `GivenUpError`, and what `tell` raises.
        """
        try:
            while not self.ended:
                try:
                    await self._converse()
                except Dropped as drop:
                    await self._back_off(drop)
        finally:
            self._over = True
            self._way.held.change(-self._held)
            self._held = 0

    async def aclose(self) -> None:
        """Close a connection that `run` has not taken."""
        if self._first is not None:
            await self._first.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    @property
    def _unsent(self) -> bool:
        return self._uplink.position < self._uplink.produced

    async def _converse(self) -> None:
        """Serve one connection. Raises `Dropped` for one that is to be replaced."""
        socket, self._first = self._first or await self._again(), None
        async with socket:
            link = Link(socket, self._uplink, self._to_send, self._hear, self._way.clock)
            try:
                await link.run(PATIENCE.connect)
            except ClientGoneError:
                raise
            except ProtocolError as error:
                raise Dropped(str(error)) from error
            except QuickCommError as error:
                raise TurnedAwayError(socket.close_code or CloseCode.POLICY, self._error) from error
            finally:
                if link.ready:
                    self._connected_last = self._way.clock.monotonic()
                if link.progressed:
                    self._failures = 0

    async def _again(self) -> aiohttp.ClientWebSocketResponse:
        try:
            return await self._connect()
        except QuickCommError as error:
            refused = ErrorReported(code=error.code, message="The server does not let this client come back.")
            raise TurnedAwayError(CloseCode.POLICY, msgspec.json.encode(refused).decode()) from error

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        query = {**self._call.query, "resume_token": self._call.token, "after_seq": str(self._seen.after_seq)}
        address = yarl.URL(f"{EDGE}{self._call.path}?{urlencode(query)}", encoded=True)
        return await open_socket(self._way.session, address, self._call.headers, PATIENCE, EDGE)

    async def _hear(self, event: Received, text: str) -> None:
        match event:
            case Ready():
                await self._begin(event, text)
            case Ack():
                self._uplink.on_ack(event.offset)
                self._changed()
                if event.offset > self._told_ack:
                    self._told_ack = event.offset
                    await self._tell(text)
            case Utterance() | Insights() if not self._seen.fresh(event):
                pass
            case Reconnect():
                self._after = "reconnect"
            case ErrorReported():
                self._error = text  # it is the client's only where it does not help to come again
            case Ended():
                await self._tell(text)
                self.ended = True
                self._moved.set()
            case _:
                await self._tell(text)

    async def _begin(self, ready: Ready, text: str) -> None:
        """Tell the client where it begins, once; then the owner is told what the client has."""
        self._error = None
        if not self.next_offset.done():
            self._uplink.begin_at(ready.next_offset)
            if ready.now_ms is not None:
                self._ahead_s = ready.now_ms / 1_000 - self._way.clock.monotonic()
            await self._tell(text)
            self.next_offset.set_result(ready.next_offset)
            return
        if self._seen.is_behind(ready.last_seq):
            self._seen.reset()  # the site has lost its store: events count from 1 again
            self._told_ack = -1
        RESUMED.labels(self._after or "break").inc()
        self._way.resumed.add()
        log.debug("conversation.resumed", conversation_id=self._call.conversation_id, after=self._after or "break")
        self._after = ""

    def _changed(self) -> None:
        """Send what there is, and count what is held."""
        if self._over:
            return
        held = self._uplink.held_bytes
        self._way.held.change(held - self._held)
        self._held = held
        self._to_send.set()
        self._moved.set()

    async def _back_off(self, drop: Dropped) -> None:
        self._connection += 1
        self._failures = 0 if drop.planned else self._failures
        delay = drop.after_s + PATIENCE.delay(self._failures, secrets.randbelow(1_001) / 1_000)
        self._failures += 1
        if self._way.clock.monotonic() - self._connected_last + delay > self._way.settings.give_up_s:
            raise GivenUpError(f"No process has taken the conversation for too long: {drop}.")
        log.debug("upstream.dropped", conversation_id=self._call.conversation_id, reason=str(drop))
        await self._way.clock.sleep(delay)
