"""`WS /v1/conversations/{conversation_id}/audio`: the audio socket of the outer contract, on aiohttp."""

import asyncio
import socket as socket_module
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import structlog
from aiohttp import WSMessage, WSMsgType, web

from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.model.formats import parse_channel, parse_conversation_id, parse_format
from quickcomm.audio.ports import OpenRequest
from quickcomm.audio.service.admission import OverloadedError, Source
from quickcomm.audio.service.manager import Manager, Session
from quickcomm.audio.service.outlet import Outlet
from quickcomm.contracts.audio_socket import (
    Captured,
    ClientControl,
    CloseCode,
    End,
    ErrorReported,
    Flush,
    ServerEvent,
    Skip,
    decode_control,
)
from quickcomm.kernel.errors import (
    MALFORMED,
    BusyError,
    ForbiddenError,
    InvalidInputError,
    QuickCommError,
)

PATH: Final = "/v1/conversations/{conversation_id}/audio"
KEEPALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""Half-open connections are found by TCP itself, within 30 s: a WebSocket ping would go unanswered while we, for
back-pressure, do not read."""
CLOSE_WITHIN_S: Final = 5.0
SEND_WITHIN_S: Final = 60.0
"""A client that takes nothing for so long is gone; what it did not hear it hears when it comes back."""
MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
"""Far above the second of sound that is allowed, so that who sends too much is told why; beyond, it is just closed."""
MAX_TEXT: Final = 4_096
KNOWN: Final = (
    'Known: {"type":"skip","samples":N}, {"type":"flush","offset":N}, {"type":"captured","offset":N,"at_ms":T} and'
    ' {"type":"end"}; sound goes in binary messages.'
)
MAX_SKIP: Final = 10**12
NS_PER_MS: Final = 1_000_000
RETRY_AFTER_S: Final = "2"
OVERLOADED_AFTER_S: Final = "10"
"""A backlog of more than five seconds does not go sooner."""
ASK_AGAIN_S: Final = 2.0
DEFAULT_CHANNEL: Final = "main"

log = structlog.get_logger(__name__)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the door, as the key says."""

    site: str
    key_id: str
    still_valid: Callable[[], Awaitable[bool]]
    """Ask again: a stream lives longer than many a key."""


Authenticate = Callable[[web.Request], Awaitable[Caller]]
"""Raises an aiohttp HTTP error where the request may not send audio."""


ENDINGS: Final[dict[EndReason, tuple[CloseCode, ErrorReported | None]]] = {
    EndReason.ENDED: (CloseCode.NORMAL, None),
    EndReason.DRAINED: (CloseCode.RESTART, None),
    EndReason.SUPERSEDED: (
        CloseCode.POLICY,
        ErrorReported(code="audio.superseded", message="Another connection has taken over this conversation."),
    ),
    EndReason.REVOKED: (CloseCode.POLICY, ErrorReported(code="audio.key_revoked", message="This key was revoked.")),
    EndReason.FENCED: (
        CloseCode.RESTART,
        ErrorReported(
            code="audio.fenced",
            message="This conversation is served elsewhere by now; connect again.",
            retryable=True,
        ),
    ),
    EndReason.FAILED: (
        CloseCode.FAILED,
        ErrorReported(code="audio.failed", message="The sound could not be processed.", retryable=True),
    ),
}
"""The close code of each end, and the error before it where the conversation has not sent a last event itself."""


class _ClientError(QuickCommError):
    """A breach of the protocol; the connection is closed with `close_code`."""

    def __init__(self, close_code: CloseCode, code: str, message: str) -> None:
        super().__init__(message)
        self.close_code = close_code
        self.code = code


