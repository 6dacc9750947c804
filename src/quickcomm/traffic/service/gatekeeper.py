"""Looks at the evidence: a breach rolls back by itself; where the operator wants it, what passes goes one step on."""

import asyncio
from typing import Final

import structlog

from quickcomm.contracts.migration import Figure, Hearings, Understandings
from quickcomm.contracts.routes import MONOLITH, SERVICE
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED, QuickCommError
from quickcomm.traffic.model import machine
from quickcomm.traffic.model.gates import Verdict, judge
from quickcomm.traffic.model.ladder import MODULES, SHADOW
from quickcomm.traffic.model.machine import CONTROLLER
from quickcomm.traffic.model.state import (
    BACK,
    ModuleState,
    Moved,
    RefusedError,
    SiteState,
    StartProcesses,
    WaitReady,
)
from quickcomm.traffic.ports import EvidenceSource, TrafficSettings
from quickcomm.traffic.service.controller import Controller

LOOK_EVERY_S: Final = 1.0
EVIDENCE_S: Final = 5.0
HOUR_S: Final = 3_600.0
NS: Final = 10**9
JUDGED: Final = frozenset({"shadow", "canary", "full"})

log = structlog.get_logger(__name__)


class Gatekeeper:
    def __init__(
        self, controller: Controller, evidence: EvidenceSource, clock: Clock, settings: TrafficSettings
    ) -> None:
        self._controller = controller
        self._evidence = evidence
        self._clock = clock
        self._settings = settings
        self.verdicts: dict[str, Verdict] = {}
        """The newest one of each module that has a gate now."""
        self.understood: dict[str, Understandings | None] = {}
        """What both sides understood, of each module that was judged."""
        self.heard: dict[str, Hearings | None] = {}
        """What both sides heard, likewise."""
        self._expected: dict[str, float | None] = {}

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Judge each module once, and act on it."""
        await asyncio.gather(*(self._look_at(name) for name in MODULES))

    async def judge(self, name: str) -> Verdict:
        """Return what the newest evidence says of one step further."""
        state = self._controller.site.of(name)
        try:
            async with self._clock.timeout(EVIDENCE_S):
                evidence = await self._evidence.of(name, state.since_ns, state.route)
        except (QuickCommError, TimeoutError, *MALFORMED) as error:
            self._forget(name)
            detail = f"cannot be read: {str(error) or 'no answer in time'}"
            return Verdict(outcome="wait", figures=(Figure(name="evidence", outcome="wait", detail=detail),))
        self.understood[name], self.heard[name] = evidence.understood, evidence.heard
        hourly = evidence.conversations_per_hour
        self._expected[name] = None if hourly is None else hourly * self._settings.bake_s / HOUR_S
        return judge(name, state.route.mode, evidence, self._settings)

    def expected(self, name: str) -> float | None:
        """Return how many conversations a step would see in its bake time; None if that is not known."""
        return self._expected.get(name)

    def bake_left_s(self, name: str) -> float | None:
        """Return for how long the controller will not go on by itself; None where there is no gate."""
        state = self._controller.site.of(name)
        if not _is_judged(state) or state.change is not None:
            return None
        return max(0.0, state.since_ns / NS + self._settings.bake_s - self._clock.now_ns() / NS)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _look_at(self, name: str) -> None:
        state = self._controller.site.of(name)
        if not _is_judged(state):
            self.verdicts.pop(name, None)
            self._forget(name)
            if _is_left_over(state):
                await self._take_back(name, state, state.why)
            elif problem := self._cannot_begin(name, state):
                await self._take_back(name, state, problem)
            return
        self.verdicts[name] = verdict = await self.judge(name)
        try:
            if verdict.outcome == "breach":
                await self._roll_back(name, state, verdict)
            elif verdict.outcome == "pass" and self._may_go_on(name, state):
                await self._step(name, state, verdict)
        except RefusedError as error:
            log.info("migration.not_stepped", module=name, reason=str(error))
        except QuickCommError as error:  # a full disk, or the end of the process: the next look tries again
            log.warning("migration.not_changed", module=name, reason=str(error))

    def _forget(self, name: str) -> None:
        for shown in (self.understood, self.heard):
            shown.pop(name, None)

    def _may_go_on(self, name: str, state: ModuleState) -> bool:
        return state.auto and not state.paused and state.change is None and self.bake_left_s(name) == 0.0

    async def _roll_back(self, name: str, judged: ModuleState, verdict: Verdict) -> None:
        why = str(verdict)
        log.warning("migration.breach", module=name, reason=why)

        def back(site: SiteState) -> Moved:
            if site.of(name) != judged:
                return Moved(site=site)
            return machine.roll_back(site, name, by=CONTROLLER, why=why, evidence=verdict.figures)

        await self._controller.change(back)

    def _cannot_begin(self, name: str, state: ModuleState) -> str:
        """Return why a release does not come up; empty where it does, or may."""
        if state.change is None or state.change.action != "deploy":
            return ""
        effect = machine.next_effect(self._controller.site, name)
        return self._controller.problems.get(name, "") if isinstance(effect, StartProcesses | WaitReady) else ""

    async def _take_back(self, name: str, seen: ModuleState, why: str) -> None:
        """Stop a release that was taken back, or does not come up."""

        def off(site: SiteState) -> Moved:
            same = site.of(name) == seen
            return machine.roll_back(site, name, by=CONTROLLER, why=why) if same else Moved(site=site)

        try:
            await self._controller.change(off)
        except QuickCommError as error:  # the next look tries again
            log.warning("migration.not_changed", module=name, reason=str(error))

    async def _step(self, name: str, judged: ModuleState, verdict: Verdict) -> None:
        def on(site: SiteState) -> Moved:
            if site.of(name) != judged:
                return Moved(site=site)
            expected, evidence = self.expected(name), verdict.figures
            return machine.step(site, name, by=CONTROLLER, why="gate passed", expected=expected, evidence=evidence)

        await self._controller.change(on)


def _is_left_over(state: ModuleState) -> bool:
    """Return True for a release that was taken back, and is still in the shadow."""
    return state.beside is not None and state.goal == MONOLITH and state.stage == SHADOW and state.change is None


def _is_judged(state: ModuleState) -> bool:
    """Return True while a service that is to take over can be judged; on the way back nothing is asked."""
    going_back = state.change is not None and state.change.action in BACK
    return state.goal == SERVICE and state.route.mode in JUDGED and not going_back
