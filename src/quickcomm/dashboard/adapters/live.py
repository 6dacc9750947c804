"""`WS /v1/live`: replays what a page has missed, then sends it what happens; hears what it watches and has painted."""

import asyncio
from contextlib import suppress
from typing import Annotated, Final, NamedTuple

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from quickcomm import __version__
from quickcomm.dashboard.adapters.hub import (
    TOO_SLOW,
    CardEvent,
    CardsEvent,
    ErrorEvent,
    HelloEvent,
    Hub,
    LiveEvent,
    ReplayedEvent,
    ResetEvent,
    Subscriber,
    text_of,
)
from quickcomm.dashboard.adapters.parameters import after as after_of
from quickcomm.dashboard.adapters.parameters import integer
from quickcomm.dashboard.model.places import After
from quickcomm.dashboard.ports import Commands, DashboardSettings, HealthProvider, Queries
from quickcomm.dashboard.service.standing import Standing
from quickcomm.kernel.errors import MALFORMED, BusyError, QuickCommError
from quickcomm.kernel.keys import Authenticator, Principal
from quickcomm.kernel.keys.auth import credential_of

MAX_MESSAGE_BYTES: Final = 16 * 1024
HEARTBEAT_S: Final = 20.0
LOOK_EVERY_S: Final = 0.5
CLOSE_TIMEOUT_S: Final = 2.0
MAX_ERRORS: Final = 20
MAX_BATCH: Final = 100
IN_A_ROW: Final = 25
"""Cards of a replay that are written before anything else has its turn."""

log = structlog.get_logger(__name__)


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    """Which channels' captions are wanted; `*` for all. Cards always come."""

    channels: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=200)], ...], msgspec.Meta(max_length=500)]


class Painted(msgspec.Struct, frozen=True, tag="painted"):
    """A card is on the screen."""

    utterance_id: Annotated[str, msgspec.Meta(max_length=200)]
    revision: int
    painted_ms: Annotated[float, msgspec.Meta(ge=0, le=3_600_000)]


_decoder = msgspec.json.Decoder(Watch | Painted)


class _Wanted(NamedTuple):
    """A client's replay: the changes after `after`, with up to `batch` cards a message; None: one card a message."""

    after: After | None
    batch: int | None


class Present(NamedTuple):
    """A connected client, and what it signed in with."""

    principal: Principal
    credential: str


