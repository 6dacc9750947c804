"""`WS /v1/conversations/{conversation_id}/audio`: the native socket of the outer contract. Its JSON and close codes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

import msgspec
import structlog
from aiohttp import WSMessage, WSMsgType, web

from quickcomm.audio.ingest.caller import Authenticate, Caller
from quickcomm.audio.ingest.pieces import Pieces
from quickcomm.audio.ingest.reception import BreachError, Reception, converse, not_websocket, refused
from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.model.formats import parse_channel, parse_conversation_id, parse_format
from quickcomm.audio.ports import OpenRequest
from quickcomm.audio.service.conversation import Conversation
from quickcomm.audio.service.manager import Session
from quickcomm.audio.service.metrics import IGNORED
from quickcomm.audio.service.outlet import Outlet
from quickcomm.contracts.audio_socket import (
    DEFAULT_CHANNEL,
    PATH,
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
from quickcomm.kernel.errors import MALFORMED, ForbiddenError, InvalidInputError, QuickCommError

INGEST: Final = "native"
"""The ingest's name in metrics."""
SEND_WITHIN_S: Final = 60.0
"""A client that takes nothing for so long is gone; it hears the rest when it comes back."""
MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
"""Above ten seconds of any format, so that a client that sends more gets a reason; beyond, just a close."""
MAX_TEXT: Final = 4_096
"""No control message is longer."""
KNOWN: Final = (
    'Write {"type":"skip","samples":N}, {"type":"flush","offset":N}, {"type":"captured","offset":N,"at_ms":T} or'
    ' {"type":"end"}.'
)
MAX_SKIP: Final = 10**12
NS_PER_MS: Final = 1_000_000
ENDINGS: Final[dict[EndReason, tuple[CloseCode, ErrorReported | None]]] = {
    EndReason.ENDED: (CloseCode.NORMAL, None),
    EndReason.DRAINED: (CloseCode.RESTART, None),
    EndReason.MOVED: (CloseCode.GOING_AWAY, None),
    EndReason.REFUSED: (CloseCode.POLICY, None),
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

log = structlog.get_logger(__name__)


class NativeSocket:
    path = PATH

    def __init__(self, reception: Reception, authenticate: Authenticate) -> None:
        self._reception = reception
        self._authenticate = authenticate

    async def handle(self, request: web.Request) -> web.StreamResponse:
        caller = await self._authenticate(request)
        if (answer := not_websocket(request)) is not None:
            return answer
        channel = request.query.get("channel", "").strip() or DEFAULT_CHANNEL
        conversation_id = request.match_info["conversation_id"]
        try:
            await self._reception.check_side(request, conversation_id, channel)
            async with (
                self._reception.place(caller, channel, conversation_id),
                self._reception.upgraded(request, MAX_MESSAGE_BYTES) as socket,
            ):
                await self._serve(socket, request, caller)
                return socket
        except QuickCommError as error:
            return refused(await self._reception.refusal(error, conversation_id, channel))

    async def _serve(self, socket: web.WebSocketResponse, request: web.Request, caller: Caller) -> None:
        try:
            wanted, after_seq = parse_request(request, caller.site)
            recorded_ns = parse_started_at(request.query.get("started_at"))
            async with self._reception.session(caller, wanted, after_seq) as session:
                if recorded_ns is not None:
                    session.conversation.captured(0, recorded_ns)
                await socket.send_str(_text(session.ready))
                ended_by = await converse(session.outlet, _speak(socket, session.outlet), _listen(socket, session))
                if ended_by is not None:
                    # Now that the socket is not read, `close` waits for the client's own. Else it would break the
                    # connection off at once, and with sound on its way the client might never read the last event.
                    code = ended_by.close_code if isinstance(ended_by, BreachError) else ENDINGS[ended_by][0]
                    await socket.close(code=code)
        except QuickCommError as error:
            await refuse(socket, error)


async def events_of(outlet: Outlet) -> AsyncIterator[ServerEvent]:
    """Yield what the connection sends, with the error that its end means last."""
    async for event in outlet.events():
        yield event
    if outlet.ended_by is not None and (error := ENDINGS[outlet.ended_by][1]) is not None:
        yield error


async def _speak(socket: web.WebSocketResponse, outlet: Outlet) -> None:
    async for event in events_of(outlet):
        async with asyncio.timeout(SEND_WITHIN_S):
            await socket.send_str(_text(event))


async def _listen(socket: web.WebSocketResponse, session: Session) -> None:
    pieces = Pieces(session.conversation.format)
    async for message in socket:
        await _take(message, pieces, session)


async def _take(message: WSMessage, pieces: Pieces, session: Session) -> None:
    conversation, outlet = session.conversation, session.outlet
    if message.type is WSMsgType.BINARY:
        for piece in pieces.cut(message.data):
            if conversation.serves(outlet):  # else it comes again, over the connection that took over
                await conversation.feed(piece)
    elif message.type is WSMsgType.TEXT and conversation.serves(outlet):
        control = parse_control(message.data)
        if control is None:
            IGNORED.labels(INGEST, "unknown").inc()
            return
        if isinstance(control, Skip):
            pieces.drop_rest()
        await _obey(control, conversation)


async def _obey(control: ClientControl, conversation: Conversation) -> None:
    match control:
        case End():
            conversation.end()
        case Flush(offset=offset):
            try:
                conversation.flush(offset)
            except InvalidInputError as error:
                raise BreachError(CloseCode.POLICY, "audio.bad_flush", str(error)) from error
        case Captured(offset=offset, at_ms=at_ms):
            conversation.captured(offset, at_ms * NS_PER_MS)
        case Skip(samples=samples):
            await conversation.skip(samples)


def parse_request(request: web.Request, site: str) -> tuple[OpenRequest, int]:
    """Return what a client of a site asks for, and the last seq that it has. Raises `InvalidInputError`."""
    query = request.query
    after = query.get("after_seq", "0")
    if not (after.isascii() and after.isdigit() and len(after) <= 12):  # noqa: PLR2004 - digits of any sane seq
        raise InvalidInputError("after_seq is the last seq that the client has: a whole number from 0.")
    channel = parse_channel(query.get("channel", DEFAULT_CHANNEL)) or DEFAULT_CHANNEL
    wanted = OpenRequest(
        site=site,
        conversation_id=parse_conversation_id(request.match_info["conversation_id"]),
        channel=channel,
        sent_on=channel,
        format=parse_format(
            query.get("encoding", "linear16"),
            query.get("sample_rate", "16000"),
            query.get("speakers", query.get("channels", "1")),
        ),
        token=query.get("resume_token") or None,
        resumes=query.get("resume", "yes") != "no",
        continues=parse_conversation_id(continues) if (continues := query.get("continues")) else None,
    )
    return wanted, int(after)


def parse_started_at(text: str | None) -> int | None:
    """Return when sample 0 was recorded, in nanoseconds since the epoch. Raises `InvalidInputError`."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that was not encoded comes as a space
        if at.tzinfo is not None:
            return int(at.timestamp() * 1_000) * NS_PER_MS
    except (ValueError, OverflowError):
        pass
    raise InvalidInputError("started_at is a time with its zone (RFC 3339), such as 2026-05-09T07:35:25Z.")


def parse_control(text: str) -> ClientControl | None:
    """Read a control message; return None for a text that is none. Raises `BreachError` for one with wrong fields."""
    if len(text) > MAX_TEXT:
        return None
    try:
        control = decode_control(text)
    except MALFORMED as error:
        raise BreachError(CloseCode.POLICY, "audio.bad_control", f"{error}. {KNOWN}") from error
    if isinstance(control, Flush) and not 0 <= control.offset <= MAX_SKIP:
        detail = "flush takes the offset after which the speaker let go of the key."
        raise BreachError(CloseCode.POLICY, "audio.bad_flush", detail)
    if isinstance(control, Skip) and not 0 < control.samples <= MAX_SKIP:
        raise BreachError(CloseCode.POLICY, "audio.bad_skip", "skip takes a positive number of samples.")
    return control


async def refuse(socket: web.WebSocketResponse, error: QuickCommError) -> None:
    """Tell why a conversation cannot be opened, and close."""
    code = CloseCode.TRY_LATER
    if isinstance(error, ForbiddenError | InvalidInputError):
        code = CloseCode.POLICY
    name = "audio.invalid_request" if isinstance(error, InvalidInputError) else error.code
    if error.outside is not None:
        log.warning("audio_socket.not_opened", error=str(error))
    try:
        event = ErrorReported(code=name, message=error.for_clients(), retryable=error.retryable)
        await socket.send_str(_text(event))
        await socket.close(code=code)
    except ConnectionError:
        return


def _text(event: ServerEvent) -> str:
    return msgspec.json.encode(event).decode()
