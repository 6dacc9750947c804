"""A release of a service takes its place, or is taken back: the state machine, with crashes anywhere."""

from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.unit.test_migration_machine import AT, carried_out, kinds, moved_to

from quickcomm.contracts.routes import MONOLITH, SERVICE, ModuleRoute, Routes, place_of, release_of, side_of
from quickcomm.traffic.model import deploying, machine
from quickcomm.traffic.model.ladder import FULL, MODULES, RETIRED, SHADOW
from quickcomm.traffic.model.state import (
    Effect,
    RefusedError,
    RetireModule,
    ReviveModule,
    Settle,
    SiteState,
    StartProcesses,
    StopProcesses,
    WaitReady,
)

NAME: Final = "intelligence"
FIRST: Final = side_of("0.2.0-3f2a91")
SECOND: Final = side_of("0.3.0-aabbcc")


def services() -> SiteState:
    """Return a site whose monolith has ended."""
    site = SiteState()
    for name in MODULES:
        site = moved_to(site, name, RETIRED)
    return site


def deployed(site: SiteState, side: str = FIRST) -> tuple[SiteState, list[Effect]]:
    return carried_out(deploying.deploy(site, NAME, side, by="test").site, NAME)


def stepped(site: SiteState) -> tuple[SiteState, list[Effect]]:
    return carried_out(machine.step(site, NAME, by="test").site, NAME)


def in_the_end(site: SiteState) -> SiteState:
    while site.of(NAME).beside is not None:
        site, _ = stepped(site)
    return site


def test_all_know_of_both_sides_before_a_release_is_started() -> None:
    site, effects = deployed(services())
    assert kinds(effects) == ["WaitFollowed", "StartProcesses", "WaitReady", "Publish", "WaitFollowed"]
    route = site.of(NAME).route
    assert (site.of(NAME).stage, route.base, route.candidate, route.decides) == (SHADOW, SERVICE, FIRST, SERVICE)
    assert route.side(0) == SERVICE, "the shadow serves nobody"
    assert not route.runs(MONOLITH)


def test_a_release_that_has_all_of_it_is_the_service() -> None:
    before = services()
    site, _ = deployed(before)
    while site.of(NAME).stage != FULL:
        site, _ = stepped(site)
    assert site.of(NAME).route.decides == FIRST
    site, effects = stepped(site)
    assert kinds(effects) == ["RetireModule", "Publish", "WaitFollowed", "Settle", "WaitFollowed"]
    settle = next(effect for effect in effects if isinstance(effect, Settle))
    assert (settle.side, settle.without) == (FIRST, SERVICE)
    state = site.of(NAME)
    assert state.route == ModuleRoute(mode="retired", weight=10_000, decides=FIRST, candidate=FIRST)
    assert (state.monolith, state.service, state.beside, state.forced, state.auto) == (
        "ended",
        "complete",
        None,
        False,
        False,
    )
    assert all(site.of(name) == before.of(name) for name in MODULES if name != NAME)


def test_a_release_may_begin_with_a_larger_share() -> None:
    site, _ = carried_out(deploying.deploy(services(), NAME, FIRST, by="test", share=5_000).site, NAME)
    weights = []
    while site.of(NAME).beside is not None:
        site, _ = stepped(site)
        weights.append((site.of(NAME).route.mode, site.of(NAME).route.weight))
    assert weights == [("canary", 5_000), ("full", 10_000), ("retired", 10_000)]
    assert site.of(NAME).share == 0, "a later migration begins with its first step"


def test_the_next_release_goes_on_from_this_one() -> None:
    site, _ = deployed(in_the_end(deployed(services())[0]), SECOND)
    route = site.of(NAME).route
    assert (route.base, route.candidate) == (FIRST, SECOND)
    site = in_the_end(site)
    assert site.of(NAME).route.candidate == SECOND
    with pytest.raises(RefusedError, match="already"):
        deploying.deploy(site, NAME, SECOND, by="test")


