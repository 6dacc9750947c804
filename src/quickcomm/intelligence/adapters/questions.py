"""What other services ask of intelligence, over HTTP: prompt versions in force, costs, words about facts."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec
from aiohttp import web

from quickcomm.contracts.prompts import PromptsView
from quickcomm.contracts.questions import NARRATIVE, PROMPTS, USAGE, Narrated, ToNarrate
from quickcomm.contracts.usage import UsageReport
from quickcomm.kernel.errors import MALFORMED, InvalidInputError

Handler = Callable[[web.Request], Awaitable[web.Response]]
Admit = Callable[[web.Request], object]
"""Raises where the caller may not ask."""
MOST: Final = 200


class Asked(Protocol):
    """Who knows."""

    async def prompts(self) -> PromptsView: ...

    async def usage(self, site: str, conversation_id: str | None, limit: int) -> UsageReport: ...

    async def narrate(self, site: str, facts: str) -> str | None: ...


class Questions:
    def __init__(self, asked: Asked, admit: Admit) -> None:
        self._asked = asked
        self._admit = admit

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(PROMPTS, self._guarded(self._prompts)),
            web.get(USAGE, self._guarded(self._usage)),
            web.post(NARRATIVE, self._guarded(self._narrate)),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            self._admit(request)
            return await handler(request)

        return handle

    async def _prompts(self, _request: web.Request) -> web.Response:
        return _json(await self._asked.prompts())

    async def _usage(self, request: web.Request) -> web.Response:
        query = request.query
        limit = query.get("limit", "20")
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:6]) <= MOST):
            raise InvalidInputError(f"`limit` is a number from 1 to {MOST}.")
        return _json(await self._asked.usage(query.get("site", ""), query.get("conversation"), int(limit)))

    async def _narrate(self, request: web.Request) -> web.Response:
        try:
            wanted = msgspec.json.decode(await request.read(), type=ToNarrate)
        except MALFORMED as error:
            raise InvalidInputError(f"Not a question: {error}") from error
        return _json(Narrated(text=await self._asked.narrate(wanted.site, wanted.facts)))


def _json(value: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
