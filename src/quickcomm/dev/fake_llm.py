"""An OpenAI-compatible endpoint with chosen latency and faults, for load and failure tests. Started by `cli_dev`.

client ── POST /v1/chat/completions ──► dice: how long, and what goes wrong ──► answers ──► fitted to the schema
test   ── POST /control {"hang": 1.0} ──► from the next request on
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from quickcomm.dev.answers import Answers, Asked, Insights
from quickcomm.dev.faults import Behaviour, Dice, Fault, changed
from quickcomm.dev.schema import fitted
from quickcomm.kernel.errors import InvalidInputError

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
_CHARS_PER_TOKEN: Final = 4
_DRIP_BYTES: Final = 8
_DRIPS_PER_S: Final = 20.0
_TEXT: Final = 400

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return " ".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class _Schema(msgspec.Struct, frozen=True):
    schema: dict[str, Any] = {}
    name: str = ""


class _Format(msgspec.Struct, frozen=True):
    type: str = "text"
    json_schema: _Schema | None = None


class _Request(msgspec.Struct, frozen=True):
    messages: list[_Message]
    model: str = ""
    stream: bool = False
    response_format: _Format | None = None

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """What the answer must follow; an empty schema for "any JSON", None for text."""
        if self.response_format is None or self.response_format.type == "text":
            return None
        return self.response_format.json_schema.schema if self.response_format.json_schema else {}


class FakeModel:
    """The endpoint's state: how it behaves now, and what it did so far."""

    def __init__(
        self, answers: Answers, obeying: Answers, behaviour: Behaviour, *, model: str, api_key: str | None, seed: int
    ) -> None:
        self._answers, self._obeying = answers, obeying
        self.behaviour = behaviour
        self._model, self._api_key = model, api_key
        self._dice = Dice(seed)
        self._ids = itertools.count(1)
        self._counts: Counter[str] = Counter()
        self._in_flight = self._most_in_flight = 0
        self._died = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guarded])
        app.add_routes(
            [
                web.get("/v1/models", self.models),
                web.post("/v1/chat/completions", self.complete),
                web.get("/control", self.show),
                web.post("/control", self.change),
            ]
        )
        return app

    # -- the control route

    async def show(self, request: web.Request) -> web.Response:
        del request
        counts = {**self._counts, "in_flight": self._in_flight, "most_in_flight": self._most_in_flight}
        return _json({"behaviour": self.behaviour, "counts": counts})

    async def change(self, request: web.Request) -> web.Response:
        try:
            self.behaviour = changed(self.behaviour, await request.read())
        except InvalidInputError as error:
            return _error(400, "invalid_request_error", str(error))
        if self.behaviour.dead:
            self._died.set()
            self._died = asyncio.Event()  # for those that come after it is back
        return await self.show(request)

    # -- the model

    async def models(self, request: web.Request) -> web.Response:
        del request
        entry = {"id": self._model, "object": "model", "created": 0, "owned_by": "quickcomm"}
        return _json({"object": "list", "data": [entry]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = msgspec.json.decode(await request.read(), type=_Request)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            return _error(400, "invalid_request_error", f"No chat completion request: {error}")
        if asked.stream:
            return _error(400, "invalid_request_error", "This endpoint does not stream: leave out `stream`.")
        limit = self.behaviour.max_concurrent
        if limit and self._in_flight >= limit:
            return self._busy()
        self._counts["requests"] += 1
        self._in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        try:
            return await self._answer(request, asked)
        finally:
            self._in_flight -= 1

    async def _answer(self, request: web.Request, asked: _Request) -> web.StreamResponse:
        fault, latency = self._dice.fault(self.behaviour), self._dice.latency_s(self.behaviour)
        died = self._died
        if fault is not None:
            self._counts[fault] += 1
        if fault == "busy":
            return self._busy(counted=True)
        if await _happens(died, None if fault == "hang" else latency):
            return _broken(request)
        if fault == "error":
            return _error(500, "server_error", "The model fell over (a fault that was asked for).")
        body = _encode(self._completion(asked, fault))
        if fault == "drip":
            return await _drip(request, body, self.behaviour.drip_s, died)
        self._counts["answered"] += fault is None
        return web.Response(body=body, content_type="application/json")

    def _completion(self, asked: _Request, fault: Fault | None) -> dict[str, object]:
        content = self._content(asked)
        if fault == "wrong_schema":
            content = '{"answer":{"rooms":"412","urgency":7,"note":"not what was asked for"}}'
        if fault == "cut":
            content = content[: max(1, len(content) * 2 // 3)]
        prompt = sum(len(message.text) for message in asked.messages) // _CHARS_PER_TOKEN + 4 * len(asked.messages)
        written = len(content) // _CHARS_PER_TOKEN + 1
        message = {"role": "assistant", "content": content}
        return {
            "id": f"chatcmpl-fake-{next(self._ids)}",
            "object": "chat.completion",
            "created": 0,
            "model": asked.model or self._model,
            "choices": [{"index": 0, "message": message, "finish_reason": "length" if fault == "cut" else "stop"}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
        }

    def _content(self, asked: _Request) -> str:
        last = next((message.text for message in reversed(asked.messages) if message.role == "user"), "")
        schema = asked.schema
        if schema is None:
            return f"In short: {' '.join(last.split())[:_TEXT]}"
        about = _asked(last)
        answers = self._obeying if self.behaviour.obey else self._answers
        plain: object = msgspec.to_builtins(answers(about.utterance, about.context))
        return _encode(fitted(schema, plain, " ".join(about.utterance.split())) if schema else plain).decode()

    def _busy(self, *, counted: bool = False) -> web.Response:
        self._counts["busy"] += not counted
        wait = f"{self.behaviour.retry_after_s:g}"
        return _error(429, "rate_limit_exceeded", f"Too much at once; try again in {wait} s.", {"Retry-After": wait})

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/v1/"):
            if self.behaviour.dead:
                self._counts["dead"] += 1
                return _broken(request)
            if self._api_key and request.headers.get("Authorization") != f"Bearer {self._api_key}":
                return _error(
                    401, "invalid_api_key", "The API key is missing or wrong: send Authorization: Bearer KEY."
                )
        return await handler(request)


async def serve(model: FakeModel, host: str, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
    """Listen until `stop`; `ready` gets the port."""
    runner = web.AppRunner(model.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        ready(int(runner.addresses[0][1]))
        await stop.wait()
    finally:
        await runner.cleanup()


async def _happens(event: asyncio.Event, within_s: float | None) -> bool:
    """Wait for the event, no longer than that (None: for ever)."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _drip(request: web.Request, body: bytes, over_s: float, died: asyncio.Event) -> web.StreamResponse:
    """A few bytes at a time, evenly over that time."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    step = max(_DRIP_BYTES, int(len(body) / max(1.0, over_s * _DRIPS_PER_S)))
    pause = over_s * step / len(body)
    for start in range(0, len(body), step):
        if await _happens(died, pause):
            return _broken(request)
        await response.write(body[start : start + step])
    await response.write_eof()
    return response


def _broken(request: web.Request) -> web.Response:
    """End the connection without an answer; what is returned has nowhere to go."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _asked(content: str) -> Asked:
    """The utterance in a prompt's last message; the beginning of the message where it is no such JSON."""
    try:
        return msgspec.json.decode(content, type=Asked)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return Asked(content[:_TEXT])  # a long one would keep all others waiting


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(value), status=status, content_type="application/json")


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = _encode({"error": {"message": message, "type": code, "code": code, "param": None}})
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


__all__ = ["Answers", "FakeModel", "Insights", "serve"]
