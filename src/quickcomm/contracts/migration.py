"""Operators' commands for a migration: a module moves between the monolith and a service of its own, and back.

A command that changes something is answered with `MigrationDone` once the change is in force everywhere. Where that
takes too long the answer is an error that says who is behind; the change stays, and goes on.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from quickcomm.contracts.commands import Command
from quickcomm.contracts.evidence import Difference, FieldAgreement, Spending
from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.routes import MONOLITH, RELEASE, SERVICE, Mode, Side

MAX_ENTRIES = 10_000
ALL: Final = "all"
"""In place of the name of a module: whatever has moved."""
DECIDING: Final = frozenset({"dashboard", "intelligence"})
"""Modules of which one side decides: about edits, and about prompts. Of audio, each side has its conversations."""
MAX_NAME = 200
MAX_OVERRIDES = 100
"""Of a module: they are in each version of the routes, which every process reads. Those that end by themselves count
apart."""
OverrideKind = Literal["channel", "site", "conversation"]
Outcome = Literal["pass", "wait", "breach"]
MoveAction = Literal["start", "return", "step", "promote", "rollback", "kill", "pause", "resume", "auto", "manual"]
"""What people do with a module, on the page, over REST and on the command line. See `asked_for`."""


class OfTraffic(Command, frozen=True, kw_only=True):
    module: ClassVar = "traffic"
    callers: ClassVar = ("dashboard",)
    about: ClassVar = "how far the migration is"


class MigrationChange(OfTraffic, frozen=True, kw_only=True):
    """`by`: who asks; `why`: for the audit, too."""

    name: str
    by: str = ""
    why: str = ""


class StartMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.start"):
    """Set the goal of a module, and take the first step to it. `force`: whatever the order of the modules."""

    goal: Literal["monolith", "service"] = SERVICE
    force: bool = False


class DeployRelease(MigrationChange, frozen=True, kw_only=True, tag="migrate.deploy"):
    """Bring a release of a service up beside the service. `auto`: and have the controller take the further steps.

    `share`: of the buckets, that it gets first after the shadow; 0: those of the first step.
    The site must know the release: `InstallRelease`.
    """

    release: Annotated[str, msgspec.Meta(pattern=RELEASE)]
    auto: bool = True
    share: Annotated[int, msgspec.Meta(ge=0, lt=BUCKETS)] = 0


class StepMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.step"):
    """One step to the goal. `force`: whatever the gate says."""

    force: bool = False


class PromoteMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.promote"):
    """All to the service at once. `force`: whatever the gate says."""

    force: bool = False


class RollBackMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.rollback"):
    """All back to the monolith at once. The service stays complete, unless it had nothing yet: then it is stopped.

    `release`: refuse it unless a release is on its way; it goes back to the service as it was.
    """

    release: bool = False


class PauseMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.pause"):
    """Take no further step. A breach still rolls back."""


class ResumeMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.resume"): ...


class AutoMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.auto"):
    """Have the controller take the steps by itself, each when its gate has passed and its bake time is over."""

    on: bool = True


class WeighMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.weight"):
    """In a canary: another share, in the direction of the goal. `weight`: of the buckets. `force`: as for a step."""

    weight: Annotated[int, msgspec.Meta(ge=1, lt=BUCKETS)]
    force: bool = False


class OverrideMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.override"):
    """While both sides serve: give what is called `of` to a side, whatever its bucket. `side` None: remove that."""

    kind: OverrideKind
    of: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    side: Literal["monolith", "service"] | None = None


class OverflowMigration(OfTraffic, frozen=True, kw_only=True, tag="migrate.overflow"):
    """Give the monolith a conversation for which the service has no room, for some minutes.

    Answered once it is stored; the routes follow. Asked again for the same conversation, it changes nothing.
    """

    callers: ClassVar = ("audio",)

    name: str
    conversation_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]


class KillMigration(OfTraffic, frozen=True, kw_only=True, tag="migrate.kill"):
    """Roll modules back to the monolith at once, in one version of the routes, and pause them.

    `name`: of one; None: all that have moved. Gives a list of `MigrationDone`.
    """

    name: str | None = None
    by: str = ""
    why: str = ""


class GetMigration(OfTraffic, frozen=True, kw_only=True, tag="migrate.status"):
    """Gives `MigrationStatus`. `entries`: at most so many of the audit."""

    entries: Annotated[int, msgspec.Meta(ge=0, le=MAX_ENTRIES)] = 5


class ListMigrationAudit(OfTraffic, frozen=True, kw_only=True, tag="migrate.audit"):
    """Gives a list of `MigrationEntry`, newest first."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_ENTRIES)] = 50
    name: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for an action on which module, why, and whether in spite of what speaks against it."""

    name: str
    by: str
    why: str = ""
    force: bool = False


_REQUESTS: Final[Mapping[MoveAction, Callable[[Asked], OfTraffic]]] = {
    "start": lambda a: StartMigration(name=a.name, by=a.by, goal=SERVICE, force=a.force),
    "return": lambda a: StartMigration(name=a.name, by=a.by, goal=MONOLITH, force=a.force),
    "step": lambda a: StepMigration(name=a.name, by=a.by, why=a.why, force=a.force),
    "promote": lambda a: PromoteMigration(name=a.name, by=a.by, why=a.why, force=a.force),
    "rollback": lambda a: RollBackMigration(name=a.name, by=a.by, why=a.why),
    "kill": lambda a: KillMigration(name=None if a.name == ALL else a.name, by=a.by, why=a.why),
    "pause": lambda a: PauseMigration(name=a.name, by=a.by),
    "resume": lambda a: ResumeMigration(name=a.name, by=a.by),
    "auto": lambda a: AutoMigration(name=a.name, by=a.by, on=True),
    "manual": lambda a: AutoMigration(name=a.name, by=a.by, on=False),
}


def asked_for(action: MoveAction, name: str, *, by: str, why: str = "", force: bool = False) -> OfTraffic:
    """Return the request of an action. `name`: of a module; for `kill`, `ALL` as well."""
    return _REQUESTS[action](Asked(name=name, by=by, why=why, force=force))


# -- replies ----------------------------------------------------------------------------------------------------------


class MigrationDone(msgspec.Struct, frozen=True, kw_only=True):
    """The module as it is now. `notes`: what an operator should know of this change, such as a skipped step."""

    name: str
    mode: Mode
    weight: int
    decides: Side
    version: int
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


class FigureSide(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of one side. `low`, `high`: its bounds; None where so few samples give none."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    samples: int | None = None


class FigureNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """What a figure was decided by. `what`: the stage of a latency; empty elsewhere.

    `limit`: in the same unit, what the service is held against. `margin`: of `latency` and `cpu`, so many times as much
    as the monolith; of `errors`, so much more. `quantile`: of which `value` and bounds are.
    """

    what: str = ""
    outcome: Outcome
    unit: Literal["ms", "s", "share", "count"]
    service: FigureSide = FigureSide()
    monolith: FigureSide | None = None
    limit: float | None = None
    margin: float | None = None
    quantile: float | None = None


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate found about one figure. `missing`: samples until it can pass; `in_s`: about how long that takes.

    `detail`: `numbers` in words; these have an entry for each stage of a latency, else one.
    """

    name: str
    outcome: Outcome
    detail: str = ""
    missing: int | None = None
    in_s: float | None = None
    numbers: tuple[FigureNumbers, ...] = ()


