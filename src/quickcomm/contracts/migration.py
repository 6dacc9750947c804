"""Operators' commands for a migration: a module moves between the monolith and a service of its own, and back.

A command that changes something is answered with `MigrationDone` once the change is in force everywhere. Where that
takes too long the answer is an error that says who is behind; the change stays, and goes on.
"""

from typing import Annotated, ClassVar, Literal

import msgspec

from quickcomm.contracts.commands import Command
from quickcomm.contracts.evidence import Difference, FieldAgreement, Spending
from quickcomm.contracts.routes import MONOLITH, SERVICE, Mode, Side

MAX_ENTRIES = 10_000
Outcome = Literal["pass", "wait", "breach"]


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

    goal: Side = SERVICE
    force: bool = False


class StepMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.step"):
    """One step to the goal. `force`: whatever the gate says."""

    force: bool = False


class PromoteMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.promote"):
    """All to the service at once. `force`: whatever the gate says."""

    force: bool = False


class RollBackMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.rollback"):
    """All back to the monolith at once. The service stays complete, unless it had nothing yet: then it is stopped."""


class PauseMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.pause"):
    """Take no further step. A breach still rolls back."""


class ResumeMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.resume"): ...


class AutoMigration(MigrationChange, frozen=True, kw_only=True, tag="migrate.auto"):
    """Have the controller take the steps by itself, each when its gate has passed and its bake time is over."""

    on: bool = True


class KillMigration(OfTraffic, frozen=True, kw_only=True, tag="migrate.kill"):
    """Roll modules back to the monolith at once, in one version of the routes, and pause them.

    `name`: of one; None: all. Gives a list of `MigrationDone`.
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


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate found about one figure. `missing`: samples until it can pass; `in_s`: about how long that takes."""

    name: str
    outcome: Outcome
    detail: str = ""
    missing: int | None = None
    in_s: float | None = None


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
    """One module. `phase`: what the change under way does now; `problem`: why it does not get on."""

    name: str
    mode: Mode = "off"
    weight: int = 0
    decides: Side = MONOLITH
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
    understood: Understandings | None = None
    """None where nothing is understood on both sides."""
    heard: Hearings | None = None
    """None where nothing is heard on both sides."""


class MigrationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`followers`: the version that each living process follows; None: the store does not answer."""

    version: int
    epoch: int
    in_force: bool
    modules: tuple[ModuleMigration, ...]
    followers: dict[str, int] | None
    behind: tuple[str, ...] = ()
    audit: tuple[MigrationEntry, ...] = ()
