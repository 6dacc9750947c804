"""The direct link on the side that hears: dashboards connect, and get what must be seen at once, without a queue.

Nothing here waits for a dashboard, and nothing durable depends on one: what does not fit is dropped, and the streams
bring it.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.link import (
    EVERYTHING,
    LINK,
    STATUS_EVERY_S,
    Captioned,
    Committed,
    FellBehind,
    FromDashboard,
    FromInstance,
    InstanceStatus,
    Receipt,
    Watching,
)
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.telemetry import Word, tracing

MAX_CAPTIONS: Final = 256
MAX_COMMITTED: Final = 1_024
MAX_MESSAGE_BYTES: Final = 256 * 1024
SEND_WITHIN_S: Final = 10.0
CLOSE_WITHIN_S: Final = 2.0
HEARTBEAT_S: Final = 20.0

Admit = Callable[[web.Request], Callable[[], Awaitable[None]]]
"""Raises where the caller is no dashboard of this site; gives what comes back once it may not stay any more."""
Status = Callable[[], InstanceStatus]
OnReceipt = Callable[[str, str, str, Latency], None]

log = structlog.get_logger(__name__)
_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(FromDashboard)


class _Line:
    """What one dashboard still has to hear, and what it looks at.

    Of captions only the newest of each speaker waits, and the newest emergency that is not confirmed; of lateness what
    was told last of each conversation.
    """

    def __init__(self) -> None:
        self.sites: dict[str, frozenset[str]] = {}
        self._captions: OrderedDict[tuple[str, str, int, bool], Captioned] = OrderedDict()
        self._behind: OrderedDict[tuple[str, str], FellBehind] = OrderedDict()
        self._committed: deque[Committed] = deque(maxlen=MAX_COMMITTED)
        self._status: InstanceStatus | None = None
        self.farewell: tuple[int, str] | None = None
        self._wake = asyncio.Event()

    def watches(self, site: str, channel: str) -> bool:
        channels = self.sites.get(site)
        return channels is not None and (EVERYTHING in channels or channel in channels)

    def caption(self, caption: Caption) -> None:
        speaker = (caption.site, caption.conversation_id, caption.speaker, caption.emergency)
        self._captions.pop(speaker, None)
        self._captions[speaker] = Captioned(caption=caption)
        if len(self._captions) > MAX_CAPTIONS:
            self._captions.popitem(last=False)
        self._wake.set()

    def behind(self, behind: Behind) -> None:
        self._behind[behind.site, behind.conversation_id] = FellBehind(behind=behind)
        if len(self._behind) > MAX_CAPTIONS:
            self._behind.popitem(last=False)
        self._wake.set()

    def committed(self, committed: Committed) -> None:
        self._committed.append(committed)  # the oldest goes where there is no room: the stream brings it
        self._wake.set()

    def status(self, status: InstanceStatus) -> None:
        self._status = status
        self._wake.set()

    def close(self, code: int = WSCloseCode.GOING_AWAY, reason: str = "This instance is stopping.") -> None:
        self.farewell = self.farewell or (code, reason)
        self._wake.set()

    async def next(self) -> FromInstance | None:
        """What is to be sent next; None at the end."""
        while True:
            if self._committed:
                return self._committed.popleft()
            if self._captions:
                return self._captions.popitem(last=False)[1]
            if self._behind:
                return self._behind.popitem(last=False)[1]
            if self._status is not None:
                status, self._status = self._status, None
                return status
            if self.farewell is not None:
                return None
            self._wake.clear()
            await self._wake.wait()


class DashboardLink:
    """Implements `Captions` for dashboards that are processes of their own."""

    def __init__(self, admit: Admit, status: Status, on_receipt: OnReceipt) -> None:
        self._admit = admit
        self._status = status
        self._on_receipt = on_receipt
        self._lines: set[_Line] = set()
        self._closing = False

    def routes(self) -> list[web.RouteDef]:
        return [web.get(LINK, self.handle)]

    async def run(self) -> None:
        """Say how things are, until cancelled."""
        while True:
            await asyncio.sleep(STATUS_EVERY_S)
            if self._lines:
                status = self._status()
                for line in self._lines:
                    line.status(status)

    def close(self) -> None:
        """The dashboards go to whoever is there then."""
        self._closing = True
        for line in self._lines:
            line.close()

    # -- the port ---------------------------------------------------------------------------------------------------

    @property
    def gives_receipts(self) -> bool:
        return bool(self._lines)

    def watched(self, site: str, channel: str) -> bool:
        return any(line.watches(site, channel) for line in self._lines)

    def caption(self, caption: Caption) -> None:
        for line in self._lines:
            if caption.emergency or line.watches(caption.site, caption.channel):
                line.caption(caption)

    def behind(self, behind: Behind) -> None:
        for line in self._lines:
            line.behind(behind)

    def published(self, message: UtteranceTranscribed, after: str | None) -> None:
        if after is None:
            return  # another process may have published the one before: the stream has the order
        committed = Committed(message=message, after=after)
        for line in self._lines:
            line.committed(committed)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        ended = self._admit(request)
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, compress=False, timeout=CLOSE_WITHIN_S
        )
        await socket.prepare(request)
        line = _Line()
        if self._closing:
            line.close()
        line.status(self._status())
        self._lines.add(line)
        log.info("link.opened", dashboards=len(self._lines))
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(self._speak(socket, line), name="link:speak"),
                    tasks.create_task(_turn_away(ended, line), name="link:token"),
                ]
                await self._listen(socket, line)
                for task in beside:
                    task.cancel()
        finally:
            self._lines.discard(line)
            log.info("link.closed", dashboards=len(self._lines))
        return socket

    async def _speak(self, socket: web.WebSocketResponse, line: _Line) -> None:
        try:
            while (message := await line.next()) is not None:
                async with asyncio.timeout(SEND_WITHIN_S):
                    await socket.send_str(_encode(message).decode())
            code, reason = line.farewell or (WSCloseCode.GOING_AWAY, "")
            await socket.close(code=code, message=reason.encode())
        except (ConnectionError, TimeoutError):
            log.info("link.lost")
            await socket.close(code=WSCloseCode.INTERNAL_ERROR)

    async def _listen(self, socket: web.WebSocketResponse, line: _Line) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            try:
                said = _decoder.decode(message.data)
            except MALFORMED as error:  # of another version, perhaps: nothing here is needed
                log.warning("link.malformed", error=str(error)[:200])
                continue
            if isinstance(said, Watching):
                line.sites = {site: frozenset(channels) for site, channels in said.sites.items()}
            elif isinstance(said, Receipt):
                self._on_receipt(said.site, said.conversation_id, said.utterance_id, said.latency)
            else:
                tracing().word(Word(**msgspec.structs.asdict(said)))


async def _turn_away(ended: Callable[[], Awaitable[None]], line: _Line) -> None:
    """A link lives longer than the token that opened it; what vouched for that may be withdrawn."""
    await ended()
    line.close(WSCloseCode.POLICY_VIOLATION, "The service token does not hold any more; connect again.")
