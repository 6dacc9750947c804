"""Telephone calls of Twilio's, relayed: the relay reads Twilio's messages, and sends the sound on by the native socket.

Twilio's protocol has no acks and no place to resume from; the native one has both.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from typing import Final

import numpy as np
import structlog
from aiohttp import hdrs, web

from quickcomm.audio.ingest.reception import BreachError, not_websocket
from quickcomm.audio.ingest.twilio import (
    MAX_MESSAGE_BYTES,
    RATE,
    SIGNATURE,
    Piece,
    Start,
    Timeline,
    first,
    in_order,
    listen_to,
    refusal,
    request_of,
)
from quickcomm.audio.model.settings import TwilioSettings
from quickcomm.client.options import new_token
from quickcomm.contracts.audio_socket import PATH, RELAYED, TWILIO_PATH, AudioFormat, CloseCode
from quickcomm.kernel.errors import InvalidInputError
from quickcomm.kernel.http import problem
from quickcomm.relay.sockets import Client, Sockets
from quickcomm.relay.upstream import Call, Upstream

ENCODING: Final = "linear16"

log = structlog.get_logger(__name__)


class CallRelay:
    path = TWILIO_PATH

    def __init__(self, sockets: Sockets, settings: TwilioSettings) -> None:
        self._sockets = sockets
        self._settings = settings

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if (answer := not_websocket(request)) is not None:
            return answer
        reason = refusal(self._settings, request.headers.get(SIGNATURE), request.host, request.path_qs)
        if reason is not None:
            log.warning("twilio.refused", reason=reason)
            return problem(HTTPStatus.FORBIDDEN, "audio.twilio_signature", reason)
        with self._sockets.place():
            async with self._sockets.upgraded(request, MAX_MESSAGE_BYTES) as socket:
                await self._serve(request, socket)
                return socket

    async def _serve(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        messages = in_order(socket)
        try:
            start = await first(messages)
            call = self._call(request, start)
        except BreachError as error:
            log.warning("twilio.breach", code=error.code, error=str(error))
            await socket.close(code=error.close_code)
            return
        except (InvalidInputError, TimeoutError) as error:
            log.warning("twilio.refused", reason=str(error))
            await socket.close(code=CloseCode.POLICY)
            return
        client = Client(resumes=False, hears=False)
        client.socket = socket
        upstream = Upstream(call, self._sockets.way, client.tell)

        async def listen() -> None:
            timeline = Timeline(start.tracks, await upstream.next_offset)
            await listen_to(messages, timeline, partial(_take, upstream), upstream.end)
            if upstream.finished:
                await asyncio.Event().wait()  # the owner says when it has everything

        await self._sockets.serve(client, upstream, listen())

    def _call(self, request: web.Request, start: Start) -> Call:
        """Return how the call goes on. Raises `BreachError`, `InvalidInputError`."""
        wanted = request_of(self._settings, start, str)
        speakers = len(start.tracks)
        headers = {
            RELAYED: f"{request.host}{request.path_qs}",
            SIGNATURE: request.headers[SIGNATURE],
            hdrs.HOST: request.host,
        }
        return Call(
            conversation_id=wanted.conversation_id,
            path=PATH.format(conversation_id=wanted.conversation_id),
            query={
                "channel": wanted.channel,
                "encoding": ENCODING,
                "sample_rate": str(RATE),
                "speakers": str(speakers),
            },
            headers=headers,
            format=AudioFormat(encoding=ENCODING, sample_rate=RATE, speakers=speakers),
            token=wanted.token or new_token(),
        )


async def _take(upstream: Upstream, pieces: Iterable[Piece]) -> None:
    """Send pieces on. The native socket knows gaps of all speakers; that of one is silence."""
    for tracks, samples in pieces:
        if all(track is None for track in tracks):
            upstream.skip(samples)
        else:
            silence = np.zeros(samples, dtype="<i2")
            parts = [silence if track is None else track for track in tracks]
            upstream.sound(np.stack(parts, axis=1).astype("<i2").tobytes())
        await upstream.room(samples)
