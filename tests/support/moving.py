"""Routes published by hand into the store of a real site, as the controller does it."""

import asyncio
from typing import Final

from tests.support.site import Site

from quickcomm.contracts.routes import ModuleRoute, Routes
from quickcomm.kernel.messaging.bus.redis_address import for_user
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.routing import RedisRoutes
from quickcomm.operate.up import store
from quickcomm.operate.up.access import UP

WITHIN_S: Final = 20.0
EPOCH: Final = 1


class Moving:
    """`routes`: those that were published last."""

    def __init__(self, site: Site) -> None:
        self._link = Link(for_user(store.url(site.layout), UP))
        self._store = RedisRoutes(self._link)
        self.routes = Routes()

    async def to(self, **modules: ModuleRoute) -> None:
        """Publish, and come back when everybody follows."""
        version = self.routes.version + 1
        self.routes = Routes(version=version, modules={**self.routes.modules, **modules})
        await self._store.publish(self.routes, EPOCH)
        async with asyncio.timeout(WITHIN_S):
            while not (found := await self._store.followers()) or min(found.values()) < version:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def aclose(self) -> None:
        await self._link.aclose()
