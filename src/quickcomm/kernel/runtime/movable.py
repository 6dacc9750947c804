"""Modules of a process that may be stopped and started while the others go on, and the routes that stay for them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, cast

from aiohttp import web

from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.http.app import Handler
from quickcomm.kernel.runtime.part import Part


async def _nothing(_name: str) -> None:
    """Do nothing."""


def _allow(_name: str) -> None:
    """Allow it."""


Builder = Callable[[], Awaitable[Part]]
"""Loads and builds the part of a module once more."""


class Movable(NamedTuple):
    """The modules of a process that may be stopped and started while the others go on.

    `builders`: by their names. `asleep`: those that are not built with the process, with the routes of their parts.
    `moves`: one that is stopped goes on in another process, and is told so. `retire`: called with the name of one that
    was stopped, or is not built.
    `check_stop`: raises where one must not be stopped now. `stand_ins`: routes that answer while the part with the same
    path does not run.
    """

    builders: Mapping[str, Builder] = MappingProxyType({})
    asleep: Mapping[str, Sequence[web.AbstractRouteDef]] = MappingProxyType({})
    moves: bool = False
    retire: Callable[[str], Awaitable[None]] = _nothing
    check_stop: Callable[[str], None] = _allow
    stand_ins: Sequence[web.RouteDef] = ()


async def asleep(_request: web.Request) -> web.StreamResponse:
    """Stand for the handler of a part that is not built. Raises `BusyError`."""
    raise BusyError("This part of the server has been stopped.")


class HeldRoute:
    """A route of a part, of which the application does not hold the handler: that goes when the part does."""

    def __init__(self, route: web.AbstractRouteDef, stand_in: Handler | None = None) -> None:
        """`stand_in`: answers while the part does not run; without one, the caller is told to come again."""
        self.route = route
        self._stand_in = stand_in
        self._handler: Handler | None = None
        if isinstance(route, web.RouteDef):
            self.take(route)
            self.route = web.RouteDef(route.method, route.path, self._handle, route.kwargs)

    def take(self, route: web.AbstractRouteDef) -> None:
        """Hand requests to the handler of this route, which is for the same path."""
        if isinstance(route, web.RouteDef):
            self._handler = cast("Handler", route.handler)  # no class-based views here

    def let_go(self) -> None:
        self._handler = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        handler = self._handler or self._stand_in or asleep
        return await handler(request)
