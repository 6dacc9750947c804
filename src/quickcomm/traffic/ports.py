"""What the controller needs from outside: its journal, the routes in the store, the site's processes, and evidence."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

import msgspec

from quickcomm.contracts.migration import MigrationEntry
from quickcomm.contracts.routes import ModuleRoute, Routes, Side
from quickcomm.kernel.errors import UnavailableError
from quickcomm.traffic.model.gates import Evidence, Limits
from quickcomm.traffic.model.state import Entry, SiteState

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class TrafficSettings(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `traffic`: the limits of the gates, and how long things may take."""

    answer_ms: Seconds = 200.0
    """An answer to a program or a page may take so long for 95 of 100."""
    bake_s: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    """A module stays at a stage for so long before the controller goes on by itself."""
    follow_s: Seconds = 10.0
    """So long a command waits until new routes are in force everywhere."""
    ready_s: Seconds = 300.0
    """So long a command waits until a side runs and has everything."""


class SiteError(UnavailableError):
    """The processes of the site cannot be asked, or refuse."""

    code = "migration.site"


class Journal(Protocol):
    """Where the controller's state and audit are kept, durably."""

    async def begin(self) -> tuple[SiteState, int]:
        """Return the stored state, and an epoch above all earlier ones."""
        ...

    async def store(self, site: SiteState, entries: Sequence[Entry]) -> None:
        """Store the state and append to the audit, in one transaction."""
        ...

    async def audit(self, limit: int, name: str | None = None) -> list[MigrationEntry]:
        """Return the newest entries, the newest first."""
        ...


class RoutesPort(Protocol):
    """Routes in the site's store. All raise `BusUnavailableError`."""

    async def publish(self, routes: Routes, epoch: int) -> None:
        """Raises `StaleRoutesError` where a newer controller, or newer routes, are in the store."""
        ...

    async def followers(self) -> Mapping[str, int]:
        """Return the version that each living process follows, by its name."""
        ...

    async def version(self) -> int:
        """Return the version in the store; 0 where it has none."""
        ...


class Site(Protocol):
    """The processes of a site. Each call may be repeated. All raise `QuickCommError`."""

    async def start(self, module: str, side: Side) -> None:
        """Have the processes of a side run, which is a service."""
        ...

    async def stop(self, module: str, side: Side) -> None:
        """Have none of them run."""
        ...

    async def retire(self, module: str, side: Side) -> None:
        """Have the base stop the module: the monolith, or a service that a release of it follows."""
        ...

    async def revive(self, module: str, side: Side) -> None:
        """Have the base run, and the module in it."""

    async def go_on(self, module: str, side: Side, without: Side) -> None:
        """Go on with one of two releases alone, also after a new start, and delete what the other one has kept."""
        ...

    async def end(self) -> None:
        """Have the monolith's process end, once nothing of what it has is left to be sent."""
        ...

    async def ready(self, module: str, side: Side) -> str:
        """Return why a side cannot serve yet; empty: it runs, and has all that the other one has."""
        ...


class EvidenceSource(Protocol):
    async def of(self, module: str, since_ns: int, route: ModuleRoute) -> Evidence:
        """Return what was measured since then of the sides of a route, within seconds. Raises `QuickCommError`."""
        ...
