"""The live channel between processes: one WebSocket for each pair, opened by the subscriber, JSON in text frames.

Each end says first what it wants (`subscribe`), and the other what of it is not known (`unsupported`); then messages
go both ways, all that wait in one frame. A process of 0.1.0 says nothing first: it gets everything, a frame a message.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Collection, Hashable
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any, Final

import aiohttp
import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from prometheus_client import Counter

from quickcomm.contracts.link import LINK
from quickcomm.contracts.messaging import Topic, name_of
from quickcomm.kernel.discovery import Instance, Registry
from quickcomm.kernel.errors import MALFORMED, QuickCommError
from quickcomm.kernel.http import traced_client
from quickcomm.kernel.internal import MONOLITH, Trust
from quickcomm.kernel.messaging.live.local import LocalLive
from quickcomm.kernel.messaging.live.port import LostError, Peer, UnsupportedTopicError

MAX_EVENTS: Final = 1_024
MAX_STATES: Final = 512
MAX_BULK: Final = 128
TOGETHER: Final = 64
"""Messages in a frame, at most."""
BULK_TOGETHER: Final = 8
"""The same of bulk."""
MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
LOOK_EVERY_S: Final = 0.25
OPEN_WITHIN_S: Final = 2.0
SEND_WITHIN_S: Final = 10.0
CLOSE_WITHIN_S: Final = 2.0
FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 2.0
HEARTBEAT_S: Final = 10.0
Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse

DROPPED = Counter(
    "quickcomm_live_dropped_total", "Live messages dropped for a process that does not keep up", ["topic"]
)

log = structlog.get_logger(__name__)
_encode: Final = msgspec.json.Encoder().encode


class Subscribe(msgspec.Struct, frozen=True, kw_only=True, tag="subscribe"):
    """The topics that this end wants from the other."""

    topics: tuple[str, ...] = ()


class Unsupported(msgspec.Struct, frozen=True, kw_only=True, tag="unsupported"):
    """Of these topics, the ones that this end does not publish."""

    topics: tuple[str, ...] = ()


Frame = Topic | Subscribe | Unsupported


class _Line:
    """What one peer still has to get.

    Of state the newest of each key waits, of events and of bulk the newest few. Bulk goes where nothing else waits.
    """

    def __init__(self, *, back: bool) -> None:
        """`back`: it gets what goes from subscribers to publishers."""
        self.wanted: frozenset[str] | None = None
        """Topics by name; None: it has not said so, and gets all."""
        self.farewell: tuple[int, str] | None = None
        self._back = back
        self._first: deque[Frame] = deque()
        self._events: deque[Topic] = deque()
        self._bulk: deque[Topic] = deque()
        self._states: OrderedDict[tuple[type[Topic], Hashable], Topic] = OrderedDict()
        self._wake = asyncio.Event()

    def say(self, frame: Frame) -> None:
        """Send something about the connection itself."""
        self._first.append(frame)
        self._wake.set()

    def put(self, message: Topic) -> None:
        topic = type(message)
        if topic.back is not self._back or (self.wanted is not None and name_of(topic) not in self.wanted):
            return
        if topic.kind == "state":
            self._states.pop((topic, message.key()), None)
            self._states[topic, message.key()] = message
            if len(self._states) > MAX_STATES:
                DROPPED.labels(name_of(type(self._states.popitem(last=False)[1]))).inc()
        else:
            waiting, most = (self._bulk, MAX_BULK) if topic.kind == "bulk" else (self._events, MAX_EVENTS)
            waiting.append(message)
            if len(waiting) > most:
                DROPPED.labels(name_of(type(waiting.popleft()))).inc()
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        self.farewell = self.farewell or (code, reason)
        self._wake.set()

    async def next(self) -> list[Frame]:
        """Return what is to be sent now; nothing at the end."""
        while not (found := self._take()) and self.farewell is None:
            self._wake.clear()
            await self._wake.wait()
        return found

    def _take(self) -> list[Frame]:
        if self._first:
            return [self._first.popleft()]
        found: list[Frame] = []
        while len(found) < (1 if self.wanted is None else TOGETHER) and (self._events or self._states):
            found.append(self._events.popleft() if self._events else self._states.popitem(last=False)[1])
        while not found and self._bulk:
            count = 1 if self.wanted is None else min(BULK_TOGETHER, len(self._bulk))
            found += [self._bulk.popleft() for _ in range(count)]
        return found


class WireLive:
    """Joins the live channel of this process with those of the instances that publish what it subscribes to."""

    def __init__(self, live: LocalLive, modules: Collection[str], registry: Registry, trust: Trust, name: str) -> None:
        """`modules`: those of this process; `name`: of this instance, which does not subscribe to itself."""
        self._live = live
        self._name = name
        self._registry = registry
        self._trust = trust
        self._known: set[Instance] = set()
        self._lines: dict[_Line, Peer] = {}
        self._closing = False
        self._count = 0
        self._published = {
            name_of(topic): topic for topic in Topic.__subclasses__() if set(modules) & set(topic.publishers)
        }
        self._callers = sorted({name for topic in self._published.values() for name in topic.subscribers})
        live.forward = self._forward

    def routes(self) -> list[web.RouteDef]:
        """Return the route for subscribers; none where no service may subscribe to this module."""
        return [web.get(LINK, self._handle)] if self._callers else []

    async def run(self) -> None:
        """Keep a connection to each instance of the modules that are subscribed to, until cancelled.

        A module that is started later subscribes to more: then all connections are opened anew.
        """
        subscribed = self._live.subscribed
        async with asyncio.TaskGroup() as tasks:
            while not self._closing:
                if self._live.subscribed - subscribed:
                    for line in self._lines:
                        line.close(WSCloseCode.GOING_AWAY, "This instance subscribes to more topics now.")
                subscribed = self._live.subscribed
                for instance in self._found() - self._known:
                    self._known.add(instance)
                    tasks.create_task(self._keep(instance), name=f"live:{instance.name}")
                await asyncio.sleep(LOOK_EVERY_S)

    def close(self) -> None:
        """End all connections, once what waits is sent."""
        self._closing = True
        for line in self._lines:
            line.close(WSCloseCode.GOING_AWAY, "This instance is stopping.")

    # -- the subscriber's end ---------------------------------------------------------------------------------------

    def _found(self) -> set[Instance]:
        modules = {name for topic in self._live.subscribed if not topic.back for name in topic.publishers}
        if not modules:
            return set()
        return {each for each in self._registry.instances() if each.name != self._name and any(map(each.has, modules))}

    async def _keep(self, instance: Instance) -> None:
        """Connect for as long as it is registered, and stay beyond that until it hangs up: it may have last words."""
        wait = FIRST_WAIT_S
        try:
            while not self._closing and instance in self._found():
                if await self._connect(instance):
                    wait = FIRST_WAIT_S
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
        finally:
            self._known.discard(instance)

    async def _connect(self, instance: Instance) -> bool:
        """Serve one connection until it breaks; return True if it was open."""
        opened = False
        connector = aiohttp.UnixConnector(instance.socket)
        peer = Peer(module=instance.module, name=instance.name)
        wanted = [each for each in self._live.subscribed if not each.back and any(map(instance.has, each.publishers))]
        try:
            async with aiohttp.ClientSession(connector=connector, trace_configs=traced_client()) as client:
                async with asyncio.timeout(OPEN_WITHIN_S):
                    socket = await client.ws_connect(
                        f"http://{instance.module}{LINK}",
                        headers=self._trust.headers(instance.module),
                        heartbeat=HEARTBEAT_S,
                        max_msg_size=MAX_FRAME_BYTES,
                    )
                opened = True
                await self._serve(socket, _Line(back=True), peer, wanted)
        except* (aiohttp.ClientError, OSError, TimeoutError, QuickCommError) as errors:
            log.info("live.failed", instance=instance.name, error=str(errors.exceptions[0])[:200])
        return opened

    # -- the publisher's end ----------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.WebSocketResponse:
        caller = self._trust.require(request, *self._callers, MONOLITH)
        socket = web.WebSocketResponse(
            heartbeat=2 * HEARTBEAT_S, max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=CLOSE_WITHIN_S
        )
        await socket.prepare(request)
        self._count += 1
        line = _Line(back=False)
        if self._closing:
            line.close(WSCloseCode.GOING_AWAY, "This instance is stopping.")
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(self._turn_away(request, line), name="live:token")
            wanted = [each for each in self._live.subscribed if each.back and caller in (*each.publishers, MONOLITH)]
            peer = Peer(module=caller, name=f"{caller}:{self._count}")
            await self._serve(socket, line, peer, wanted)
            ending.cancel()
        return socket

    async def _turn_away(self, request: web.Request, line: _Line) -> None:
        """End a connection that outlives the token that opened it, once what vouched for that is withdrawn."""
        await self._trust.withdrawn(request)
        line.close(WSCloseCode.POLICY_VIOLATION, "The service token does not hold any more; connect again.")

    # -- both -------------------------------------------------------------------------------------------------------

    def _forward(self, message: Topic) -> None:
        for line in self._lines:
            line.put(message)

    async def _serve(self, socket: Socket, line: _Line, peer: Peer, wanted: list[type[Topic]]) -> None:
        line.say(Subscribe(topics=tuple(name_of(topic) for topic in wanted)))
        for state in self._live.state():
            line.put(state)
        known: Any = Subscribe | Unsupported
        for topic in wanted:
            known |= topic
        decoder = msgspec.json.Decoder(known | list[known])
        self._lines[line] = peer
        log.info("live.opened", peer=peer.name)
        try:
            async with asyncio.TaskGroup() as tasks:
                speaking = tasks.create_task(_speak(socket, line), name=f"live:{peer.name}:speak")
                async for message in socket:
                    if message.type is WSMsgType.TEXT:
                        self._hear(message.data, decoder, line, peer)
                speaking.cancel()
        finally:
            del self._lines[line]
            self._live.failed(peer, LostError(f"The connection to {peer.name} ended."))
            await socket.close()
            log.info("live.closed", peer=peer.name)

    def _hear(self, data: str, decoder: "msgspec.json.Decoder[Any]", line: _Line, peer: Peer) -> None:
        try:
            found = decoder.decode(data)
        except MALFORMED as error:  # not subscribed to, of another release: what matters comes by the streams
            log.debug("live.ignored", peer=peer.name, error=str(error)[:200])
            return
        for said in found if isinstance(found, list) else [found]:
            if isinstance(said, Subscribe):
                line.wanted = frozenset(said.topics)
                if lacking := tuple(name for name in said.topics if name not in self._published):
                    line.say(Unsupported(topics=lacking))
            elif isinstance(said, Unsupported):
                log.info("live.unsupported", peer=peer.name, topics=said.topics)
                for name in said.topics:
                    self._live.failed(peer, UnsupportedTopicError(name, peer))
            else:
                self._live.deliver(said, peer)


async def _speak(socket: Socket, line: _Line) -> None:
    """Send until the line is closed, or the peer takes nothing any more."""
    try:
        while frames := await line.next():
            one = frames[0] if len(frames) == 1 else frames
            async with asyncio.timeout(SEND_WITHIN_S):
                await socket.send_str(_encode(one).decode())
        code, reason = line.farewell or (WSCloseCode.GOING_AWAY, "")
        await socket.close(code=code, message=reason.encode())
    except (ConnectionError, TimeoutError, aiohttp.ClientError):
        log.info("live.lost")
        # It would not take a farewell either: after a send that timed out, `close` ends at once as if cancelled.
        if (pipe := socket.get_extra_info("socket")) is not None:
            with suppress(OSError):
                pipe.shutdown(SHUT_RDWR)
