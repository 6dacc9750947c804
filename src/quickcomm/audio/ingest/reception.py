"""Lets the connections of every ingest in: places, limits a key, presence, revoked keys, half-open sockets, the end."""

import asyncio
import re
import socket as socket_module
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import structlog
from aiohttp import web

from quickcomm.audio.ingest.caller import Caller
from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.ports import OpenRequest
from quickcomm.audio.service.admission import OverloadedError, Source
from quickcomm.audio.service.manager import FullError, Manager, Session
from quickcomm.audio.service.outlet import Outlet
from quickcomm.audio.service.overflow import Overflow
from quickcomm.audio.service.share import ElsewhereError, LedBackError, Share
from quickcomm.contracts.audio_socket import CONVERSATION_ID, CloseCode, ErrorReported
from quickcomm.contracts.routes import HEADER
from quickcomm.kernel.errors import BusyError, QuickCommError
from quickcomm.kernel.http.problems import problem
from quickcomm.kernel.keys.auth import is_websocket

KEEPALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""Half-open connections are found by TCP itself, within 30 s: a WebSocket ping would go unanswered while this process,
for back-pressure, does not read."""
RECEIVE_BYTES: Final = 256 * 1024
"""Eight seconds of sound at 16 kHz. The system would make room for 6 MB, behind which a client's ping would wait."""
CLOSE_WITHIN_S: Final = 5.0
VERSION: Final = re.compile(r"[0-9]{1,15}")
RETRY_AFTER_S: Final = "2"
OVERLOADED_AFTER_S: Final = "10"
"""A backlog of more than five seconds does not go sooner."""
ELSEWHERE_AFTER_S: Final = "1"
AT_ONCE_S: Final = "0"
ASK_AGAIN_S: Final = 2.0

log = structlog.get_logger(__name__)


class BreachError(QuickCommError):
    """A client has broken its protocol; the connection is closed with `close_code`."""

    def __init__(self, close_code: CloseCode, code: str, message: str) -> None:
        super().__init__(message)
        self.close_code = close_code
        self.code = code


class Reception:
    def __init__(
        self, manager: Manager, language: str = "en", share: Share | None = None, overflow: Overflow | None = None
    ) -> None:
        """`language`: of the engine. `share`: of the conversations; None: all of them.

        `overflow`: what takes conversations for which there is no room; None: nothing.
        """
        self.language = language
        self._manager = manager
        self._share = share or Share()
        self._overflow = overflow
        self._connections: Counter[str] = Counter()
        self._sockets: set[web.WebSocketResponse] = set()
        self._present: dict[Outlet, Caller] = {}

    @property
    def settings(self) -> AudioSettings:
        return self._manager.settings

    async def check_side(self, request: web.Request, conversation_id: str, channel: str) -> None:
        """Raise `ElsewhereError` where the other side has to let this client in."""
        if CONVERSATION_ID.fullmatch(conversation_id):  # else it is refused as it is
            await self._share.check(conversation_id, _sent_by(request), channel)

    async def refusal(self, error: QuickCommError, conversation_id: str, channel: str) -> QuickCommError:
        """Return why a client is refused: `LedBackError` where the other side takes what has no room here."""
        full = isinstance(error, FullError | OverloadedError) and CONVERSATION_ID.fullmatch(conversation_id)
        if full and self._overflow is not None and await self._overflow.leads_back(conversation_id, channel):
            return LedBackError("There is no room here. The other side has it: connect again.")
        return error

    async def check_open(self, request: web.Request) -> None:
        """Raise `BusyError` where no further conversation can be taken, whatever its id will be."""
        await self._share.check_any(_sent_by(request))
        with self._manager.expecting(("", "")):
            pass

    def own_id(self, name: str) -> str:
        """Return an id for a new conversation of this side: the name, or one that begins with it."""
        return self._share.own_id(name)

    @asynccontextmanager
    async def place(self, caller: Caller, channel: str, conversation_id: str) -> AsyncGenerator[None]:
        """Keep a place for a conversation and its connection; those on their way count each other.

        Raises `BusyError` where there is none, `OverloadedError` where speech-to-text is too far behind.
        """
        source = Source(site=caller.site, key_id=caller.key_id, channel=channel)
        await self._manager.admit(source, conversation_id)
        with self._counted(caller), self._manager.expecting((caller.site, conversation_id)):
            yield

    @asynccontextmanager
    async def upgraded(self, request: web.Request, most_bytes: int) -> AsyncGenerator[web.WebSocketResponse]:
        """Upgrade a request to a WebSocket whose messages have at most so many bytes."""
        socket = web.WebSocketResponse(max_msg_size=most_bytes, timeout=CLOSE_WITHIN_S, compress=False)
        await socket.prepare(request)
        notice_half_open(request)
        self._sockets.add(socket)
        try:
            yield socket
        finally:
            self._sockets.discard(socket)

    @asynccontextmanager
    async def session(self, caller: Caller, wanted: OpenRequest, after_seq: int = 0) -> AsyncGenerator[Session]:
        """Open, resume or take over a conversation. Raises what `Manager.open` raises."""
        session = await self._manager.open(wanted, after_seq)
        self._present[session.outlet] = caller
        source = Source(site=caller.site, key_id=caller.key_id, channel=wanted.channel)
        try:
            with self._manager.admission.present(source, session.conversation):
                yield session
        except (ConnectionError, TimeoutError):
            pass  # the client is gone; what was acknowledged stays true
        finally:
            self._present.pop(session.outlet, None)
            await asyncio.shield(self._manager.dropped(session))

    async def ping_forever(self) -> None:
        """Ping every client now and then, until cancelled: proxies cut connections over which nothing goes."""
        while True:
            await asyncio.sleep(self.settings.ping_every_s)
            await ping(self._sockets)

    async def check_forever(self) -> None:
        """Close the streams of keys that were revoked."""
        while True:
            await asyncio.sleep(ASK_AGAIN_S)
            for caller in {caller.key_id: caller for caller in self._present.values()}.values():
                try:
                    if not await caller.still_valid():
                        self._turn_away(caller.key_id)
                except QuickCommError as error:  # the database is in trouble; that alone is no reason to turn away
                    log.warning("audio_socket.key_not_checked", error=str(error))

    async def aclose(self) -> None:
        """Wait a little for closing handshakes, then cut what is left."""
        sockets = list(self._sockets)
        await asyncio.gather(*(socket.close(code=CloseCode.RESTART) for socket in sockets), return_exceptions=True)

    @contextmanager
    def _counted(self, caller: Caller) -> Iterator[None]:
        if self._connections[caller.key_id] >= self.settings.max_sessions_per_key:
            raise BusyError("This key has as many conversations open as it may have.")
        self._connections[caller.key_id] += 1
        try:
            yield
        finally:
            self._connections[caller.key_id] -= 1
            if not self._connections[caller.key_id]:
                del self._connections[caller.key_id]

    def _turn_away(self, key_id: str) -> None:
        for outlet, caller in self._present.items():
            if caller.key_id == key_id:
                outlet.close(EndReason.REVOKED)


