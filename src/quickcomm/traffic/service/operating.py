"""Answers operators: checks the gate, stores the change, and comes back when it is in force everywhere."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from quickcomm.contracts.migration import (
    AutoMigration,
    DeployRelease,
    Figure,
    GetMigration,
    KillMigration,
    ListMigrationAudit,
    MigrationDone,
    MigrationEntry,
    MigrationOverride,
    MigrationStatus,
    ModuleMigration,
    OverflowMigration,
    OverrideMigration,
    PauseMigration,
    PromoteMigration,
    ResumeMigration,
    RollBackMigration,
    StartMigration,
    StepMigration,
    WeighMigration,
)
from quickcomm.contracts.routes import MONOLITH, SERVICE, side_of
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConflictError, QuickCommError
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.traffic.model import deploying, machine, overflow
from quickcomm.traffic.model.ladder import MODULES, OFF
from quickcomm.traffic.model.state import ModuleState, Moved, RefusedError, SiteState
from quickcomm.traffic.ports import Journal
from quickcomm.traffic.service.controller import Controller, NotInForceError, who_is_behind
from quickcomm.traffic.service.gatekeeper import Gatekeeper

FORCED: Final = "forced"


class GateError(ConflictError):
    """The evidence does not allow a step further yet; the text says what is missing."""

    code = "migration.gate"


class _Passed(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate has passed: the module as it was then. Without a state, no gate was asked."""

    state: ModuleState | None = None
    evidence: tuple[Figure, ...] = ()
    why: str = ""

    def check(self, site: SiteState, name: str) -> tuple[Figure, ...]:
        """Return the evidence. Raises `RefusedError` where the module has moved meanwhile."""
        if self.state is not None and site.of(name) != self.state:
            raise RefusedError(f"{name} was changed by somebody else just now. See: quickcomm migrate status")
        return self.evidence


def _reason(*parts: str) -> str:
    return ", ".join(filter(None, parts))


