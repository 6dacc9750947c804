"""An OpenAI-compatible endpoint that can misbehave in every way we know of. It answers, it does not understand."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

from quickcomm.intelligence.service.llm import PROBE

Json = dict[str, Any]
BESIDE: Final = {"summary": {"summary": "They talked about their work."}, "report": {"text": "A quiet shift."}}
"""What it answers to what is no utterance."""
TOKENS: Final = {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52}


class FakeLlm:
    """`mode` says how the next calls end; `gate` holds those in mode `gate` until it is set."""

    def __init__(self) -> None:
        self.mode = "answer"
        self.gate = asyncio.Event()
        self.calls: list[Json] = []
        self.probes = 0
        """Calls that are about no utterance."""
        self.headers: list[dict[str, str]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.refuses: set[str] = set()
        """Parameters that it does not know: 400, naming them."""
        self.obeys: dict[str, Json] = {}
        """What it finds otherwise where its instructions have these words."""
        self.models = ["fake-1"]
        self.retry_after: str | None = None
        self.base = ""
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """On the same port each time, so that it can be `back`."""
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self._complete), web.get("/v1/models", self._models)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Die: what is in flight breaks off, new connections are refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if said(body) == PROBE.text:
            self.probes += 1
        else:
            self.calls.append(body)
        self.headers.append(dict(request.headers))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._end(request, body)
        finally:
            self.at_once -= 1

    async def _end(self, request: web.Request, body: Json) -> web.StreamResponse:
        for name in self.refuses:
            asked = body.get("response_format", {}).get("type") if name.startswith("json_") else name
            if asked == name and (name.startswith("json_") or name in body):
                told = "response_format" if name.startswith("json_") else name
                error = {"message": f"Unsupported: {told}", "param": told, "code": "unsupported_parameter"}
                return web.json_response({"error": error}, status=400)
        mode = self.mode
        if mode == "gate":
            await self.gate.wait()
        elif mode == "hang":
            await asyncio.Event().wait()
        elif mode.isdigit():
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.json_response({"error": {"message": "no"}}, status=int(mode), headers=headers)
        elif mode == "no json":
            return web.Response(text="<html>Bad gateway</html>", content_type="text/html")
        elif mode == "drip":
            return await _drip(request, body)
        instructions = body["messages"][0]["content"]
        changed = [found for words, found in self.obeys.items() if words in instructions]
        return web.json_response(_completion(body, mode, *changed))


def said(body: Json) -> str:
    """The utterance that a request is about; empty if it is about none, as summaries are."""
    content: str = body["messages"][-1]["content"]
    if not content.startswith("{"):
        return content.rpartition("Utterance: ")[2]
    utterance: str = json.loads(content).get("utterance", "")
    return utterance


def draft(text: str) -> Json:
    return {
        "intent": "request_item",
        "department": "housekeeping",
        "urgency": "normal",
        "rooms": [],
        "items": [],
        "summary": f"Model: {text}"[:80],
        "confidence": 0.9,
        "evidence": {"rooms": [], "items": [], "urgency": []},
    }


def _completion(body: Json, mode: str, *changed: Json) -> Json:
    asked = body.get("response_format", {}).get("json_schema", {}).get("name", "")
    found = draft(said(body))
    for each in changed:
        found |= each
    content = json.dumps(BESIDE.get(asked, {"insights": [found]}))
    finish = "stop"
    if mode == "garbage":
        content = "Sure! Here are your insights."
    elif mode == "wrong":
        content = json.dumps({"insights": [{"intent": 7}]})
    elif mode == "empty":
        content = ""
    elif mode == "cut":
        content, finish = content[:20], "length"
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return {"id": "c", "object": "chat.completion", "model": body["model"], "choices": choices, "usage": TOKENS}


async def _drip(request: web.Request, body: Json) -> web.StreamResponse:
    """A byte now and then: never silent, never done."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for byte in json.dumps(_completion(body, "answer")).encode():
        await response.write(bytes([byte]))
        await asyncio.sleep(0.05)
    return response


@asynccontextmanager
async def fake_llm() -> AsyncIterator[FakeLlm]:
    fake = FakeLlm()
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()