async def converse(
    outlet: Outlet, speak: Coroutine[Any, Any, None], listen: Coroutine[Any, Any, None]
) -> EndReason | BreachError | None:
    """Speak and listen until one side is done; return why the server ends it, None where the client has left."""
    breach: BreachError | None = None
    speaking, listening = asyncio.ensure_future(speak), asyncio.ensure_future(listen)
    try:
        await asyncio.wait((speaking, listening), return_when=asyncio.FIRST_COMPLETED)
        if listening.done() and not speaking.done() and isinstance(error := listening.exception(), BreachError):
            breach = error
            outlet.close(EndReason.REFUSED, ErrorReported(code=error.code, message=str(error)))
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await speaking
    finally:
        for task in (speaking, listening):
            task.cancel()
        results = await asyncio.gather(speaking, listening, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(
                result, QuickCommError | ConnectionError | TimeoutError
            ):
                log.error("audio_socket.failed", error=f"{type(result).__name__}: {result}")
    if results[0] is not None:
        return None
    return breach if outlet.ended_by is EndReason.REFUSED else outlet.ended_by


async def ping(sockets: Iterable[web.WebSocketResponse]) -> None:
    """Ping clients. None is missed that does not answer: TCP finds out which ones are gone."""

    async def one(socket: web.WebSocketResponse) -> None:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await socket.ping()

    await asyncio.gather(*(one(socket) for socket in list(sockets)), return_exceptions=True)


def not_websocket(request: web.Request) -> web.Response | None:
    """Return the answer to a request that asks for no WebSocket; None for one that does."""
    if is_websocket(request):
        return None
    return problem(426, "audio.not_websocket", "Connect with a WebSocket.", headers={"Upgrade": "websocket"})


def refused(error: QuickCommError) -> web.Response:
    """Return the answer before the upgrade where there is no place."""
    after_s = OVERLOADED_AFTER_S if isinstance(error, OverloadedError) else RETRY_AFTER_S
    after_s = ELSEWHERE_AFTER_S if isinstance(error, ElsewhereError) else after_s
    after_s = AT_ONCE_S if isinstance(error, LedBackError) else after_s
    return problem(503, error.code, error.for_clients(), headers={"Retry-After": after_s})


def _sent_by(request: web.Request) -> int | None:
    """Return the version of the routes by which the edge has chosen this side; None where no edge was asked."""
    version = request.headers.get(HEADER, "")
    return int(version) if VERSION.fullmatch(version) else None


def notice_half_open(request: web.Request) -> None:
    """Have TCP find out that the client of a connection has vanished, and keep little of its sound."""
    link = request.transport.get_extra_info("socket") if request.transport is not None else None
    if link is None or link.family not in {socket_module.AF_INET, socket_module.AF_INET6}:
        return
    link.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_KEEPALIVE, 1)
    link.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_RCVBUF, RECEIVE_BYTES)
    for name, value in KEEPALIVE.items():
        if hasattr(socket_module, name):  # not on every system
            link.setsockopt(socket_module.IPPROTO_TCP, getattr(socket_module, name), value)
