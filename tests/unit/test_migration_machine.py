"""The state machine of a migration: any commands, followers that lag, crashes anywhere, and what always holds."""

from collections.abc import Callable
from typing import Final

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.examples import examples

from quickcomm.contracts.routes import MONOLITH, SERVICE, Routes, Side
from quickcomm.traffic.model import machine
from quickcomm.traffic.model.ladder import FULL, LADDER, MODULES, OFF, RETIRED, SHADOW, Stage, next_stage, route_of
from quickcomm.traffic.model.state import (
    BACK,
    Effect,
    Entry,
    ModuleState,
    Moved,
    MoveLease,
    Publish,
    RefusedError,
    RetireModule,
    ReviveModule,
    SiteState,
    StartProcesses,
    StopProcesses,
    UnknownMigrationError,
    WaitFollowed,
    WaitReady,
)

MANY: Final = 40
"""More effects than any change has."""
AT: Final = 7


def carried_out(site: SiteState, name: str) -> tuple[SiteState, list[Effect]]:
    """Carry out the change of a module to its end."""
    effects: list[Effect] = []
    while (effect := machine.next_effect(site, name)) is not None:
        effects.append(effect)
        site = machine.done(site, name, effect).site
        assert len(effects) < MANY
    return machine.finished(site, name, at_ns=AT).site, effects


def settled(site: SiteState) -> SiteState:
    for name in MODULES:
        site, _ = carried_out(site, name)
    return site


def moved_to(site: SiteState, name: str, stage: Stage, *, force: bool = False) -> SiteState:
    """Take a module to a stage."""
    site, _ = carried_out(machine.start(site, name, goal=SERVICE, by="test", force=force).site, name)
    while site.of(name).stage != stage:
        site, _ = carried_out(machine.step(site, name, by="test").site, name)
    return site


