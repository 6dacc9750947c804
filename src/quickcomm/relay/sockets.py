"""The client sockets of a relay process: places, the life of each, and the end of all of them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from quickcomm.audio.ingest.reception import CLOSE_WITHIN_S, BreachError, notice_half_open, ping
from quickcomm.audio.ingest.websocket import SEND_WITHIN_S
from quickcomm.contracts.audio_socket import CloseCode, ErrorReported, Reconnect, ServerEvent
from quickcomm.kernel.errors import BusyError, QuickCommError
from quickcomm.relay.metrics import CLOSED, SOCKETS
from quickcomm.relay.upstream import ClientGoneError, GivenUpError, TurnedAwayError, Upstream, Way

log = structlog.get_logger(__name__)


def text_of(event: ServerEvent) -> str:
    return msgspec.json.encode(event).decode()


DRAINED: Final = text_of(Reconnect(reason="drain", after_ms=0))
GIVEN_UP: Final = text_of(Reconnect(reason="unavailable", after_ms=1_000))


class Farewell(msgspec.Struct, frozen=True):
    """How a client is sent away: a close code, and an event before it."""

    code: int
    last: str | None = None


class Client:
    """The socket of a client, once it is let in. `resumes`: it comes back where it is asked to."""

    def __init__(self, *, resumes: bool, hears: bool = True) -> None:
        """`hears`: events are sent to it."""
        self.resumes = resumes
        self.socket: web.WebSocketResponse | None = None
        self._hears = hears

    def leave(self) -> None:
        """Send nothing more."""
        self._hears = False

    async def tell(self, text: str) -> None:
        """Send an event. Raises `ClientGoneError` where the client, which can resume, is gone."""
        if self.socket is None or not self._hears:
            return
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                await self.socket.send_str(text)
        except (ConnectionError, TimeoutError) as error:
            self.leave()
            if self.resumes:
                raise ClientGoneError("The client is gone.") from error


class Sockets:
    def __init__(self, way: Way) -> None:
        self.way = way
        self._settings = way.settings
        self._taken = 0
        self._open: set[web.WebSocketResponse] = set()
        self._draining = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def count(self) -> int:
        """Return how many clients are connected, or about to be."""
        return self._taken

    @contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place for a client. Raises `BusyError`."""
        if self._draining.is_set():
            raise BusyError("This relay is shutting down; try again in a moment.")
        if self._taken >= self._settings.max_sockets or self.way.held.full:
            raise BusyError("This relay has as many clients, or as much sound, as it may have; try again later.")
        self._taken += 1
        self._empty.clear()
        SOCKETS.set(self._taken)
        try:
            yield
        finally:
            self._taken -= 1
            SOCKETS.set(self._taken)
            if not self._taken:
                self._empty.set()

    @asynccontextmanager
    async def upgraded(self, request: web.Request, most_bytes: int) -> AsyncGenerator[web.WebSocketResponse]:
        """Upgrade a request to a WebSocket whose messages have at most so many bytes."""
        socket = web.WebSocketResponse(max_msg_size=most_bytes, timeout=CLOSE_WITHIN_S, compress=False)
        await socket.prepare(request)
        notice_half_open(request)
        self._open.add(socket)
        try:
            yield socket
        finally:
            self._open.discard(socket)

    async def serve(self, client: Client, upstream: Upstream, listen: Coroutine[Any, Any, None]) -> None:
        """Relay until the conversation has ended or the client has left; then close its socket."""
        running, listening = asyncio.ensure_future(upstream.run()), asyncio.ensure_future(listen)
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            farewell = await self._until_over(client, upstream, (running, listening, draining))
        finally:
            for task in (running, listening, draining):
                task.cancel()
            results = await asyncio.gather(running, listening, draining, return_exceptions=True)
        for error in results:
            if isinstance(error, Exception) and not isinstance(error, QuickCommError | ConnectionError):
                log.error("relay.failed", error=f"{type(error).__name__}: {error}")
        if farewell is not None and client.socket is not None:
            CLOSED.labels(str(farewell.code)).inc()
            if farewell.last is not None:
                await client.tell(farewell.last)
            await client.socket.close(code=farewell.code)

    async def ping_forever(self, every_s: float) -> None:
        """Ping every client each so many seconds, until cancelled."""
        while True:
            await self.way.clock.sleep(every_s)
            await ping(self._open)

    async def drain(self) -> None:
        """Let nobody in, send the clients away, and wait until all of them are gone."""
        self._draining.set()
        with contextlib.suppress(TimeoutError):
            async with self.way.clock.timeout(self._settings.drain_s + self._settings.linger_s + CLOSE_WITHIN_S):
                await self._empty.wait()

    async def aclose(self) -> None:
        """Cut what is left, and let go of the connections to the edge."""
        await asyncio.gather(*(each.close(code=CloseCode.RESTART) for each in self._open), return_exceptions=True)
        await self.way.session.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _until_over(
        self, client: Client, upstream: Upstream, tasks: tuple[asyncio.Future[Any], ...]
    ) -> Farewell | None:
        """Return how the client is sent away; None where it has left."""
        running, listening, draining = tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if draining.done() and not client.resumes:
            stay_s = self._settings.drain_s
            await asyncio.wait((running, listening), timeout=stay_s, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return _farewell(running.exception())
        left = listening.done()
        if left and isinstance(breach := listening.exception(), BreachError):
            return Farewell(breach.close_code, text_of(ErrorReported(code=breach.code, message=str(breach))))
        listening.cancel()
        if left:
            client.leave()
        if not client.resumes:
            await self._deliver(upstream, running)
        if left:
            return None
        if upstream.ended:
            return Farewell(CloseCode.NORMAL)
        if running.done():
            return _farewell(running.exception())
        return Farewell(CloseCode.RESTART, DRAINED) if client.resumes else Farewell(CloseCode.GOING_AWAY)

    async def _deliver(self, upstream: Upstream, running: asyncio.Future[None]) -> None:
        """Have what a client that cannot resume has sent accounted for."""
        delivered = asyncio.ensure_future(upstream.delivered())
        await asyncio.wait((delivered, running), timeout=self._settings.linger_s, return_when=asyncio.FIRST_COMPLETED)
        if not delivered.done():
            log.warning("relay.not_delivered", held_bytes=upstream.held)
        delivered.cancel()


def _farewell(error: BaseException | None) -> Farewell | None:
    match error:
        case None:
            return Farewell(CloseCode.NORMAL)
        case TurnedAwayError():
            return Farewell(error.close_code, error.last)
        case GivenUpError():
            return Farewell(CloseCode.RESTART, GIVEN_UP)
        case ClientGoneError():
            return None
        case _:
            return Farewell(CloseCode.FAILED)