class MigrationOverride(msgspec.Struct, frozen=True, kw_only=True):
    """What has a side of its own, whatever its bucket; who said so, and why."""

    kind: OverrideKind
    of: str
    side: Side
    by: str = ""
    why: str = ""
    at_ns: int = 0
    until_ns: int = 0
    """It ends by itself then; 0: it stays until it is removed."""


class MigrationEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit. `version`: of the routes, after it."""

    id: int = 0
    at_ns: int
    who: str
    name: str
    action: str
    before: str
    after: str
    version: int
    why: str = ""
    evidence: tuple[Figure, ...] = ()


class SideUnderstanding(msgspec.Struct, frozen=True, kw_only=True):
    """How long a side took for the utterances that both understood, and what it cost.

    `served`: all that it answered; `shadow`: what it understood as a shadow, which is in no other bill.
    """

    side: Side
    p50_ms: float | None = None
    p95_ms: float | None = None
    samples: int = 0
    served: Spending = Spending()
    shadow: Spending = Spending()


class Understandings(msgspec.Struct, frozen=True, kw_only=True):
    """How both sides understood the same utterances since the stage began: see `Shadowed`."""

    compared: int = 0
    alike: int = 0
    fields: tuple[FieldAgreement, ...] = ()
    sides: tuple[SideUnderstanding, ...] = ()
    unanswered: int = 0
    unserved: int = 0
    degraded: int = 0
    shed: int = 0
    differences: tuple[Difference, ...] = ()


class Hearings(msgspec.Struct, frozen=True, kw_only=True):
    """How both sides of audio heard the same conversations since the stage began: see `HeardInShadow`.

    `start_p95_ms`, `end_p95_ms`: so far apart began and ended 95 of 100 utterances, at most.
    """

    utterances: int = 0
    words: int = 0
    wrong: int = 0
    missed: int = 0
    extra: int = 0
    start_p95_ms: float | None = None
    end_p95_ms: float | None = None
    shed: int = 0
    lost: int = 0
    differences: tuple[Difference, ...] = ()


class ModuleMigration(msgspec.Struct, frozen=True, kw_only=True):
    """One module. `base`, `candidate`: its sides.

    `phase`: what the change under way does now; `problem`: why it does not get on.
    """

    name: str
    mode: Mode = "off"
    weight: int = 0
    decides: Side = MONOLITH
    base: Side = MONOLITH
    candidate: Side = SERVICE
    goal: Side = MONOLITH
    paused: bool = False
    auto: bool = False
    since_ns: int = 0
    why: str = ""
    change: str = ""
    phase: str = ""
    problem: str = ""
    bake_left_s: float | None = None
    gate: Outcome | None = None
    figures: tuple[Figure, ...] = ()
    overrides: tuple[MigrationOverride, ...] = ()
    understood: Understandings | None = None
    """None where nothing is understood on both sides."""
    heard: Hearings | None = None
    """None where nothing is heard on both sides."""


class MigrationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`followers`: the version that each living process follows; None: the store does not answer.

    `notes`: in the answer to an action, what an operator should know of it, such as a skipped step.
    """

    version: int
    epoch: int
    in_force: bool
    modules: tuple[ModuleMigration, ...]
    followers: dict[str, int] | None
    behind: tuple[str, ...] = ()
    audit: tuple[MigrationEntry, ...] = ()
    notes: tuple[str, ...] = ()


def with_decider(stage: str, name: str, decides: Side) -> str:
    """Return the words for a stage of a module, with the side that decides where one does."""
    return f"{stage}, the {decides} decides" if name in DECIDING else stage
