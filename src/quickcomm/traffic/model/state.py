"""What the controller stores of a migration: routes, goals, and the change under way as a durable intention."""

from typing import Final, Literal

import msgspec

from quickcomm.contracts.migration import Figure, MigrationOverride
from quickcomm.contracts.routes import MONOLITH, ModuleRoute, Routes, Side
from quickcomm.kernel.errors import ConflictError, NotFoundError
from quickcomm.traffic.model.ladder import MODULES, Stage, stage_of

Action = Literal["start", "deploy", "step", "promote", "weight", "override", "rollback", "kill"]
Role = Literal["monolith", "service"]
"""Of the two sides of a module: the base is in the role of the monolith, the candidate in that of the service."""
ServiceState = Literal["stopped", "unknown", "running", "complete"]
"""Of the service's processes. unknown: they may run or not; running: they may lack history."""
MonolithState = Literal["serving", "unknown", "running", "stopped", "ended"]
"""Of the module in the monolith. unknown: it may have been stopped; running: it may lack what came meanwhile; ended:
it was the last one there, and was followed by the end of the process."""
BACK: Final = frozenset({"rollback", "kill"})
STOPPED: Final[frozenset[MonolithState]] = frozenset({"stopped", "ended"})


class RefusedError(ConflictError):
    """The state of the migration does not allow the command; the text says why, and what to do."""

    code = "migration.refused"


class UnknownMigrationError(NotFoundError):
    code = "migration.unknown"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """An intention: stored before its effects, which are repeated after a crash."""

    id: int
    action: Action
    target: Stage
    by: str
    why: str = ""


class ModuleState(msgspec.Struct, frozen=True, kw_only=True):
    """Of one module. `version`: of its newest route; `followed`: the newest one that was in force everywhere."""

    route: ModuleRoute = ModuleRoute()
    version: int = 0
    followed: int = 0
    service: ServiceState = "stopped"
    monolith: MonolithState = "serving"
    goal: Role = MONOLITH
    """`service`, `monolith`: the fields of these names are about the side in that role, too."""
    beside: MonolithState | None = None
    """Where both sides are releases of the service: how the module is in the monolith meanwhile. Else None."""
    share: int = 0
    """Of a release: the buckets that it gets first; 0: those of the first step."""
    change: Change | None = None
    paused: bool = False
    auto: bool = False
    forced: bool = False
    since_ns: int = 0
    why: str = ""
    overrides: tuple[MigrationOverride, ...] = ()
    """As they are wanted; the route has them once they are published."""

    @property
    def stage(self) -> Stage:
        return stage_of(self.route)


class SiteState(msgspec.Struct, frozen=True, kw_only=True):
    """Of all modules. `version`: of the routes; `changes`: how many intentions there were."""

    version: int = 0
    changes: int = 0
    modules: dict[str, ModuleState] = {}

    def of(self, name: str) -> ModuleState:
        """Return the state of a module. Raises `UnknownMigrationError`."""
        if name not in MODULES:
            raise UnknownMigrationError(f"There is no module {name!r} to migrate. There are: {', '.join(MODULES)}.")
        return self.modules.get(name, ModuleState())

    def put(self, name: str, state: ModuleState) -> "SiteState":
        """Return the state of all with this one of a module."""
        return msgspec.structs.replace(self, modules={**self.modules, name: state})

    @property
    def routes(self) -> Routes:
        return Routes(version=self.version, modules={name: state.route for name, state in self.modules.items()})


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the audit, without its time."""

    who: str
    name: str
    action: str
    before: str
    after: str
    why: str = ""
    evidence: tuple[Figure, ...] = ()


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A new state, and what the audit says of the way to it. Without entries, nothing has changed."""

    site: SiteState
    entries: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()


# -- effects, each of which may be repeated ---------------------------------------------------------------------------


class StartProcesses(msgspec.Struct, frozen=True, tag=True):
    """Have the service's processes started."""

    def __str__(self) -> str:
        return "starting the service"


class WaitReady(msgspec.Struct, frozen=True, tag=True):
    """Wait until a side runs and has all that the other one has."""

    side: Role

    def __str__(self) -> str:
        return f"waiting until the {self.side} has everything"


class Publish(msgspec.Struct, frozen=True, tag=True):
    """Store and publish a route under a new version."""

    route: ModuleRoute

    def __str__(self) -> str:
        return f"publishing: {stage_of(self.route)}"


class Settle(Publish, frozen=True, tag=True):
    """Have the site go on with one of two releases alone, and publish a route without the other one, `without`."""

    side: Side
    without: Side

    def __str__(self) -> str:
        return f"going on with the {self.side} alone"


class MoveLease(Publish, frozen=True, tag=True):
    """Publish who decides from now on, nothing else."""

    def __str__(self) -> str:
        return f"moving the write lease to the {self.route.decides}"


class WaitFollowed(msgspec.Struct, frozen=True, tag=True):
    """Wait until all processes and the edge follow a version."""

    version: int

    def __str__(self) -> str:
        return f"waiting until version {self.version} is in force everywhere"


class RetireModule(msgspec.Struct, frozen=True, tag=True):
    """Have the monolith stop the module."""

    def __str__(self) -> str:
        return "stopping the module in the monolith"


class ReviveModule(msgspec.Struct, frozen=True, tag=True):
    """Have the monolith start the module again."""

    def __str__(self) -> str:
        return "starting the module in the monolith"


class EndMonolith(msgspec.Struct, frozen=True, tag=True):
    """Have the monolith's process end: none of its modules is left there."""

    def __str__(self) -> str:
        return "ending the monolith's process"


class StopProcesses(msgspec.Struct, frozen=True, tag=True):
    """Have the service's processes stopped."""

    def __str__(self) -> str:
        return "stopping the service"


Effect = (
    StartProcesses
    | WaitReady
    | Publish
    | MoveLease
    | Settle
    | WaitFollowed
    | RetireModule
    | ReviveModule
    | EndMonolith
    | StopProcesses
)
