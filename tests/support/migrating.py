"""A site that a migration controller is tried on: processes that do what they are asked to, and evidence as given."""

from typing import Final

from quickcomm.contracts.routes import MONOLITH, ModuleRoute, Routes, Side, place_of
from quickcomm.kernel.routing import StaleRoutesError
from quickcomm.traffic.model.gates import Evidence, SideEvidence
from quickcomm.traffic.ports import SiteError

GOOD: Final = Evidence(
    differences=0,
    seconds=60.0,
    service=SideEvidence(queue_age_s=0.0, answered=1_000, errors=0, recent_errors=0),
    monolith=SideEvidence(queue_age_s=0.0, answered=1_000, errors=0),
)
BAD: Final = Evidence(differences=3)


class FakeSite:
    """Does what it is asked to, and remembers. `lacks`: why a side is not ready."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        """Services by their places: `dashboard`, or `dashboard@3f2a91` of a release."""
        self.gone: list[str] = []
        """What was deleted for good."""
        self.in_monolith = {"dashboard", "intelligence", "audio"}
        self.lacks: dict[Side, str] = {}
        self.refuses = ""
        self.calls: list[str] = []
        self.has_monolith = True
        """Whether its process runs."""

    async def start(self, module: str, side: Side) -> None:
        self._called("start")
        self.running.add(place_of(module, side))

    async def stop(self, module: str, side: Side) -> None:
        self._called("stop")
        self.running.discard(place_of(module, side))

    async def retire(self, module: str, side: Side) -> None:
        self._called("retire")
        (self.in_monolith if side == MONOLITH else self.running).discard(place_of(module, side))

    async def revive(self, module: str, side: Side) -> None:
        self._called("revive")
        if side != MONOLITH:
            self.running.add(place_of(module, side))
            return
        self.has_monolith = True
        self.in_monolith.add(module)

    async def go_on(self, module: str, side: Side, without: Side) -> None:
        self._called("go on")
        assert place_of(module, side) in self.running
        assert place_of(module, without) not in self.running
        self.gone.append(place_of(module, without))

    async def end(self) -> None:
        self._called("end")
        assert not self.in_monolith, "something would end with it"
        self.has_monolith = False

    async def ready(self, module: str, side: Side) -> str:
        self._called("ready")
        there = place_of(module, side) in (self.in_monolith if side == MONOLITH else self.running)
        return self.lacks.get(side, "") if there else "it does not run"

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.refuses:
            raise SiteError(self.refuses)


class FakeEvidence:
    def __init__(self) -> None:
        self.found = Evidence()

    async def of(self, module: str, since_ns: int, route: ModuleRoute) -> Evidence:
        del module, since_ns, route
        return self.found


class FakeRoutes:
    """A store in memory. Those in `following` follow at once."""

    def __init__(self) -> None:
        self.published = Routes()
        self.epoch = 0
        self.following = {"edge", "monolith"}

    async def publish(self, routes: Routes, epoch: int) -> None:
        if epoch < self.epoch or routes.version < self.published.version:
            raise StaleRoutesError("The store has the routes of a newer controller.")
        self.published, self.epoch = routes, epoch

    async def followers(self) -> dict[str, int]:
        return dict.fromkeys(self.following, self.published.version)

    async def version(self) -> int:
        return self.published.version