@pytest.mark.parametrize("steps", range(6))
def test_a_rollback_gives_all_back_in_one_version_and_the_release_goes(steps: int) -> None:
    before = services()
    site, _ = deployed(before)
    for _ in range(steps):
        site, _ = stepped(site)
    site, effects = carried_out(machine.roll_back(site, NAME, by="test").site, NAME)
    if site.of(NAME).beside is not None:
        assert kinds(effects)[:2] == ["Publish", "WaitFollowed"], "nothing stands between a rollback and its end"
        assert site.of(NAME).stage == SHADOW
        site, effects = carried_out(machine.roll_back(site, NAME, by="test").site, NAME)
    assert kinds(effects)[-3:] == ["StopProcesses", "Settle", "WaitFollowed"]
    assert site.of(NAME).route == before.of(NAME).route
    assert site.of(NAME).monolith == "ended", "its process has ended, with the last module"


def test_whatever_is_killed_the_way_is_the_same() -> None:
    """A controller that is killed after any effect goes on to the same end."""

    def with_crashes(site: SiteState) -> SiteState:
        for _ in range(60):
            site = machine.resumed(msgspec.json.decode(msgspec.json.encode(site), type=SiteState))
            effect = machine.next_effect(site, NAME)
            if effect is None:
                return machine.finished(site, NAME, at_ns=AT).site
            done = machine.done(site, NAME, effect).site
            repeated = machine.next_effect(machine.resumed(done), NAME)
            if repeated is not None and type(repeated) is type(effect) and not isinstance(effect, Settle):
                return site  # it is repeated for as long as it is killed right there; the next test carries it out
            site = done
        raise AssertionError("it comes to no end")

    site = with_crashes(deploying.deploy(services(), NAME, FIRST, by="test").site)
    site, _ = carried_out(machine.resumed(site), NAME)
    while site.of(NAME).stage != FULL:
        site, _ = carried_out(machine.resumed(machine.step(site, NAME, by="test").site), NAME)
    change = machine.step(site, NAME, by="test").site
    for effects in range(5):
        again = change
        for _ in range(effects):
            effect = machine.next_effect(again, NAME)
            assert effect is not None
            again = machine.done(again, NAME, effect).site
        ended, _ = carried_out(machine.resumed(again), NAME)
        assert ended.of(NAME).route == ModuleRoute(mode="retired", weight=10_000, decides=FIRST, candidate=FIRST)


def test_a_rollback_in_the_middle_of_the_end_has_the_former_service_back() -> None:
    site, _ = deployed(services())
    while site.of(NAME).stage != FULL:
        site, _ = stepped(site)
    site = machine.step(site, NAME, by="test").site
    effect = machine.next_effect(site, NAME)
    assert effect is not None
    site = machine.done(site, NAME, effect).site  # the former one is stopped
    site, effects = carried_out(machine.roll_back(site, NAME, by="test").site, NAME)
    assert kinds(effects)[:3] == ["ReviveModule", "WaitReady", "Publish"]
    assert site.of(NAME).route.side(0) == SERVICE


def test_what_cannot_be_is_refused_with_the_way_out() -> None:
    site = moved_to(SiteState(), "dashboard", FULL)
    with pytest.raises(RefusedError, match="migrate step dashboard"):
        deploying.deploy(site, "dashboard", FIRST, by="test")
    site, _ = deployed(services())
    with pytest.raises(RefusedError, match="deploy intelligence --rollback"):
        machine.start(site, NAME, goal=MONOLITH, by="test")
    paused = machine.pause(services(), NAME, by="test", on=True).site
    with pytest.raises(RefusedError, match="paused"):
        deploying.deploy(paused, NAME, FIRST, by="test")


def test_the_kill_switch_gives_all_back_to_the_former_service() -> None:
    site, _ = deployed(services())
    site, _ = stepped(site)
    killed = machine.kill(site, NAME, by="test").site
    assert killed.of(NAME).route.weight == 0
    assert killed.of(NAME).route.side(0) == SERVICE
    assert killed.of(NAME).paused