class Operating:
    def __init__(self, controller: Controller, gates: Gatekeeper, journal: Journal, clock: Clock) -> None:
        self._controller = controller
        self._gates = gates
        self._journal = journal
        self._clock = clock

    def answers(self) -> Sequence[Answer]:
        """Return the requests that the controller answers."""
        return [
            (StartMigration, self._start),
            (DeployRelease, self._deploy),
            (StepMigration, self._step),
            (PromoteMigration, self._promote),
            (WeighMigration, self._weigh),
            (OverrideMigration, self._override),
            (OverflowMigration, self._overflow),
            (RollBackMigration, self._roll_back),
            (PauseMigration, self._pause),
            (ResumeMigration, self._resume),
            (AutoMigration, self._auto),
            (KillMigration, self._kill),
            (GetMigration, self._status),
            (ListMigrationAudit, self._audit),
        ]

    # -- changes ----------------------------------------------------------------------------------------------------

    async def _start(self, request: StartMigration) -> MigrationDone:
        return await self._done(
            request.name,
            lambda site: machine.start(site, request.name, goal=request.goal, by=request.by, force=request.force),
        )

    async def _deploy(self, request: DeployRelease) -> MigrationDone:
        name, auto, share = request.name, request.auto, request.share

        def transition(site: SiteState) -> Moved:
            moved = deploying.deploy(site, name, side_of(request.release), by=request.by, why=request.why, share=share)
            if not auto:
                return moved
            on = machine.automate(moved.site, name, by=request.by, on=True)
            return msgspec.structs.replace(on, entries=(*moved.entries, *on.entries))

        return await self._done(name, transition)

    async def _step(self, request: StepMigration) -> MigrationDone:
        passed, name = await self._passed(request.name, force=request.force), request.name

        def transition(site: SiteState) -> Moved:
            evidence, expected = passed.check(site, name), self._gates.expected(name)
            why = _reason(request.why, passed.why)
            return machine.step(site, name, by=request.by, why=why, expected=expected, evidence=evidence)

        return await self._done(name, transition)

    async def _promote(self, request: PromoteMigration) -> MigrationDone:
        passed, name = await self._passed(request.name, force=request.force), request.name

        def transition(site: SiteState) -> Moved:
            evidence = passed.check(site, name)
            why = _reason(request.why, passed.why)
            return machine.promote(site, name, by=request.by, why=why, evidence=evidence)

        return await self._done(name, transition)

    async def _weigh(self, request: WeighMigration) -> MigrationDone:
        name, weight = request.name, request.weight
        before = self._controller.site
        machine.weigh(before, name, weight=weight, by=request.by)  # what cannot be is refused before the gate is asked
        rises = weight > before.of(name).route.weight
        passed = await self._passed(name, force=request.force) if rises else _Passed()

        def transition(site: SiteState) -> Moved:
            evidence = passed.check(site, name)
            why = _reason(request.why, passed.why)
            return machine.weigh(site, name, weight=weight, by=request.by, why=why, evidence=evidence)

        return await self._done(name, transition)

    async def _override(self, request: OverrideMigration) -> MigrationDone:
        by, why, remove = request.by, request.why, request.side is None
        wanted = MigrationOverride(
            kind=request.kind,
            of=request.of,
            side=self._controller.site.of(request.name).route.named(request.side or MONOLITH),
            by=by,
            why=why,
            at_ns=self._clock.now_ns(),
        )
        return await self._done(
            request.name, lambda site: machine.override(site, request.name, wanted, remove=remove, by=by, why=why)
        )

    async def _overflow(self, request: OverflowMigration) -> MigrationDone:
        """Wait for nothing: who asks follows the routes."""
        name, now_ns = request.name, self._clock.now_ns()
        return await self._noted(
            name, lambda site: overflow.given_back(site, name, request.conversation_id, now_ns=now_ns)
        )

    async def _roll_back(self, request: RollBackMigration) -> MigrationDone:
        if request.release and self._controller.site.of(request.name).beside is None:
            raise RefusedError(f"{request.name}: no release is on its way. See: quickcomm migrate status")
        return await self._done(
            request.name, lambda site: machine.roll_back(site, request.name, by=request.by, why=request.why)
        )

    async def _pause(self, request: PauseMigration) -> MigrationDone:
        return await self._noted(request.name, partial(machine.pause, name=request.name, by=request.by, on=True))

    async def _resume(self, request: ResumeMigration) -> MigrationDone:
        return await self._noted(request.name, partial(machine.pause, name=request.name, by=request.by, on=False))

    async def _auto(self, request: AutoMigration) -> MigrationDone:
        return await self._noted(
            request.name, partial(machine.automate, name=request.name, by=request.by, on=request.on)
        )

    async def _kill(self, request: KillMigration) -> list[MigrationDone]:
        """Have all modules begin at once; then tell of each that does not get home."""
        began = self._clock.monotonic()
        moved = await self._controller.change(partial(machine.kill, only=request.name, by=request.by, why=request.why))
        found, faults = [], []
        for name in sorted({each.name for each in moved.entries if each.action != "pause"}, key=MODULES.index):
            try:
                await self._controller.in_force(name, moved.site.of(name).change)
                found.append(self._told(name, began, ()))
            except QuickCommError as error:
                faults.append(str(error))
        if faults:
            raise NotInForceError(" ".join(faults))
        return found

    async def _passed(self, name: str, *, force: bool) -> "_Passed":
        """Return what the gate allows. Raises `GateError`."""
        state = self._controller.site.of(name)
        if state.goal != SERVICE or state.change is not None or state.stage == OFF:
            return _Passed()  # back, no gate is asked; the rest is refused by the machine, which says why
        verdict = await self._gates.judge(name)
        if verdict.outcome != "pass" and not force:
            what = "A figure is a breach" if verdict.outcome == "breach" else "The gate has not passed yet"
            raise GateError(f"{name} stays at {state.stage}. {what}: {verdict}. Use --force to go on in spite of it.")
        return _Passed(state=state, evidence=verdict.figures, why=FORCED if force else "")

    async def _done(self, name: str, transition: Callable[[SiteState], Moved]) -> MigrationDone:
        began = self._clock.monotonic()
        moved = await self._controller.change(transition)
        await self._controller.in_force(name, moved.site.of(name).change)
        return self._told(name, began, moved.notes)

    async def _noted(self, name: str, transition: Callable[[SiteState], Moved]) -> MigrationDone:
        """Wait for nothing: only a flag is changed."""
        began = self._clock.monotonic()
        moved = await self._controller.change(transition)
        return self._told(name, began, moved.notes)

    def _told(self, name: str, began: float, notes: tuple[str, ...]) -> MigrationDone:
        route = self._controller.site.of(name).route
        return MigrationDone(
            name=name,
            mode=route.mode,
            weight=route.weight,
            decides=route.decides,
            version=self._controller.site.version,
            seconds=round(self._clock.monotonic() - began, 3),
            notes=notes,
        )

    # -- questions --------------------------------------------------------------------------------------------------

    async def _audit(self, request: ListMigrationAudit) -> list[MigrationEntry]:
        return await self._journal.audit(request.limit, request.name)

    async def _status(self, request: GetMigration) -> MigrationStatus:
        controller = self._controller
        try:
            followers = dict(await controller.followers())
        except QuickCommError:
            followers = None
        version = controller.site.version
        behind = who_is_behind(followers, version) if followers is not None and version else ()
        return MigrationStatus(
            version=version,
            epoch=controller.epoch,
            in_force=followers is not None and not behind,
            modules=tuple(self._module(name) for name in MODULES),
            followers=followers,
            behind=behind,
            audit=tuple(await self._journal.audit(request.entries)) if request.entries else (),
        )

    def _module(self, name: str) -> ModuleMigration:
        state, verdict = self._controller.site.of(name), self._gates.verdicts.get(name)
        change = state.change
        return ModuleMigration(
            name=name,
            mode=state.route.mode,
            weight=state.route.weight,
            decides=state.route.decides,
            base=state.route.base,
            candidate=state.route.candidate,
            goal=state.route.named(state.goal),
            paused=state.paused,
            auto=state.auto,
            since_ns=state.since_ns,
            why=state.why,
            change="" if change is None else f"{change.action} to {change.target}",
            phase=self._controller.phase(name),
            problem=self._controller.problems.get(name, ""),
            bake_left_s=self._gates.bake_left_s(name),
            gate=None if verdict is None else verdict.outcome,
            figures=() if verdict is None else verdict.figures,
            overrides=state.overrides,
            understood=self._gates.understood.get(name),
            heard=self._gates.heard.get(name),
        )
