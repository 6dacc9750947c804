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

PATIENCE_S: Final = 60.0
Json = dict[str, Any]


def new_id(name: str = "c") -> str:
    return f"{name}-{secrets.token_hex(6)}"


class Wire:
    """One connection. Everything heard is kept, in order, in `heard`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, conversation_id: str, token: str) -> None:
        self.socket = socket
        self.conversation_id = conversation_id
        self.token = token
        self.heard: list[Json] = []
        self.close_code: int | None = None

    async def hear(self) -> Json | None:
        """The next event; None when the server has closed."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self.socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            event: Json = json.loads(message.data)
            self.heard.append(event)
            return event
        assert message.type is not aiohttp.WSMsgType.BINARY, "The server sends no binary messages."
        self.close_code = self.socket.close_code
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
        await self.socket.send_str(json.dumps(message))

    async def send(self, pcm: bytes, *sizes: int) -> None:
        """Binary messages of the given sizes, over and over, until everything is sent."""
        at, turn = 0, 0
        while at < len(pcm):
            size = sizes[turn % len(sizes)] if sizes else len(pcm)
            await self.socket.send_bytes(pcm[at : at + size])
            at, turn = at + size, turn + 1

    async def end(self) -> Json:
        """Say that it is over, and wait for `ended` and the close."""
        await self.say(type="end")
        ended = await self.until("ended")
        assert await self.until_closed() == 1000
        return ended

    def of(self, kind: str) -> list[Json]:
        return [event for event in self.heard if event["type"] == kind]

    @property
    def durable(self) -> list[Json]:
        return [event for event in self.heard if "seq" in event]

    @property
    def last_seq(self) -> int:
        return max((event["seq"] for event in self.durable), default=0)


@asynccontextmanager
async def connected(url: str, key: str | None, conversation_id: str, /, **query: object) -> AsyncGenerator[Wire]:
    """A connection to the audio socket. Leaving drops it: what comes after is as if the network had failed."""
    token = str(query.get("resume_token", ""))
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        socket = await session.ws_connect(
            f"{url}/v1/conversations/{conversation_id}/audio",
            params={name: str(value) for name, value in query.items()},
            headers=headers,
            max_msg_size=0,
        )
        wire = Wire(socket, conversation_id, token)
        try:
            yield wire
        finally:
            drop(wire)
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await socket.close()


def drop(wire: Wire) -> None:
    """Break the connection without a word."""
    connection = wire.socket._response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


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
