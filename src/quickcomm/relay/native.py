"""The native audio socket, relayed: the client's frames and the owner's events pass, its breaks and moves do not."""

from typing import Final

import structlog
from aiohttp import WSMessage, WSMsgType, hdrs, web

from quickcomm.audio.ingest.pieces import Pieces
from quickcomm.audio.ingest.reception import not_websocket
from quickcomm.audio.ingest.websocket import INGEST, MAX_MESSAGE_BYTES, parse_control, parse_request, refuse
from quickcomm.audio.service.metrics import IGNORED
from quickcomm.client.connecting import Dropped
from quickcomm.client.errors import UnauthorizedError as KeyUnknownError
from quickcomm.client.options import new_token
from quickcomm.contracts.audio_socket import PATH, Captured, End, Flush, Skip
from quickcomm.kernel.errors import InvalidInputError
from quickcomm.kernel.http import UnauthorizedError, problem
from quickcomm.kernel.keys import Authenticator
from quickcomm.kernel.keys.proxies import FORWARDED_PORT, FORWARDED_PROTO
from quickcomm.relay.sockets import Client, Sockets
from quickcomm.relay.upstream import Call, Upstream

FORWARDED: Final = (
    *(hdrs.HOST, hdrs.AUTHORIZATION, hdrs.COOKIE, hdrs.ORIGIN, hdrs.X_FORWARDED_FOR, hdrs.X_FORWARDED_HOST),
    *(FORWARDED_PROTO, FORWARDED_PORT),
    *("Sec-Fetch-Site", "X-Request-Id", "traceparent"),
)
"""Headers that go upstream as they came: by them the owner knows the client as if it were connected itself."""
OWN: Final = frozenset({"key", "resume", "resume_token", "after_seq"})
"""Of the query: the key goes into a header; the relay resumes, whether its client can or not."""

log = structlog.get_logger(__name__)


class NativeRelay:
    path = PATH

    def __init__(self, sockets: Sockets, keys: Authenticator) -> None:
        self._sockets = sockets
        self._keys = keys

    async def handle(self, request: web.Request) -> web.StreamResponse:
        principal = await self._keys.require(request, "ingest")
        if (answer := not_websocket(request)) is not None:
            return answer
        try:
            wanted, after_seq = parse_request(request, principal.site)
        except InvalidInputError as error:
            async with self._sockets.upgraded(request, MAX_MESSAGE_BYTES) as socket:
                await refuse(socket, error)
                return socket
        call = Call(
            conversation_id=wanted.conversation_id,
            path=request.rel_url.raw_path,
            query={name: value for name, value in request.query.items() if name not in OWN},
            headers=forwarded(request),
            format=wanted.format,
            token=wanted.token or new_token(),  # the relay must have it where the first `ready` is lost
            after_seq=after_seq,
        )
        with self._sockets.place():
            client = Client(resumes=wanted.resumes)
            upstream = Upstream(call, self._sockets.way, client.tell)
            try:
                await upstream.open()
            except Dropped as error:
                after_s = max(1, round(error.after_s))
                detail = "No process of audio can take this just now; try again in a moment."
                return problem(503, "relay.unavailable", detail, headers={"Retry-After": str(after_s)})
            except KeyUnknownError as error:
                raise UnauthorizedError("Send a valid key as `Authorization: Bearer KEY`.") from error
            try:
                async with self._sockets.upgraded(request, MAX_MESSAGE_BYTES) as socket:
                    client.socket = socket
                    await self._sockets.serve(client, upstream, _listen(socket, upstream, call))
                    return socket
            finally:
                await upstream.aclose()


def forwarded(request: web.Request) -> dict[str, str]:
    """Return the headers by which the owner knows the client."""
    headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
    if hdrs.AUTHORIZATION not in headers and "key" in request.query:
        headers[hdrs.AUTHORIZATION] = f"Bearer {request.query['key']}"
    return headers


async def _listen(socket: web.WebSocketResponse, upstream: Upstream, call: Call) -> None:
    await upstream.next_offset
    pieces = Pieces(call.format)
    async for message in socket:
        _take(message, pieces, upstream)
        await upstream.room(len(message.data or b""))


def _take(message: WSMessage, pieces: Pieces, upstream: Upstream) -> None:
    if message.type is WSMsgType.BINARY:
        for piece in pieces.cut(message.data):
            upstream.sound(piece)
    elif message.type is WSMsgType.TEXT:
        match parse_control(message.data):
            case None:
                IGNORED.labels(INGEST, "unknown").inc()
            case End():
                upstream.end()
            case Flush(offset=offset):
                upstream.flush(offset)
            case Captured(offset=offset, at_ms=at_ms):
                upstream.captured(offset, at_ms)
            case Skip(samples=samples):
                pieces.drop_rest()
                upstream.skip(samples)
