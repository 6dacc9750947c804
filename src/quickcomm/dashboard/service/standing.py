"""Where this dashboard stands while the site has two: which of them decides, and which one serves a client."""

from typing import Final

from quickcomm.contracts.routes import MONOLITH, Side, client_bucket, group_of
from quickcomm.dashboard.model.places import After
from quickcomm.kernel.discovery import Instance, Registry
from quickcomm.kernel.routing import FixedRoutes, FollowedRoutes

MODULE: Final = "dashboard"


class Standing:
    """`routes`: those of a site whose dashboard can move; without them, this one has everything to itself.

    `log_url`: of the store with the log of decisions, where other databases fold them, too. `registry`: of the
    processes of both sides.
    """

    def __init__(
        self,
        side: Side = MONOLITH,
        routes: FollowedRoutes | None = None,
        log_url: str | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.side = side
        self.log_url = log_url
        self._registry = registry
        self.routes: FollowedRoutes = routes or FixedRoutes()
        self._moves = routes is not None

    @property
    def decides(self) -> bool:
        """Return True if the routes give the lease of decisions to this side."""
        return not self._moves or self.routes.routes.of(MODULE).decides == self.side

    @property
    def version(self) -> int:
        """Return the version of the routes that this goes by."""
        return self.routes.routes.version

    def group(self, name: str) -> str:
        """Return the name of a consumer group on this side."""
        return group_of(name, self.side) if self._moves else name

    def instance(self, side: Side) -> Instance | None:
        """Return a process with a dashboard of that side; None where there is none, or nothing moves."""
        if self._registry is None or self.routes.routes.of(MODULE).mode == "off":
            return None
        found = (each for each in self._registry.instances() if each.has(MODULE))
        return next((each for each in found if (each.module == MONOLITH) == (side == MONOLITH)), None)

    def counted(self, after: After | None) -> After | None:
        """Return the place of a client; none where it does not say which of two dashboards it has counted by."""
        if after is not None and after.side is None and self._moves and self.version:
            return None
        return after

    def sends_away(self, credential: str) -> bool:
        """Return True if a client that signs in with this is served by the other side, and the edge knows it."""
        routes = self.routes.routes
        if not self._moves or not credential or self.routes.in_force < routes.version:
            return False
        return routes.of(MODULE).side(client_bucket(credential)) != self.side
