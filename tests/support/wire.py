"""The audio socket as the contract has it, spoken by hand: for tests that must see every message."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from tests.support.deployment import MOVES
from tests.support.unacked import Unacked, bytes_a_sample

PATIENCE_S: Final = 60.0
HANDED_OVER: Final = "handover"
Json = dict[str, Any]
Socket = aiohttp.ClientWebSocketResponse

_kept: Final[dict[str, Unacked]] = {}
"""What the newest connection of each conversation has sent: a client that comes again still has it."""


def new_id(name: str = "c") -> str:
    return f"{name}-{secrets.token_hex(6)}"


class Door:
    """Where connections of one conversation are opened."""

    def __init__(
        self, client: aiohttp.ClientSession, address: str, query: dict[str, object], headers: dict[str, str]
    ) -> None:
        self._client = client
        self._address = address
        self._headers = headers
        self.query = query

    async def open(self, **more: object) -> Socket:
        """Connect. `more`: what the query has besides. Raises what aiohttp raises."""
        params = {name: str(value) for name, value in {**self.query, **more}.items()}
        return await self._client.ws_connect(self._address, params=params, headers=self._headers, max_msg_size=0)

    async def open_in_time(self, **more: object) -> Socket:
        """Connect, and try again as the server says where it has no place before the upgrade."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await self.open(**more)
                except aiohttp.WSServerHandshakeError as error:
                    after_s = error.headers.get("Retry-After") if error.headers else None
                    if error.status != HTTPStatus.SERVICE_UNAVAILABLE or after_s is None:
                        raise
                    await asyncio.sleep(float(after_s))


