"""Routes of a site, published by hand, and what the streams have of its conversations."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec
from tests.support.server import EVENTUALLY_S
from tests.support.site import Site

from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.routes import MONOLITH, ModuleRoute, Routes, Side
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.kernel.messaging.bus.redis_address import for_user
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import Names
from quickcomm.kernel.routing import RedisRoutes
from quickcomm.operate.up import store

M = TypeVar("M", InsightsFound, UtteranceTranscribed)
ONLOOKER: Final = "onlooker"
"""A group that acknowledges nothing: nothing is trimmed."""


class Routing:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._routes = RedisRoutes(link)
        self._names = Names()

    async def put(self, module: str, weight: int, decides: Side = MONOLITH) -> None:
        """Return when all processes follow it that are awake."""
        version = await self._routes.version() + 1
        routes = Routes(version=version, modules={module: ModuleRoute(mode="canary", weight=weight, decides=decides)})
        await self._routes.publish(routes, 1)
        async with asyncio.timeout(EVENTUALLY_S):
            while any(each < version for each in (await self._routes.followers()).values()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def keep(self) -> None:
        for name in [*self._names.parts(TRANSCRIPTS), *self._names.parts(INSIGHTS)]:
            await self._link.call("XGROUP", "CREATE", name, ONLOOKER, "0", "MKSTREAM")

    async def transcripts(self, conversation: str) -> list[UtteranceTranscribed]:
        return await self._messages(TRANSCRIPTS, conversation, UtteranceTranscribed)

    async def insights(self, conversation: str) -> list[InsightsFound]:
        return await self._messages(INSIGHTS, conversation, InsightsFound)

    async def _messages(self, stream: str, conversation: str, kind: type[M]) -> list[M]:
        found = await self._link.call("XRANGE", self._names.of_key(stream, conversation), "-", "+")
        mine = [fields[b"p"] for _, fields in found if fields[b"k"] == conversation.encode()]
        return [msgspec.json.decode(each, type=kind) for each in mine]


@asynccontextmanager
async def routing(site: Site) -> AsyncGenerator[Routing]:
    link = Link(for_user(store.url(site.layout), "up"))
    try:
        made = Routing(link)
        await made.keep()
        yield made
    finally:
        await link.aclose()
