"""What follows routes, and what is known of those who do."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from quickcomm.contracts.routes import Routes
from quickcomm.kernel.errors import ConflictError
from quickcomm.kernel.messaging.bus.port import BusUnavailableError


class StaleRoutesError(ConflictError):
    """The store has newer routes, or those of a newer controller."""

    code = "routes.stale"


class UnreadableRoutesError(BusUnavailableError):
    """The store has something else than routes, or routes of another release."""

    code = "routes.unreadable"


class FollowedRoutes(Protocol):
    """The newest routes that this process knows."""

    @property
    def routes(self) -> Routes: ...

    @property
    def in_force(self) -> int:
        """The newest version that the edge sends requests by."""
        ...

    async def known(self) -> Routes:
        """Return the routes in the store, without following them. Raises `BusUnavailableError`."""
        ...

    async def catch_up(self) -> Routes:
        """Take the routes in the store if they are newer, and return them. Raises `BusUnavailableError`."""
        ...

    def on_change(self, act: Callable[[], Awaitable[None]]) -> None:
        """Have `act` called at each change of either; a version is reported as followed once all have returned."""
        ...


class FixedRoutes:
    """Implements `FollowedRoutes` where nothing can move: in a process without a store, or of another deployment."""

    routes = Routes()
    in_force = 0

    async def known(self) -> Routes:
        return self.routes

    async def catch_up(self) -> Routes:
        return self.routes

    def on_change(self, act: Callable[[], Awaitable[None]]) -> None:
        """Remember nothing: there is no change."""