class Wire:
    """One connection. Everything heard is kept, in order, in `heard`."""

    follows = False
    """Whether it goes where its conversation is handed over to."""

    def __init__(self, socket: Socket, conversation_id: str, token: str) -> None:
        self.socket = socket
        self.conversation_id = conversation_id
        self.token = token
        self.heard: list[Json] = []
        self.close_code: int | None = None

    async def hear(self) -> Json | None:
        """The next event; None when the server has closed."""
        async with asyncio.timeout(PATIENCE_S):
            event = await self._next(self.socket)
        if event is not None:
            self.heard.append(event)
        return event

    async def _next(self, socket: Socket) -> Json | None:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            event: Json = json.loads(message.data)
            return event
        assert message.type is not aiohttp.WSMsgType.BINARY, "The server sends no binary messages."
        self.close_code = socket.close_code
        return None

    async def until(self, kind: str) -> Json:
        """The next event of a kind."""
        while (event := await self.hear()) is not None:
            if event["type"] == kind:
                return event
        raise AssertionError(f"Closed with {self.close_code} before {kind!r}; last heard: {self.heard[-3:]}")

    async def hear_for(self, seconds: float) -> None:
        """All that is said within a time, where nothing may be said at all."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.hear() is not None:
                    pass

    async def until_acked(self, offset: int) -> int:
        """The first ack at or beyond `offset`."""
        while (acked := (await self.until("ack"))["offset"]) < offset:
            pass
        return int(acked)

    async def until_closed(self) -> int | None:
        while await self.hear() is not None:
            pass
        return self.close_code

    async def say(self, **message: Any) -> None:
        await self._put(message)

    async def send(self, pcm: bytes, *sizes: int) -> None:
        """Binary messages of the given sizes, over and over, until everything is sent."""
        at, turn = 0, 0
        while at < len(pcm):
            size = sizes[turn % len(sizes)] if sizes else len(pcm)
            await self._put(pcm[at : at + size])
            at, turn = at + size, turn + 1

    async def _put(self, message: bytes | Json) -> None:
        if isinstance(message, bytes):
            await self.socket.send_bytes(message)
        else:
            await self.socket.send_str(json.dumps(message))

    async def end(self) -> Json:
        """Say that it is over, and wait for `ended` and the close."""
        await self.say(type="end")
        ended = await self.until("ended")
        assert await self.until_closed() == 1000
        return ended

    def drop(self) -> None:
        """Break the connection without a word."""
        connection = self.socket._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()

    def of(self, kind: str) -> list[Json]:
        return [event for event in self.heard if event["type"] == kind]

    @property
    def durable(self) -> list[Json]:
        return [event for event in self.heard if "seq" in event]

    @property
    def last_seq(self) -> int:
        return max((event["seq"] for event in self.durable), default=0)


class FollowingWire(Wire):
    """A client that goes to the other side where the server hands its conversation over, as the contract demands.

    It comes again with its token and sends again what is not acknowledged. Tests see one connection: the `reconnect`
    and the `ready` of later connections are left out. It reads at all times, whether a test hears or not.
    """

    def __init__(self, socket: Socket, conversation_id: str, token: str, door: Door) -> None:
        super().__init__(socket, conversation_id, token)
        self.follows = True
        self.hand_overs = 0
        self._door = door
        self._unacked = Unacked(bytes_a_sample(door.query))
        after_seq = str(door.query.get("after_seq"))
        self._after_seq = int(after_seq) if after_seq.isascii() and after_seq.isdigit() else 0
        self._writing = asyncio.Lock()
        self._told: asyncio.Queue[Json | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        self._sending_again: asyncio.Task[None] | None = None

    def drop(self) -> None:
        self._reading.cancel()
        super().drop()

    async def aclose(self) -> None:
        tasks = [task for task in (self._reading, self._sending_again) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def hear(self) -> Json | None:
        async with asyncio.timeout(PATIENCE_S):
            event = await self._told.get()
        if event is not None:
            self.heard.append(event)
            return event
        self._told.put_nowait(None)  # closed it stays
        if not self._reading.cancelled():
            self._reading.result()
        return None

    async def _put(self, message: bytes | Json) -> None:
        self._unacked.add(message)
        await self._write()

    async def _write(self) -> None:
        """Write what the present connection lacks. Where it breaks off, a later one gets the rest."""
        async with self._writing:
            while (message := self._unacked.take()) is not None:
                try:
                    await super()._put(message)
                except ConnectionError:
                    if self._reading.done():
                        raise
                    return

    async def _read(self) -> None:
        moving = None
        try:
            while True:
                if (event := await self._next(self.socket)) is None:
                    if moving is None or not self.follows or not await self._follow(moving):
                        return
                    moving = None
                elif event["type"] == "reconnect" and event["reason"] == HANDED_OVER:
                    moving = event  # what is told before the close still counts
                else:
                    self._note(event)
        finally:
            self._told.put_nowait(None)

    def _note(self, event: Json) -> None:
        kind = event["type"]
        if kind == "ready" and self._unacked.begun:
            return
        if kind == "ready":
            self.token = event["resume_token"]
            self._unacked.begin(event["next_offset"], _kept.get(self.conversation_id))
            _kept[self.conversation_id] = self._unacked
        elif kind == "ended":
            _kept.pop(self.conversation_id, None)
        elif kind == "ack":
            self._unacked.acknowledged(event["offset"])
        self._after_seq = max(self._after_seq, event.get("seq", 0))
        self._told.put_nowait(event)

    async def _follow(self, reconnect: Json) -> bool:
        """Go on over a new connection. Return False where that breaks before it begins."""
        super().drop()
        await asyncio.sleep(reconnect["after_ms"] / 1_000)
        socket = await self._door.open_in_time(resume_token=self.token, after_seq=self._after_seq)
        self.hand_overs += 1
        if (event := await self._next(socket)) is None:
            return False
        assert event["type"] == "ready", f"Not let in after a hand-over: {event}"
        async with self._writing:  # until then what is written goes to the old connection, and nowhere
            self.socket = socket
            self._unacked.go_back(event["next_offset"])
        self._sending_again = asyncio.create_task(self._write())
        return True


@asynccontextmanager
async def connected(url: str, key: str | None, conversation_id: str, /, **query: object) -> AsyncGenerator[Wire]:
    """A connection to the audio socket. Leaving drops it: what comes after is as if the network had failed.

    While audio moves, it is that of a client that follows.
    """
    token = str(query.get("resume_token", ""))
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        door = Door(session, f"{url}/v1/conversations/{conversation_id}/audio", query, headers)
        wire: Wire
        if MOVES:
            wire = FollowingWire(await door.open_in_time(), conversation_id, token, door)
        else:
            wire = Wire(await door.open(), conversation_id, token)
        try:
            yield wire
        finally:
            drop(wire)
            if isinstance(wire, FollowingWire):
                await wire.aclose()
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await wire.socket.close()


def drop(wire: Wire) -> None:
    """Break the connection without a word."""
    wire.drop()


async def converse(
    url: str,
    key: str,
    pcm: bytes,
    sizes: Sequence[int] = (3_200,),
    *,
    conversation_id: str | None = None,
    **query: object,
) -> Wire:
    """A whole conversation without any trouble, as fast as the server takes it. It comes again where it is asked to."""
    for wait_s in (1.0, 2.0, 4.0):
        try:
            return await _converse(url, key, pcm, sizes, conversation_id or new_id(), **query)
        except aiohttp.WSServerHandshakeError as error:
            if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            await asyncio.sleep(wait_s)  # as `Retry-After` says, on a machine that is busy with other tests
    return await _converse(url, key, pcm, sizes, conversation_id or new_id(), **query)


async def _converse(
    url: str, key: str, pcm: bytes, sizes: Sequence[int], conversation_id: str, **query: object
) -> Wire:
    async with connected(url, key, conversation_id, **query) as wire:
        ready = await wire.until("ready")
        wire.token = ready["resume_token"]
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(_send_all(wire, pcm, sizes))
            await wire.until("ended")
            assert await wire.until_closed() == 1000
            await sending
        return wire


async def _send_all(wire: Wire, pcm: bytes, sizes: Sequence[int]) -> None:
    await wire.send(pcm, *sizes)
    await wire.say(type="end")


def spans(events: Iterable[Json]) -> list[tuple[int, int, int]]:
    """(speaker, start, end) of each utterance, in order of speaker and time."""
    return sorted((e["speaker"], e["start_offset"], e["end_offset"]) for e in events if e["type"] == "utterance")


def texts(events: Iterable[Json]) -> str:
    """All that was said, in the order of the conversation."""
    said = sorted((e["speaker"], e["start_offset"], e["text"]) for e in events if e["type"] == "utterance")
    return " ".join(text for _, _, text in said)


def balanced(ledger: Json) -> bool:
    return bool(ledger["received"] == ledger["speech"] + ledger["silence"] + ledger["gap"])
