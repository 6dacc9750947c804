"""A double of the server for the client's unit tests: each connection follows the next part of a script."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web


def utterance(seq: int, start: int = 0) -> dict[str, Any]:
    return {
        "seq": seq,
        "utterance_id": f"c-1:0:{start}",
        "speaker": 0,
        "start_offset": start,
        "end_offset": start + 800,
        "text": "towels",
        "words": [{"text": "towels", "start_offset": start, "end_offset": start + 800, "confidence": 0.9}],
        "confidence": 0.9,
        "colour": "a field of a newer server",
    }


INSIGHT = {
    "index": 0,
    "intent": "request_item",
    "department": "housekeeping",
    "urgency": "normal",
    "rooms": ["412"],
    "items": [{"name": "towel", "quantity": 2, "size": "new"}],
    "summary": "Bring towels to 412",
    "confidence": 0.8,
    "model": "m",
    "evidence": {"rooms": ["412"], "mood": ["new"]},
    "mood": "a field of a newer server",
}


class Line:
    """The server's end of one connection."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.request = request
        self.socket = socket

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send_str(json.dumps({"type": kind, **fields}))

    async def ready(self, next_offset: int = 0, max_unacked_ms: int = 60_000, **more: Any) -> None:
        await self.say(
            "ready",
            conversation_id=self.request.match_info["id"],
            resume_token=self.request.query["resume_token"],
            next_offset=next_offset,
            max_unacked_ms=max_unacked_ms,
            ack_interval_ms=100,
            from_the_future=True,
            **more,
        )

    async def hear(self) -> bytes | dict[str, Any]:
        """The next message: audio, or a parsed control message."""
        message = await self.socket.receive(timeout=10)
        if message.type is WSMsgType.BINARY:
            return bytes(message.data)
        assert message.type is WSMsgType.TEXT, message
        parsed: dict[str, Any] = json.loads(message.data)
        return parsed

    async def audio(self, size: int) -> bytes:
        """Audio messages until `size` bytes are there."""
        heard = b""
        while len(heard) < size:
            message = await self.hear()
            assert isinstance(message, bytes), message
            heard += message
        return heard

    async def until_end(self) -> bytes:
        heard = b""
        while isinstance(message := await self.hear(), bytes):
            heard += message
        assert message == {"type": "end"}
        return heard

    async def ended(self, **ledger: int) -> None:
        await self.say("ended", ledger={"received": 0, "speech": 0, "silence": 0, "gap": 0, **ledger})

    def cut(self) -> None:
        """Breaks the connection as a failing network does."""
        transport = self.request.transport
        assert transport is not None
        transport.close()


Part = Callable[[Line], Awaitable[None]]


class Refuse:
    """Answers the upgrade with an HTTP status."""

    def __init__(self, status: int, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class ScriptedServer:
    def __init__(self, parts: list[Part | Refuse]) -> None:
        self._parts = parts
        self.url = ""
        self.requests: list[web.Request] = []
        self.played = asyncio.Event()
        self.failures: list[BaseException] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        part = self._parts.pop(0)
        if isinstance(part, Refuse):
            return web.Response(status=part.status, headers=part.headers)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            await part(Line(request, socket))
        except BaseException as error:  # the test must see it, and not only the server's log
            self.failures.append(error)
            raise
        finally:
            if not self._parts:
                self.played.set()
        if not socket.closed:
            await socket.close()
        return socket


@asynccontextmanager
async def scripted(*parts: Part | Refuse, socket: Path | None = None) -> AsyncGenerator[ScriptedServer]:
    """Serve the parts, one a connection; on this Unix socket, if there is one."""
    script = ScriptedServer(list(parts))
    app = web.Application()
    app.router.add_get("/v1/conversations/{id}/audio", script.handle)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0) if socket is None else web.UnixSite(runner, str(socket))
    await site.start()
    if socket is None:
        script.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield script
    finally:
        await runner.cleanup()
    assert not script.failures, script.failures