class AudioSocket:
    def __init__(self, manager: Manager, authenticate: Authenticate) -> None:
        self._manager = manager
        self._authenticate = authenticate
        self._connections: Counter[str] = Counter()
        self._sockets: set[web.WebSocketResponse] = set()
        self._present: dict[Outlet, Caller] = {}

    def routes(self) -> list[web.RouteDef]:
        return [web.get(PATH, self.handle)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        caller = await self._authenticate(request)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            problem = {"type": "about:blank", "title": "Upgrade Required", "status": 426, "code": "audio.not_websocket"}
            return web.json_response(
                problem, status=426, headers={"Upgrade": "websocket"}, content_type="application/problem+json"
            )
        conversation_id = request.match_info["conversation_id"]
        channel = request.query.get("channel", "").strip() or DEFAULT_CHANNEL
        source = Source(site=caller.site, key_id=caller.key_id, channel=channel)
        try:
            await self._manager.admit(source, conversation_id)
            with self._counted(caller), self._manager.expecting((caller.site, conversation_id)):
                return await self._admit(request, caller, source)
        except QuickCommError as error:
            return _busy(error)

    async def _admit(self, request: web.Request, caller: Caller, source: Source) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, timeout=CLOSE_WITHIN_S, compress=False)
        await socket.prepare(request)
        _notice_half_open(request)
        self._sockets.add(socket)
        try:
            await self._serve(socket, request, caller, source)
        finally:
            self._sockets.discard(socket)
        return socket

    @contextmanager
    def _counted(self, caller: Caller) -> Iterator[None]:
        """Count the connection from the moment it is let in: those that come at the same time count each other."""
        if self._connections[caller.key_id] >= self._manager.settings.max_sessions_per_key:
            raise BusyError("This key has as many conversations open as it may have.")
        self._connections[caller.key_id] += 1
        try:
            yield
        finally:
            self._connections[caller.key_id] -= 1
            if not self._connections[caller.key_id]:
                del self._connections[caller.key_id]

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

    def _turn_away(self, key_id: str) -> None:
        for outlet, caller in self._present.items():
            if caller.key_id == key_id:
                outlet.close(EndReason.REVOKED)

    async def aclose(self) -> None:
        """Wait a little for closing handshakes, then cut what is left."""
        sockets = list(self._sockets)
        await asyncio.gather(*(socket.close(code=CloseCode.RESTART) for socket in sockets), return_exceptions=True)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _serve(self, socket: web.WebSocketResponse, request: web.Request, caller: Caller, source: Source) -> None:
        try:
            wanted, after_seq = _parse(request, caller)
            session = await self._manager.open(wanted, after_seq)
        except QuickCommError as error:
            await _refuse(socket, error)
            return
        self._present[session.outlet] = caller
        try:
            with self._manager.admission.present(source, session.conversation):
                await socket.send_str(_text(session.ready))
                await self._converse(socket, session)
        except (ConnectionError, TimeoutError):
            pass  # the client is gone; what it was told stays true
        finally:
            self._present.pop(session.outlet, None)
            await asyncio.shield(self._manager.dropped(session))

    async def _converse(self, socket: web.WebSocketResponse, session: Session) -> None:
        """Speak and listen until one side is done."""
        speaking = asyncio.ensure_future(self._speak(socket, session))
        listening = asyncio.ensure_future(self._listen(socket, session))
        refused: CloseCode | None = None
        try:
            await asyncio.wait((speaking, listening), return_when=asyncio.FIRST_COMPLETED)
            if listening.done() and not speaking.done() and not socket.closed:
                error = listening.exception()
                if isinstance(error, _ClientError):
                    refused = error.close_code
                    session.outlet.close(EndReason.REFUSED, ErrorReported(code=error.code, message=str(error)))
                    async with asyncio.timeout(CLOSE_WITHIN_S):
                        await speaking
        finally:
            for task in (speaking, listening):
                task.cancel()
            spoken, listened = await asyncio.gather(speaking, listening, return_exceptions=True)
            for result in (spoken, listened):
                if isinstance(result, Exception) and not isinstance(
                    result, QuickCommError | ConnectionError | TimeoutError
                ):
                    log.error("audio_socket.failed", error=f"{type(result).__name__}: {result}")
        if isinstance(spoken, EndReason):
            # Now that nobody listens, `close` waits for the client's own. Else it would break the connection off at
            # once, and with sound still on its way the client might never read the last that it was told.
            await socket.close(code=refused or ENDINGS[spoken][0])

    async def _speak(self, socket: web.WebSocketResponse, session: Session) -> EndReason:
        """Send events until the connection ends; return why it does."""
        async for event in events_of(session.outlet):
            async with asyncio.timeout(SEND_WITHIN_S):
                await socket.send_str(_text(event))
        return session.outlet.ended_by or EndReason.FAILED

    async def _listen(self, socket: web.WebSocketResponse, session: Session) -> None:
        async for message in socket:
            await self._take(message, session)

    async def _take(self, message: WSMessage, session: Session) -> None:
        conversation = session.conversation
        if not conversation.serves(session.outlet):
            return  # another connection has taken over; what this one still sends comes again over there
        if message.type is WSMsgType.BINARY:
            try:
                await conversation.feed(message.data)
            except InvalidInputError as error:
                too_long = len(message.data) > conversation.format.block_bytes * conversation.format.sample_rate
                code = CloseCode.TOO_BIG if too_long else CloseCode.INVALID
                name = "audio.message_too_long" if too_long else "audio.partial_sample"
                raise _ClientError(code, name, str(error)) from error
        elif message.type is WSMsgType.TEXT:
            match parse_control(message.data):
                case End():
                    conversation.end()
                case Flush(offset=offset):
                    try:
                        conversation.flush(offset)
                    except InvalidInputError as error:
                        raise _ClientError(CloseCode.POLICY, "audio.bad_flush", str(error)) from error
                case Captured(offset=offset, at_ms=at_ms):
                    conversation.captured(offset, at_ms * NS_PER_MS)
                case Skip(samples=samples):
                    await conversation.skip(samples)