def kinds(effects: list[Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


# -- one change -------------------------------------------------------------------------------------------------------


def test_a_shadow_is_complete_before_it_is_published() -> None:
    _, effects = carried_out(machine.start(SiteState(), "dashboard", goal=SERVICE, by="test").site, "dashboard")
    assert kinds(effects) == ["StartProcesses", "WaitReady", "Publish", "WaitFollowed"]


def test_the_lease_moves_once_all_requests_go_to_the_service() -> None:
    site = moved_to(SiteState(), "dashboard", SHADOW)
    site, effects = carried_out(machine.promote(site, "dashboard", by="test").site, "dashboard")
    assert kinds(effects) == ["Publish", "WaitFollowed", "MoveLease", "WaitFollowed"]
    assert site.of("dashboard").route.decides == SERVICE


def test_forward_and_back_through_all_stages() -> None:
    site = moved_to(SiteState(), "dashboard", RETIRED)
    assert site.of("dashboard").monolith == "stopped"
    site, effects = carried_out(machine.start(site, "dashboard", goal=MONOLITH, by="test").site, "dashboard")
    assert kinds(effects) == ["ReviveModule", "WaitReady", "Publish", "WaitFollowed"]
    seen = []
    while site.of("dashboard").stage != OFF:
        site, effects = carried_out(machine.step(site, "dashboard", by="test").site, "dashboard")
        seen.append(site.of("dashboard").stage)
    assert seen == list(reversed(LADDER[:-2]))
    assert kinds(effects) == ["Publish", "WaitFollowed", "StopProcesses"]


@pytest.mark.parametrize("stage", LADDER[2:-1])
def test_a_rollback_is_one_version_and_waits_for_no_service(stage: Stage) -> None:
    site = moved_to(SiteState(), "dashboard", stage)
    site, effects = carried_out(machine.roll_back(site, "dashboard", by="test").site, "dashboard")
    assert kinds(effects) == ["Publish", "WaitFollowed"]
    assert site.of("dashboard").stage == SHADOW
    assert site.of("dashboard").goal == MONOLITH


def test_a_rollback_in_the_middle_of_retiring_has_the_monolith_start_the_module_again() -> None:
    site = moved_to(SiteState(), "dashboard", FULL)
    site = machine.step(site, "dashboard", by="test").site
    assert isinstance(machine.next_effect(site, "dashboard"), RetireModule)
    _, effects = carried_out(machine.roll_back(site, "dashboard", by="test").site, "dashboard")
    assert kinds(effects) == ["ReviveModule", "WaitReady", "Publish", "WaitFollowed"]


def test_a_rollback_while_the_service_starts_stops_it_again() -> None:
    site = machine.start(SiteState(), "dashboard", goal=SERVICE, by="test").site
    site = machine.done(site, "dashboard", StartProcesses()).site
    site, effects = carried_out(machine.roll_back(site, "dashboard", by="test").site, "dashboard")
    assert kinds(effects) == ["StopProcesses"]
    assert (site.of("dashboard").stage, site.version) == (OFF, 0)


def test_the_kill_switch_takes_all_back_in_one_version() -> None:
    site = moved_to(moved_to(SiteState(), "dashboard", FULL), "intelligence", LADDER[3])
    killed = machine.kill(site, by="test").site
    assert killed.version == site.version + 1
    assert all(route.weight == 0 and route.decides == MONOLITH for route in killed.routes.modules.values())
    assert settled(killed).routes == killed.routes
    assert [name for name, state in killed.modules.items() if state.paused] == ["dashboard", "intelligence"]


def test_the_kill_switch_leaves_alone_what_never_moved() -> None:
    assert machine.kill(SiteState(), by="test").site == SiteState()
    assert machine.kill(SiteState(), "audio", by="test").site.of("audio").paused
    site = moved_to(SiteState(), "dashboard", LADDER[3])
    killed = settled(machine.kill(site, by="test").site)
    assert set(killed.modules) == {"dashboard"}
    assert killed.of("dashboard").paused


def test_one_module_after_the_other_and_back_in_the_reverse_order() -> None:
    with pytest.raises(RefusedError, match="dashboard goes before intelligence, and is off"):
        machine.start(SiteState(), "intelligence", goal=SERVICE, by="test")
    site = moved_to(moved_to(SiteState(), "dashboard", FULL), "intelligence", SHADOW)
    with pytest.raises(RefusedError, match="intelligence goes back before dashboard"):
        machine.start(site, "dashboard", goal=MONOLITH, by="test")
    machine.start(site, "dashboard", goal=MONOLITH, by="test", force=True)
    moved_to(SiteState(), "audio", FULL, force=True)


def test_what_is_refused_says_what_to_do() -> None:
    with pytest.raises(UnknownMigrationError, match="dashboard, intelligence, audio"):
        machine.start(SiteState(), "edge", goal=SERVICE, by="test")
    with pytest.raises(RefusedError, match="quickcomm migrate start dashboard"):
        machine.step(SiteState(), "dashboard", by="test")
    with pytest.raises(RefusedError, match="nothing to roll back"):
        machine.roll_back(SiteState(), "dashboard", by="test")
    begun = machine.start(SiteState(), "dashboard", goal=SERVICE, by="test").site
    with pytest.raises(RefusedError, match="quickcomm migrate rollback dashboard"):
        machine.step(begun, "dashboard", by="test")
    paused = machine.pause(settled(begun), "dashboard", by="test", on=True).site
    with pytest.raises(RefusedError, match="quickcomm migrate resume dashboard"):
        machine.step(paused, "dashboard", by="test")


@pytest.mark.parametrize(("expected", "reached"), [(None, 100), (1_000, 100), (299, 500), (10, 5_000), (5, 10_000)])
def test_steps_that_would_see_nobody_are_skipped(expected: float | None, reached: int) -> None:
    stage, skipped = next_stage(SHADOW, SERVICE, expected)
    assert stage is not None
    assert stage.weight == reached
    assert len(skipped) == LADDER.index(stage) - 2
    moved = machine.step(moved_to(SiteState(), "dashboard", SHADOW), "dashboard", by="test", expected=expected)
    assert len(moved.notes) == len(skipped)


# -- any changes ------------------------------------------------------------------------------------------------------

names = st.sampled_from(MODULES)


class Migrations(RuleBasedStateMachine):
    """A controller that may die anywhere, beside a site that does what it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.site = SiteState()
        self.published: dict[int, Routes] = {0: Routes()}
        self.followers = {"edge": 0, "monolith": 0}
        self.runs = dict.fromkeys(MODULES, False)
        self.in_monolith = dict.fromkeys(MODULES, True)
        self.audit: list[Entry] = []

    @initialize(stages=st.tuples(*(st.sampled_from(LADDER) for _ in MODULES)))
    def begin(self, stages: tuple[Stage, ...]) -> None:
        """Somewhere on the way."""
        for name, stage in zip(MODULES, stages, strict=True):
            while self.site.of(name).stage != stage:
                self.take_on(name, promotes=False)
                self.carry_out_all(name)

    # -- commands

    @rule(name=names, goal=st.sampled_from([MONOLITH, SERVICE]), force=st.booleans())
    def start(self, name: str, goal: Side, *, force: bool) -> None:
        if self.command(lambda: machine.start(self.site, name, goal=goal, by="test", force=force)):
            assert self.site.of(name).goal == goal
            self.check_order(name)

    @rule(name=names)
    def step(self, name: str) -> None:
        if self.command(lambda: machine.step(self.site, name, by="test")):
            self.check_order(name)

    @rule(name=names, promotes=st.booleans())
    def take_on(self, name: str, *, promotes: bool) -> None:
        """Further towards the service, whatever the order and what has been said before."""
        self.command(lambda: machine.start(self.site, name, goal=SERVICE, by="test", force=True))
        act = machine.promote if promotes else machine.step
        self.command(lambda: act(self.site, name, by="test"))

    @rule(name=names)
    def promote(self, name: str) -> None:
        if self.command(lambda: machine.promote(self.site, name, by="test")):
            self.check_order(name)

    @rule(name=names)
    def roll_back(self, name: str) -> None:
        at_home = self.site.of(name).stage == OFF and self.site.of(name).change is None
        assert self.command(lambda: machine.roll_back(self.site, name, by="test")) != at_home

    @rule()
    def kill(self) -> None:
        assert self.command(lambda: machine.kill(self.site, by="test"))
        assert all(self.site.of(name).goal == MONOLITH or self.site.of(name).stage == OFF for name in MODULES)

    @rule(name=names, on=st.booleans())
    def pause(self, name: str, *, on: bool) -> None:
        assert self.command(lambda: machine.pause(self.site, name, by="test", on=on))

    @rule(name=names, on=st.booleans())
    def automate(self, name: str, *, on: bool) -> None:
        self.command(lambda: machine.automate(self.site, name, by="test", on=on))

    # -- what goes on

    @precondition(lambda self: self.moving)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        self.carry_out(data.draw(st.sampled_from(self.moving)))

    @property
    def moving(self) -> list[str]:
        return [name for name in MODULES if self.site.of(name).change is not None]

    def carry_out(self, name: str) -> None:
        """One effect; of a change of which none is left, its end."""
        effect = machine.next_effect(self.site, name)
        if effect is None:
            self.take(machine.finished(self.site, name, at_ns=AT))
        elif self.act(name, effect):
            self.take(machine.done(self.site, name, effect))

    @rule(name=names)
    def carry_out_all(self, name: str) -> None:
        for _ in range(MANY):
            if machine.next_effect(self.site, name) is None:
                break
            self.catch_up("edge")
            self.catch_up("monolith")
            self.carry_out(name)
        self.carry_out(name)
        assert self.site.of(name).change is None

    @precondition(lambda self: self.moving)
    @rule(data=st.data())
    def die_after_the_effect(self, data: st.DataObject) -> None:
        """Something was done, and it is not stored that it was."""
        name = data.draw(st.sampled_from(self.moving))
        effect = machine.next_effect(self.site, name)
        if effect is not None:
            self.act(name, effect)
        self.die()

    @rule()
    def die(self) -> None:
        goes_on = machine.resumed(self.site)
        assert settled(goes_on).routes == settled(self.site).routes
        self.site = goes_on

    @rule(who=st.sampled_from(["edge", "monolith"]))
    def catch_up(self, who: str) -> None:
        self.followers[who] = self.site.version

    # -- what must hold

    @invariant()
    def every_side_that_somebody_is_sent_to_is_there(self) -> None:
        for version in (*self.followers.values(), self.site.version):
            for name, route in self.published[version].modules.items():
                assert self.runs[name] or route.weight == 0, f"{name} is not served by the service"
                assert self.in_monolith[name] or route.weight == FULL.weight, f"{name} is not served by the monolith"
                assert self.in_monolith[name] or route.decides == SERVICE

    @invariant()
    def the_service_decides_where_it_has_all(self) -> None:
        for route in self.site.routes.modules.values():
            assert route.decides == MONOLITH or route.weight == FULL.weight
            assert any(route.weight == stage.weight and route.mode == stage.mode for stage in LADDER)

    @invariant()
    def the_audit_tells_where_each_module_is(self) -> None:
        for name, state in self.site.modules.items():
            told = [entry for entry in self.audit if entry.name == name and entry.action in {"publish", "lease"}]
            assert not told or told[-1].after.startswith(str(state.stage))
            assert told or state.version == 0

    @precondition(lambda self: any(state.change for state in self.site.modules.values()))
    @invariant()
    def a_change_was_asked_for(self) -> None:
        for name, state in self.site.modules.items():
            if state.change is not None:
                assert any(entry.name == name and entry.action == state.change.action for entry in self.audit)
                assert state.change.id <= self.site.changes

    # -- inside

    def command(self, transition: Callable[[], Moved]) -> bool:
        before = self.site
        try:
            moved = transition()
        except RefusedError:
            return False
        self.take(moved)
        for name in MODULES:
            old, new = before.of(name).change, self.site.of(name).change
            if old is not None and new != old:
                assert any(entry.name == name and entry.action == "abandoned" for entry in moved.entries)
        return True

    def take(self, moved: Moved) -> None:
        """Store a state: what it publishes is new, and goes the right way."""
        before, self.site = self.site, moved.site
        self.audit += moved.entries
        seen = [name for name in MODULES if _visible(before.of(name)) != _visible(self.site.of(name))]
        assert set(seen) <= {entry.name for entry in moved.entries}
        if self.site.version == before.version:
            assert self.site.routes.modules.keys() >= before.routes.modules.keys()
            assert all(before.of(name).route == self.site.of(name).route for name in MODULES)
            return
        assert self.site.version == before.version + 1
        self.published[self.site.version] = self.site.routes
        for name in MODULES:
            old, new, change = before.of(name).route, self.site.of(name).route, self.site.of(name).change
            if old != new:
                assert change is not None
                is_back = change.action in BACK or self.site.of(name).goal == MONOLITH
                assert new.weight <= old.weight if is_back else new.weight >= old.weight
            if old.decides == MONOLITH and new.decides == SERVICE:
                assert all(
                    self.published[version].of(name).weight == FULL.weight for version in self.followers.values()
                )

    def act(self, name: str, effect: Effect) -> bool:
        """Do it, as far as the site can now; return False if it has to be waited for."""
        match effect:
            case StartProcesses():
                self.runs[name] = True
            case StopProcesses():
                self.runs[name] = False
            case RetireModule():
                self.in_monolith[name] = False
            case ReviveModule():
                self.in_monolith[name] = True
            case WaitReady(side):
                return self.runs[name] if side == SERVICE else self.in_monolith[name]
            case WaitFollowed(version):
                return all(follows >= version for follows in self.followers.values())
            case Publish() | MoveLease():
                pass
        return True

    def check_order(self, name: str) -> None:
        state, place = self.site.of(name), MODULES.index(name)
        if state.change is None or state.forced:
            return
        if state.goal == SERVICE:
            assert all(self.site.of(other).stage in {FULL, RETIRED} for other in MODULES[:place])
        else:
            assert all(self.site.of(other).route.weight == 0 for other in MODULES[place + 1 :])


def _visible(state: ModuleState) -> object:
    return (state.route, state.goal, state.paused, state.auto, state.change)


Migrations.TestCase.settings = examples(200, stateful_step_count=60)
TestMigrations = Migrations.TestCase


def test_the_state_survives_its_encoding() -> None:
    site = machine.step(moved_to(SiteState(), "dashboard", LADDER[3]), "dashboard", by="test").site
    assert msgspec.json.decode(msgspec.json.encode(site), type=SiteState) == site
    assert route_of(OFF, site.of("dashboard").route) == ModuleState().route