def test_the_monolith_does_not_end_twice() -> None:
    site = moved_to(SiteState(), "dashboard", RETIRED)
    site = moved_to(site, NAME, RETIRED)
    site, _ = deployed(site)
    site = moved_to(site, "audio", FULL)
    site, effects = carried_out(machine.step(site, "audio", by="test").site, "audio")
    assert "EndMonolith" in kinds(effects), "what is on its way between two releases is not in the monolith"
    site = in_the_end(site)
    assert site.of(NAME).monolith in {"stopped", "ended"}


def test_sides_and_places_of_releases() -> None:
    assert (release_of(FIRST), release_of(SERVICE)) == ("0.2.0-3f2a91", "")
    assert place_of("dashboard", FIRST) == "dashboard@3f2a91"
    assert [place_of("dashboard", side) for side in (SERVICE, MONOLITH, "")] == ["dashboard"] * 3
    routes = Routes(modules={NAME: ModuleRoute(mode="off", base=SERVICE, candidate=FIRST, decides=SERVICE)})
    assert routes.of(NAME).leaves(MONOLITH)
    assert not routes.of(NAME).leaves(SERVICE)
    assert routes.unawaited == (f"intelligence@{FIRST}", f"summaries@{FIRST}")


class World:
    """What effects do: which sides of the service run, which routes are published."""

    def __init__(self) -> None:
        self.site = services()
        self.running = {SERVICE}
        self.number = 0

    def next_release(self) -> str:
        self.number += 1
        return side_of(f"0.{self.number}.0-{self.number:06x}")

    def carry_out(self, effects: int) -> None:
        """Carry out so many effects, or all that are left."""
        for _ in range(effects):
            effect = machine.next_effect(self.site, NAME)
            if effect is None:
                self.site = machine.finished(self.site, NAME, at_ns=AT).site
                return
            route = self.site.of(NAME).route
            match effect:
                case StartProcesses():
                    self.running.add(route.candidate)
                case ReviveModule():
                    self.running.add(route.base)
                case StopProcesses():
                    self.running.discard(route.candidate)
                case RetireModule():
                    assert route.weight == 10_000, "the base still serves"
                    self.running.discard(route.base)
                case WaitReady(side):
                    assert route.named(side) in self.running
                case Settle(side=side, without=without):
                    assert side in self.running
                    assert without not in self.running
                case _:
                    pass
            self.site = machine.done(self.site, NAME, effect).site
            self.check()

    def check(self) -> None:
        route = self.site.of(NAME).route
        serving = {route.side(0), route.side(9_999), route.decides}
        assert serving <= self.running, (route, self.running)


@given(st.data())
@examples(200)
def test_whatever_is_asked_and_killed_what_serves_runs(data: st.DataObject) -> None:
    world = World()
    commands = st.sampled_from(["deploy", "step", "promote", "rollback", "kill", "resume", "crash"])
    for command in data.draw(st.lists(commands, max_size=12)):
        try:
            match command:
                case "deploy":
                    world.site = deploying.deploy(world.site, NAME, world.next_release(), by="test").site
                case "step":
                    world.site = machine.step(world.site, NAME, by="test").site
                case "promote":
                    world.site = machine.promote(world.site, NAME, by="test").site
                case "rollback" if world.site.of(NAME).beside is not None:
                    world.site = machine.roll_back(world.site, NAME, by="test").site
                case "kill" if world.site.of(NAME).beside is not None:
                    world.site = machine.kill(world.site, NAME, by="test").site
                case "resume":
                    world.site = machine.pause(world.site, NAME, by="test", on=False).site
                case "crash":
                    world.site = machine.resumed(world.site)
        except RefusedError:
            continue
        world.check()
        world.carry_out(data.draw(st.integers(0, 12)))
    world.carry_out(99)
    assert machine.next_effect(world.site, NAME) is None
    assert world.site.of(NAME).change is None