async def events_of(outlet: Outlet) -> AsyncIterator[ServerEvent]:
    """Yield what the connection sends, with the error that its end means last."""
    async for event in outlet.events():
        yield event
    if outlet.ended_by is not None and (error := ENDINGS.get(outlet.ended_by, (None, None))[1]) is not None:
        yield error


def _notice_half_open(request: web.Request) -> None:
    link = request.transport.get_extra_info("socket") if request.transport is not None else None
    if link is None or link.family not in {socket_module.AF_INET, socket_module.AF_INET6}:
        return
    link.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket_module, name):  # not on every system
            link.setsockopt(socket_module.IPPROTO_TCP, getattr(socket_module, name), value)


def _parse(request: web.Request, caller: Caller) -> tuple[OpenRequest, int]:
    query = request.query
    after = query.get("after_seq", "0")
    if not (after.isascii() and after.isdigit() and len(after) <= 12):  # noqa: PLR2004 - digits of any sane seq
        raise InvalidInputError("after_seq is the last seq that the client has: a whole number from 0.")
    wanted = OpenRequest(
        site=caller.site,
        conversation_id=parse_conversation_id(request.match_info["conversation_id"]),
        channel=parse_channel(query.get("channel", DEFAULT_CHANNEL)) or DEFAULT_CHANNEL,
        format=parse_format(
            query.get("encoding", "linear16"),
            query.get("sample_rate", "16000"),
            query.get("speakers", query.get("channels", "1")),
        ),
        token=query.get("resume_token") or None,
        continues=parse_conversation_id(continues) if (continues := query.get("continues")) else None,
    )
    return wanted, int(after)


def parse_control(text: str) -> ClientControl:
    if len(text) > MAX_TEXT:
        raise _ClientError(CloseCode.TOO_BIG, "audio.message_too_long", "A control message is short.")
    try:
        control = decode_control(text)
    except msgspec.ValidationError as error:
        detail = f"{error}. {KNOWN}"
        raise _ClientError(CloseCode.UNSUPPORTED, "audio.unknown_message", detail) from error
    except MALFORMED as error:
        detail = "A text message must be JSON; sound goes in binary messages."
        raise _ClientError(CloseCode.UNSUPPORTED, "audio.bad_json", detail) from error
    if isinstance(control, Flush) and not 0 <= control.offset <= MAX_SKIP:
        detail = "flush takes the offset after which the speaker let go of the key."
        raise _ClientError(CloseCode.POLICY, "audio.bad_flush", detail)
    if isinstance(control, Skip) and not 0 < control.samples <= MAX_SKIP:
        raise _ClientError(CloseCode.POLICY, "audio.bad_skip", "skip takes a positive number of samples.")
    return control


async def _refuse(socket: web.WebSocketResponse, error: QuickCommError) -> None:
    code = CloseCode.TRY_LATER
    if isinstance(error, ForbiddenError | InvalidInputError):
        code = CloseCode.POLICY
    name = "audio.invalid_request" if isinstance(error, InvalidInputError) else error.code
    if error.outside is not None:
        log.warning("audio_socket.not_opened", error=str(error))
    try:
        await socket.send_str(_text(ErrorReported(code=name, message=error.for_clients(), retryable=error.retryable)))
        await socket.close(code=code)
    except ConnectionError:
        return


def _busy(error: QuickCommError) -> web.Response:
    problem = {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": error.for_clients(),
        "code": error.code,
    }
    after_s = OVERLOADED_AFTER_S if isinstance(error, OverloadedError) else RETRY_AFTER_S
    return web.json_response(
        problem, status=503, headers={"Retry-After": after_s}, content_type="application/problem+json"
    )


def _text(event: ServerEvent) -> str:
    return msgspec.json.encode(event).decode()
