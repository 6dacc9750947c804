"""The state machine of a migration: any commands, followers that lag, crashes anywhere, and what always holds."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.examples import examples

from quickcomm.contracts.migration import MAX_OVERRIDES, MigrationOverride, OverrideKind
from quickcomm.contracts.routes import MONOLITH, SERVICE, Routes, Side
from quickcomm.traffic.model import machine, overflow
from quickcomm.traffic.model.ladder import FULL, LADDER, MODULES, OFF, RETIRED, SHADOW, Stage, next_stage, route_of
from quickcomm.traffic.model.machine import CONTROLLER
from quickcomm.traffic.model.overflow import NS
from quickcomm.traffic.model.state import (
    BACK,
    Effect,
    EndMonolith,
    Entry,
    ModuleState,
    Moved,
    MoveLease,
    Publish,
    RefusedError,
    RetireModule,
    ReviveModule,
    Role,
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


def all_retired(last: str = "audio") -> SiteState:
    site = SiteState()
    for name in (*(each for each in MODULES if each != last), last):
        site = moved_to(site, name, FULL if name == last else RETIRED, force=True)
    return site


@pytest.mark.parametrize("last", MODULES)
def test_the_process_of_the_monolith_ends_with_the_last_module_and_is_there_again_for_the_first(last: str) -> None:
    site, effects = carried_out(machine.step(all_retired(last), last, by="test").site, last)
    assert kinds(effects) == ["RetireModule", "Publish", "WaitFollowed", "EndMonolith"]
    for name in (last, *(each for each in reversed(MODULES) if each != last)):
        begun = machine.start(site, name, goal=MONOLITH, by="test", force=True).site
        site, effects = carried_out(begun, name)
        assert kinds(effects) == ["ReviveModule", "WaitReady", "Publish", "WaitFollowed"]
    site, effects = carried_out(machine.start(site, last, goal=SERVICE, by="test", force=True).site, last)
    site, effects = carried_out(machine.step(site, last, by="test").site, last)
    assert kinds(effects) == ["RetireModule", "Publish", "WaitFollowed"], "the others are at full"


def test_the_process_does_not_end_while_a_module_is_on_its_way_back() -> None:
    site = machine.step(all_retired(), "audio", by="test").site
    while not isinstance(effect := machine.next_effect(site, "audio"), EndMonolith):
        assert effect is not None
        site = machine.done(site, "audio", effect).site
    back = machine.start(site, "dashboard", goal=MONOLITH, by="test", force=True).site
    assert machine.next_effect(back, "audio") is None
    settled_site = settled(back)
    assert {name: settled_site.of(name).monolith for name in MODULES} == {
        "dashboard": "serving",
        "intelligence": "stopped",
        "audio": "stopped",
    }


def test_after_a_crash_a_module_that_is_retired_is_not_in_a_monolith_that_was_started_meanwhile() -> None:
    site = machine.step(all_retired(), "audio", by="test").site
    while not isinstance(effect := machine.next_effect(site, "audio"), EndMonolith):
        assert effect is not None
        site = machine.done(site, "audio", effect).site
    assert kinds(carried_out(machine.resumed(site), "audio")[1]) == ["WaitFollowed", "EndMonolith"]
    ended = machine.done(site, "audio", EndMonolith()).site
    assert kinds(carried_out(machine.resumed(ended), "audio")[1]) == ["WaitFollowed"], "there is nothing to ask"
    back = machine.start(settled(ended), "audio", goal=MONOLITH, by="test").site
    for effect in (ReviveModule(), WaitReady(MONOLITH)):
        back = machine.done(back, "audio", effect).site
        assert kinds(carried_out(machine.resumed(back), "audio")[1])[:2] == ["ReviveModule", "WaitReady"]


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


# -- by hand ----------------------------------------------------------------------------------------------------------

DESK: Final[dict[str, Any]] = {"kind": "channel", "of": "desk"}


def override(site: SiteState, name: str, *, side: Side | None, by: str = "ann", why: str = "", **of: Any) -> Moved:
    """Have something overridden; None: remove that."""
    wanted = MigrationOverride(side=side or MONOLITH, by=by, why=why, at_ns=AT, **of)
    return machine.override(site, name, wanted, remove=side is None, by=by, why=why)


def intelligence_at(stage: Stage) -> SiteState:
    return moved_to(SiteState(), "intelligence", stage, force=True)


def audio_at(stage: Stage) -> SiteState:
    return moved_to(SiteState(), "audio", stage, force=True)


def pinned(site: SiteState, to: Side | None, **of: Any) -> SiteState:
    """Override something in intelligence, to the end of it."""
    moved = override(site, "intelligence", side=to, by="ann", why="loud", **(of or DESK))
    return carried_out(moved.site, "intelligence")[0]


def test_a_share_by_hand_goes_in_the_direction_of_the_goal_and_no_further_than_a_canary() -> None:
    site = moved_to(SiteState(), "dashboard", LADDER[3])
    site, effects = carried_out(machine.weigh(site, "dashboard", weight=1_750, by="test").site, "dashboard")
    assert kinds(effects) == ["Publish", "WaitFollowed"]
    assert str(site.of("dashboard").stage) == "canary 17.5 %"
    assert machine.weigh(site, "dashboard", weight=1_750, by="test").notes
    with pytest.raises(RefusedError, match=r"lower share would move .* migrate start dashboard --to monolith"):
        machine.weigh(site, "dashboard", weight=1_000, by="test")
    assert machine.step(site, "dashboard", by="test").site.of("dashboard").change.target.weight == 2_500  # type: ignore[union-attr]
    back, _ = carried_out(machine.start(site, "dashboard", goal=MONOLITH, by="test").site, "dashboard")
    assert back.of("dashboard").stage.weight == 500
    with pytest.raises(RefusedError, match="higher share would move"):
        machine.weigh(back, "dashboard", weight=1_000, by="test")
    assert machine.weigh(back, "dashboard", weight=50, by="test").entries
    paused = machine.pause(site, "dashboard", by="test", on=True).site
    for refused in (
        paused,
        SiteState(),
        *(moved_to(SiteState(), "dashboard", stage) for stage in (SHADOW, FULL, RETIRED)),
    ):
        with pytest.raises(RefusedError):
            machine.weigh(refused, "dashboard", weight=9_000, by="test")


def test_an_override_is_in_the_next_version_with_its_reason_and_keeps_what_was_measured() -> None:
    site = intelligence_at(LADDER[3])
    since = machine.finished(site, "intelligence", at_ns=0).site.of("intelligence").since_ns
    moved = override(site, "intelligence", side=SERVICE, by="ann", why="loud", **DESK)
    assert [(each.who, each.before, each.after, each.why) for each in moved.entries] == [
        ("ann", "channel desk: by its bucket", "channel desk: service", "loud")
    ]
    site, effects = carried_out(moved.site, "intelligence")
    assert kinds(effects) == ["Publish", "WaitFollowed"]
    state = site.of("intelligence")
    assert (state.route.channels, state.stage, state.since_ns) == ({"desk": SERVICE}, LADDER[3], since)
    assert override(site, "intelligence", side=SERVICE, by="ann", **DESK).notes
    site = pinned(pinned(site, MONOLITH, kind="conversation", of="c"), MONOLITH, kind="site", of="east")
    route = site.of("intelligence").route
    assert (route.overrides, route.sites) == ({"c": MONOLITH}, {"east": MONOLITH})
    assert pinned(site, None).of("intelligence").route.channels == {}
    with pytest.raises(RefusedError, match="no override of channel pool"):
        override(site, "intelligence", side=None, kind="channel", of="pool", by="ann")


def test_overrides_are_refused_where_they_cannot_be() -> None:
    dashboard = moved_to(SiteState(), "dashboard", LADDER[3])
    with pytest.raises(RefusedError, match="page session and key"):
        override(dashboard, "dashboard", side=SERVICE, by="ann", **DESK)
    with pytest.raises(RefusedError, match=r"no overrides of sites: .* Use --channel or --conversation"):
        override(audio_at(LADDER[3]), "audio", side=SERVICE, by="ann", kind="site", of="east")
    for stage in (OFF, SHADOW, RETIRED):
        site = SiteState() if stage == OFF else intelligence_at(stage)
        with pytest.raises(RefusedError, match=f"intelligence is {stage}: there are overrides only while both sides"):
            override(site, "intelligence", side=SERVICE, by="ann", **DESK)
    site = intelligence_at(FULL)
    for number in range(MAX_OVERRIDES):
        site = pinned(site, SERVICE, kind="conversation", of=str(number))
    with pytest.raises(RefusedError, match="which is the most"):
        override(site, "intelligence", side=SERVICE, by="ann", **DESK)
    assert pinned(site, MONOLITH, kind="conversation", of="7").of("intelligence").route.overrides["7"] == MONOLITH


def test_a_rollback_and_the_kill_switch_remove_overrides_in_their_one_version_and_say_so() -> None:
    site = pinned(intelligence_at(LADDER[4]), SERVICE)
    back = machine.roll_back(site, "intelligence", by="test")
    assert any((each.action, each.why) == ("overrides removed", "channel desk") for each in back.entries)
    home, effects = carried_out(back.site, "intelligence")
    assert kinds(effects) == ["Publish", "WaitFollowed"]
    assert (home.of("intelligence").overrides, home.of("intelligence").route.channels) == ((), {})
    killed = machine.kill(site, by="test").site
    assert killed.version == site.version + 1
    assert killed.routes.of("intelligence").side(0, "c", channel="desk") == MONOLITH


def test_what_is_to_stay_with_the_monolith_holds_up_retiring_it() -> None:
    site = pinned(intelligence_at(FULL), MONOLITH)
    with pytest.raises(RefusedError, match="migrate override intelligence --channel desk --remove"):
        machine.step(site, "intelligence", by="test")
    site, effects = carried_out(machine.step(pinned(site, SERVICE), "intelligence", by="test").site, "intelligence")
    assert kinds(effects) == ["RetireModule", "Publish", "WaitFollowed"]
    assert (site.of("intelligence").stage, site.of("intelligence").overrides) == (RETIRED, ())


# -- what has no room --------------------------------------------------------------------------------------------------

END_NS: Final = AT + round(overflow.OVERFLOW_S * NS)


def test_what_has_no_room_is_with_the_monolith_until_its_time_is_over() -> None:
    moved = overflow.given_back(audio_at(LADDER[3]), "audio", "c-1", now_ns=AT)
    assert [(each.who, each.after) for each in moved.entries] == [(CONTROLLER, "conversation c-1: monolith")]
    site, effects = carried_out(moved.site, "audio")
    assert kinds(effects) == ["Publish", "WaitFollowed"]
    assert site.of("audio").route.overrides == {"c-1": MONOLITH}
    assert not overflow.given_back(site, "audio", "c-1", now_ns=AT + 1).entries, "asked again, nothing changes"
    assert not overflow.ended(site, "audio", now_ns=END_NS - 1).entries
    site, effects = carried_out(overflow.ended(site, "audio", now_ns=END_NS).site, "audio")
    assert kinds(effects) == ["Publish", "WaitFollowed"]
    assert (site.of("audio").overrides, site.of("audio").route.overrides) == ((), {})


def test_what_has_no_room_does_not_wait_for_a_change_under_way() -> None:
    stepping = machine.step(audio_at(LADDER[3]), "audio", by="ann").site
    change = stepping.of("audio").change
    assert change is not None
    both = stepping
    for name in ("c-1", "c-2"):
        both = overflow.given_back(both, "audio", name, now_ns=AT).site
    assert both.of("audio").change == change
    assert overflow.ended(both, "audio", now_ns=END_NS).site == both, "nor does what ends get in its way"
    site, _ = carried_out(both, "audio")
    assert (site.of("audio").stage, site.of("audio").route.overrides) == (
        change.target,
        {"c-1": MONOLITH, "c-2": MONOLITH},
    )


def test_what_has_no_room_is_refused_where_both_sides_do_not_serve_or_somebody_has_said_otherwise() -> None:
    stages = (OFF, SHADOW, RETIRED)
    for site in (
        *(SiteState() if stage == OFF else audio_at(stage) for stage in stages),
        machine.roll_back(audio_at(LADDER[3]), "audio", by="ann").site,
    ):
        with pytest.raises(RefusedError, match="only while both sides serve"):
            overflow.given_back(site, "audio", "c-1", now_ns=AT)
    with pytest.raises(RefusedError, match="refuses nothing"):
        overflow.given_back(audio_at(FULL), "intelligence", "c-1", now_ns=AT)
    wanted = override(audio_at(FULL), "audio", side=SERVICE, kind="conversation", of="c-1").site
    with pytest.raises(RefusedError, match="is to be with the service"):
        overflow.given_back(carried_out(wanted, "audio")[0], "audio", "c-1", now_ns=AT)


def test_what_has_no_room_is_bounded_leaves_room_for_an_operator_and_holds_up_retiring() -> None:
    site = audio_at(FULL)
    for number in range(MAX_OVERRIDES):
        site = overflow.given_back(site, "audio", f"c-{number}", now_ns=AT).site
    site, _ = carried_out(site, "audio")
    with pytest.raises(RefusedError, match="Wait until one has ended"):
        overflow.given_back(site, "audio", "c", now_ns=AT)
    site, _ = carried_out(override(site, "audio", side=SERVICE, **DESK).site, "audio")
    assert len(site.of("audio").overrides) == MAX_OVERRIDES + 1
    with pytest.raises(RefusedError, match=r"no room for conversation c-0 .* quickcomm scale audio=N"):
        machine.step(site, "audio", by="ann")


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
        self.has_monolith = True
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
    def start(self, name: str, goal: Role, *, force: bool) -> None:
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

    @rule(name=names, weight=st.integers(1, FULL.weight - 1))
    def weigh(self, name: str, weight: int) -> None:
        self.command(lambda: machine.weigh(self.site, name, weight=weight, by="test"))

    @rule(
        of=st.sampled_from(["a", "b"]),
        kind=st.sampled_from(["channel", "site", "conversation"]),
        to=st.sampled_from([MONOLITH, SERVICE, None]),
    )
    def override(self, of: str, kind: OverrideKind, to: Side | None) -> None:
        self.command(lambda: override(self.site, "intelligence", kind=kind, of=of, side=to))

    @rule(of=st.sampled_from(["a", "b"]))
    def has_no_room(self, of: str) -> None:
        self.command(lambda: overflow.given_back(self.site, "audio", of, now_ns=AT))

    @rule(now_ns=st.sampled_from([AT, END_NS]))
    def time_passes(self, now_ns: int) -> None:
        assert self.command(lambda: overflow.ended(self.site, "audio", now_ns=now_ns))

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

    @precondition(lambda self: not any(_waits_for_its_route(state) for state in self.site.modules.values()))
    @rule()
    def kill_the_monolith(self) -> None:
        """If it ran it is started again, with what the routes do not call retired."""
        if self.has_monolith:
            self.followers["monolith"] = self.site.version
            self.in_monolith = {name: self.site.of(name).stage != RETIRED for name in MODULES}

    @rule(who=st.sampled_from(["edge", "monolith"]))
    def catch_up(self, who: str) -> None:
        self.followers[who] = self.site.version

    # -- what must hold

    @invariant()
    def a_module_has_a_process_and_the_last_one_takes_it_along(self) -> None:
        assert self.has_monolith or not any(self.in_monolith.values())
        if all(state.stage == RETIRED and state.change is None for state in map(self.site.of, MODULES)):
            assert not self.has_monolith

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
            in_canary = route.mode == "canary" and 0 < route.weight < FULL.weight
            assert in_canary or any(route.weight == stage.weight and route.mode == stage.mode for stage in LADDER)

    @invariant()
    def what_has_a_side_of_its_own_has_it_while_both_serve_and_is_told(self) -> None:
        for name, state in self.site.modules.items():
            own = [state.route.overrides, state.route.channels, state.route.sites]
            assert not any(own) or state.route.mode in {"canary", "full"}
            assert self.in_monolith[name] or not any(MONOLITH in each.values() for each in own)
            if state.change is None:
                assert sum(map(len, own)) == len(state.overrides)

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
                if change.action == "override":
                    assert (new.mode, new.weight, new.decides) == (old.mode, old.weight, old.decides)
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
                assert self.has_monolith
                self.in_monolith[name] = False
            case ReviveModule():
                self.has_monolith = self.in_monolith[name] = True
            case EndMonolith():
                self.has_monolith, self.in_monolith = False, dict.fromkeys(MODULES, False)
            case WaitReady(side):
                if side == MONOLITH:
                    self.in_monolith[name] = self.has_monolith
                return self.runs[name] if side == SERVICE else self.in_monolith[name]
            case WaitFollowed(version):
                living = [who for who in self.followers if who == "edge" or self.has_monolith]
                return all(self.followers[who] >= version for who in living)
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


def _waits_for_its_route(state: ModuleState) -> bool:
    """Return True where the monolith has a module again, and the routes that say so come next."""
    return state.route.mode == RETIRED.mode and state.monolith == "serving"


Migrations.TestCase.settings = examples(200, stateful_step_count=60)
TestMigrations = Migrations.TestCase


def test_the_state_survives_its_encoding() -> None:
    site = machine.step(moved_to(SiteState(), "dashboard", LADDER[3]), "dashboard", by="test").site
    assert msgspec.json.decode(msgspec.json.encode(site), type=SiteState) == site
    assert route_of(OFF, site.of("dashboard").route) == ModuleState().route