class LiveFeed:
    def __init__(
        self,
        hub: Hub,
        queries: Queries,
        commands: Commands,
        auth: Authenticator,
        health: HealthProvider,
        settings: DashboardSettings,
        standing: Standing,
    ) -> None:
        self._hub = hub
        self._standing = standing
        self._queries = queries
        self._commands = commands
        self._auth = auth
        self._health = health
        self._settings = settings
        self._present: dict[Subscriber, Present] = {}
        self._closing = False

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        principal = await self._auth.require(request, "read")
        after = self._standing.counted(after_of(request.query))
        batch = integer(request.query, "batch", low=1, high=MAX_BATCH)
        if self._hub.full or self._closing:
            raise BusyError("Too many pages are connected; try again in a moment.")
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, compress=False, timeout=CLOSE_TIMEOUT_S
        )
        subscriber = self._hub.join(principal.site)  # before the replay is read, so that nothing falls in between
        self._present[subscriber] = Present(principal, credential_of(request))
        try:
            await socket.prepare(request)
            await self._serve(socket, request.transport, subscriber, _Wanted(after, batch))
        finally:
            self._hub.leave(subscriber)
            del self._present[subscriber]
        return socket

    async def broadcast_health(self) -> None:
        """Tell how the system is until cancelled: every two seconds, and soon after an alarm has come or gone."""
        every_s, codes, waited_s = self._settings.health_every_s, frozenset[str](), 0.0
        step_s = min(LOOK_EVERY_S, every_s)
        while True:
            await asyncio.sleep(step_s)
            waited_s += step_s
            self._hub.tend()
            if self._hub.empty:
                continue
            health = self._health()
            found = frozenset(alarm.code for alarm in health.alarms)
            if found != codes or waited_s >= every_s:
                self._hub.health(health)
                codes, waited_s = found, 0.0

    async def check_welcome(self) -> None:
        """Send away who is no longer welcome, until cancelled. A store that does not answer keeps nobody waiting."""
        while True:
            await asyncio.sleep(self._settings.health_every_s)
            await self._check_welcome()

    async def send_away(self) -> None:
        """Send pages to the other side that serves them now, until cancelled; there they are given what they lack."""
        changed = asyncio.Event()

        async def look() -> None:
            changed.set()

        self._standing.routes.on_change(look)
        while True:
            for subscriber, present in self._present.items():
                if self._standing.sends_away(present.credential):
                    subscriber.dismiss(
                        WSCloseCode.SERVICE_RESTART, "Another server shows this page now; connect again."
                    )
            await changed.wait()
            changed.clear()

    async def close(self) -> None:
        """Send everybody away; they come back to whoever is there then."""
        self._closing = True
        for subscriber in self._present:
            subscriber.dismiss(WSCloseCode.GOING_AWAY, "The server is stopping.")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.live_send_timeout_s + 2 * CLOSE_TIMEOUT_S):
                await self._hub.vacated()

    async def _check_welcome(self) -> None:
        for subscriber, present in list(self._present.items()):
            try:
                welcome = await self._auth.keys.still_valid(present.principal)
            except QuickCommError:
                continue  # the database is in trouble; that alone is no reason to send people away
            if not welcome:
                subscriber.dismiss(WSCloseCode.POLICY_VIOLATION, "The key was revoked or the session has ended.")

    async def _serve(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        subscriber: Subscriber,
        wanted: _Wanted,
    ) -> None:
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._send(socket, transport, subscriber, wanted), name="live:send")
            errors = 0
            async for message in socket:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    continue
                if not self._hear(self._present[subscriber].principal, subscriber, message.data):
                    errors += 1
                    subscriber.put(text_of(ErrorEvent("live.malformed", "This message was not understood.")))
                if errors == MAX_ERRORS:
                    subscriber.dismiss(WSCloseCode.POLICY_VIOLATION, "Too many malformed messages.")
            sender.cancel()

    def _hear(self, principal: Principal, subscriber: Subscriber, data: str | bytes) -> bool:
        try:
            message = _decoder.decode(data)
        except MALFORMED:
            return False
        if isinstance(message, Watch):
            self._hub.watch(subscriber, frozenset(message.channels))
        # Before it is classified it is shown without being done: that is no stage of its way.
        elif message.revision and subscriber.paints.counts(message.utterance_id):
            self._commands.painted(principal.site, message.utterance_id, message.painted_ms)
        return True

    async def _send(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        subscriber: Subscriber,
        wanted: _Wanted,
    ) -> None:
        """Send until the client goes or must go. Nobody else closes the socket."""
        clean = False
        try:
            await self._replay(socket, subscriber, self._present[subscriber].principal, wanted)
            while (text := await subscriber.get()) is not None:
                async with asyncio.timeout(self._settings.live_send_timeout_s):
                    await socket.send_str(text)
            code, reason = subscriber.farewell or TOO_SLOW
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await socket.close(code=code, message=reason.encode())
            clean = True
        except (ConnectionError, TimeoutError):
            log.info("live.client_lost")
        except QuickCommError as error:
            log.warning("live.replay_failed", error=str(error))
        finally:
            # Whoever does not read cannot hear a farewell either. Not left to `close`: after a send that timed out, its
            # wait for the socket to drain ends at once as if cancelled, and what is buffered would be waited for.
            task = asyncio.current_task()
            if not clean and transport is not None and task is not None and not task.cancelling():
                transport.abort()

    async def _replay(
        self, socket: web.WebSocketResponse, subscriber: Subscriber, principal: Principal, wanted: _Wanted
    ) -> None:
        board = self._settings.board
        replay = await self._queries.replay(principal.site, wanted.after, self._settings.replay, board)
        subscriber.baseline = replay.change
        health = self._health()
        hello = HelloEvent(
            version=__version__,
            site=principal.site,
            role=principal.role,
            side=replay.side,
            change=replay.change,
            reset=replay.reset,
            classifier=health.classifier,
            health=health,
            conversations=replay.conversations,
            board=board,
        )
        await self._say(socket, hello)
        if replay.foreign and wanted.after is not None and wanted.after.side is not None:
            await self._say(socket, ResetEvent())
        for start in range(0, len(replay.cards), wanted.batch or IN_A_ROW):
            cards = replay.cards[start : start + (wanted.batch or IN_A_ROW)]
            for event in [CardsEvent(cards)] if wanted.batch else map(CardEvent, cards):
                await self._say(socket, event)
            await asyncio.sleep(0)  # a socket that takes all of it at once must not hold up the others
        await self._say(socket, ReplayedEvent(change=replay.change, left_out=replay.left_out))

    async def _say(self, socket: web.WebSocketResponse, event: LiveEvent) -> None:
        """Raise `TimeoutError` where the client takes nothing: a slow one may have all the time that it needs."""
        async with asyncio.timeout(self._settings.live_send_timeout_s):
            await socket.send_str(text_of(event))
