"""The direct link on the side that understands: dashboards connect, and hear each second how it is.

Nothing is published this way; cards come by the streams. What a dashboard says of utterances is for their traces.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from quickcomm.contracts.link import LINK, STATUS_EVERY_S, FromDashboard, InstanceStatus, KeepTrace, Receipt
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.telemetry import Word, tracing

MAX_MESSAGE_BYTES: Final = 256 * 1024
SEND_WITHIN_S: Final = 10.0
CLOSE_WITHIN_S: Final = 2.0
HEARTBEAT_S: Final = 20.0

AdmitForLong = Callable[[web.Request], Callable[[], Awaitable[None]]]
"""Raises where the caller is no dashboard of this site; gives what comes back once it may not stay any more."""
Status = Callable[[], InstanceStatus]

log = structlog.get_logger(__name__)
_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(FromDashboard)


class StatusLink:
    def __init__(self, admit: AdmitForLong, status: Status) -> None:
        self._admit = admit
        self._status = status
        self._closing = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        return [web.get(LINK, self.handle)]

    def close(self) -> None:
        """The dashboards go to whoever is there then."""
        self._closing.set()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        ended = self._admit(request)
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, compress=False, timeout=CLOSE_WITHIN_S
        )
        await socket.prepare(request)
        log.info("link.opened")
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(self._speak(socket), name="link:speak"),
                    tasks.create_task(_turn_away(ended, socket), name="link:token"),
                    tasks.create_task(self._say_goodbye(socket), name="link:end"),
                ]
                await _listen(socket)
                for task in beside:
                    task.cancel()
        finally:
            log.info("link.closed")
        return socket

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _speak(self, socket: web.WebSocketResponse) -> None:
        try:
            while True:
                async with asyncio.timeout(SEND_WITHIN_S):
                    await socket.send_str(_encode(self._status()).decode())
                await asyncio.sleep(STATUS_EVERY_S)
        except (ConnectionError, TimeoutError):
            log.info("link.lost")
            await socket.close(code=WSCloseCode.INTERNAL_ERROR)

    async def _say_goodbye(self, socket: web.WebSocketResponse) -> None:
        await self._closing.wait()
        await socket.close(code=WSCloseCode.GOING_AWAY, message=b"This instance is stopping.")


async def _listen(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            continue
        try:
            said = _decoder.decode(message.data)
        except MALFORMED as error:  # of another version, perhaps: nothing here is needed
            log.warning("link.malformed", error=str(error)[:200])
            continue
        if isinstance(said, Receipt):
            tracing().receipt(said.site, said.utterance_id, said.latency)
        elif isinstance(said, KeepTrace):
            tracing().word(Word(**msgspec.structs.asdict(said)))


async def _turn_away(ended: Callable[[], Awaitable[None]], socket: web.WebSocketResponse) -> None:
    """A link lives longer than the token that opened it; what vouched for that may be withdrawn."""
    await ended()
    message = b"The service token does not hold any more; connect again."
    await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=message)
