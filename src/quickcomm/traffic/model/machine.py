"""The state machine of a migration: commands store an intention, `next_effect` says what is left of it to carry out.

Pure. The effects follow from the stored state alone, so that a controller that was killed at any point goes on with the
same ones: what may have been under way is repeated (`resumed`), and a published route is never taken back by itself.

The write lease moves at one step: `full` publishes weight 100 % first, and once that is in force everywhere, that the
service decides. On the way back both go in one version, so that nothing stands between a rollback and its end.
"""

from typing import Final

import msgspec

from quickcomm.contracts.migration import Figure, MigrationOverride
from quickcomm.contracts.routes import MONOLITH, SERVICE
from quickcomm.traffic.model import deploying, overrides
from quickcomm.traffic.model.changing import (
    begun,
    check_goes_on,
    check_not_paused,
    check_order,
    entry_of,
    free,
    noted,
    place,
)
from quickcomm.traffic.model.ladder import (
    FULL,
    MODULES,
    OFF,
    RETIRED,
    SHADOW,
    Stage,
    next_stage,
    route_of,
)
from quickcomm.traffic.model.state import (
    BACK,
    STOPPED,
    Change,
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
    Settle,
    SiteState,
    StartProcesses,
    StopProcesses,
    WaitFollowed,
    WaitReady,
)

CONTROLLER: Final = "controller"
"""Who did it, where no person did."""
_replace = msgspec.structs.replace

# -- commands ---------------------------------------------------------------------------------------------------------


def start(site: SiteState, name: str, *, goal: Role, by: str, force: bool = False) -> Moved:
    """Set the goal and take the first step to it. Raises `RefusedError`."""
    state = free(site, name)
    if goal == MONOLITH and state.beside is not None:
        raise RefusedError(
            f"{name} is on its way to {state.route.candidate}. To take it back: quickcomm deploy {name} --rollback"
        )
    if goal == SERVICE:
        check_not_paused(state, name)
    if not force:
        check_order(site, name, goal)
    takes_step = _has_first_step(state, goal)
    if state.goal == goal and state.forced == force and not takes_step:
        return Moved(site=site, notes=(f"{name} is on its way to the {goal} already, at {state.stage}.",))
    state = _replace(state, goal=goal, forced=force, auto=state.auto and goal == SERVICE, paused=False)
    why = f"goal: {goal}{', forced' if force else ''}"
    if not takes_step:
        return noted(site, name, state, "goal", by, why)
    target, _ = next_stage(state.stage, goal)
    assert target is not None, "there is a first step"  # noqa: S101 - as _has_first_step says
    return begun(site, name, state, "start", target, by, why)


def step(
    site: SiteState,
    name: str,
    *,
    by: str,
    why: str = "",
    expected: float | None = None,
    evidence: tuple[Figure, ...] = (),
) -> Moved:
    """Begin the next step to the goal. Raises `RefusedError`."""
    state = free(site, name)
    check_goes_on(site, name, state)
    target, skipped = next_stage(state.stage, state.goal, expected)
    if target is None:
        raise RefusedError(f"{name} is {state.stage} already: there is no further step to the {state.goal}.")
    if state.share and state.stage == SHADOW and target.mode == "canary":
        target, skipped = Stage("canary", state.share), ()
    if target == RETIRED:
        overrides.check_none_stays(state, name)
    moved = begun(site, name, state, "step", target, by, why, evidence)
    notes = tuple(f"{stage} skipped: fewer than three conversations are expected there." for stage in skipped)
    return _replace(moved, notes=notes)


def promote(site: SiteState, name: str, *, by: str, why: str = "", evidence: tuple[Figure, ...] = ()) -> Moved:
    """Begin to give all to the service, from whatever weight. Raises `RefusedError`."""
    state = free(site, name)
    check_goes_on(site, name, state)
    if state.goal == MONOLITH:
        raise RefusedError(f"{name} is on its way to the monolith. First: quickcomm migrate start {name}")
    if state.stage in {FULL, RETIRED}:
        raise RefusedError(f"{name} is {state.stage} already.")
    return begun(site, name, state, "promote", FULL, by, why, evidence)


def weigh(
    site: SiteState, name: str, *, weight: int, by: str, why: str = "", evidence: tuple[Figure, ...] = ()
) -> Moved:
    """Begin to give the service another share of a canary, in the direction of the goal. Raises `RefusedError`."""
    state = free(site, name)
    check_goes_on(site, name, state)
    if state.route.mode != "canary":
        raise RefusedError(
            f"{name} is {state.stage}: it has a share that can be set in a canary alone. "
            f"The way there: quickcomm migrate step {name}"
        )
    if weight == state.route.weight:
        return Moved(site=site, notes=(f"{name} has this share already.",))
    rises = weight > state.route.weight
    if rises != (state.goal == SERVICE):
        back = "" if rises else " --to monolith"
        raise RefusedError(
            f"{name} is on its way to the {state.goal}: a {'higher' if rises else 'lower'} share would move "
            f"conversations the wrong way. First: quickcomm migrate start {name}{back}"
        )
    return begun(site, name, state, "weight", Stage("canary", weight), by, why, evidence)


def override(
    site: SiteState, name: str, wanted: MigrationOverride, *, remove: bool = False, by: str, why: str = ""
) -> Moved:
    """Begin to give something to a side, whatever its bucket, or to have it go by that again. Raises `RefusedError`."""
    state = free(site, name)
    overrides.check_possible(state, name, wanted.kind)
    before = overrides.known(state, wanted)
    if not remove and before is not None and before.side == wanted.side:
        return Moved(site=site, notes=(f"{wanted.kind} {wanted.of} is with the {wanted.side} already.",))
    after = _replace(
        state, overrides=overrides.removed(state, name, wanted) if remove else overrides.added(state, name, wanted)
    )
    change = Change(id=site.changes + 1, action="override", target=state.stage, by=by, why=why)
    entry = Entry(
        who=by,
        name=name,
        action=change.action,
        before=overrides.words(wanted, before),
        after=overrides.words(wanted, None if remove else wanted),
        why=why,
    )
    return Moved(site=_replace(site, changes=change.id).put(name, _replace(after, change=change)), entries=(entry,))


def roll_back(site: SiteState, name: str, *, by: str, why: str = "", evidence: tuple[Figure, ...] = ()) -> Moved:
    """Begin to take all back to the monolith, also in the middle of a step. Raises `RefusedError`.

    Of a release, back to the service as it was.
    """
    state = site.of(name)
    if state.stage == OFF and state.change is None:
        raise RefusedError(f"{name} is with the monolith already: there is nothing to roll back.")
    if state.change is not None and state.change.action in BACK:
        return Moved(site=site, notes=(f"{name} is being rolled back already.",))
    return begun(site, name, _homewards(state), "rollback", _retreat(state), by, why, evidence)


def kill(site: SiteState, only: str | None = None, *, by: str, why: str = "") -> Moved:
    """Give a module, or all that have moved, back to the monolith in one version, whatever is under way; pause them.

    Only a module that the monolith has stopped goes back by a change of its own: it has to be started first.
    """
    entries: list[Entry] = []
    killed = [name for name in reversed(MODULES) if only in {None, name}]
    moving = [name for name in killed if _is_away(site.of(name))]
    at_once = [name for name in moving if site.of(name).monolith == "serving" and site.of(name).stage != OFF]
    for name in moving:
        state = site.of(name)
        moved = begun(site, name, _homewards(state), "kill", _retreat(state), by, why)
        site, entries = moved.site, [*entries, *moved.entries]
    version = site.version + 1
    for name in at_once:
        state = site.of(name)
        target = state.change.target if state.change is not None else SHADOW
        if (route := route_of(target, overrides.route_with(state))) != state.route:
            entries.append(entry_of(name, state, "publish", by, str(target), why))
            state = _replace(state, route=route, version=version)
            site = _replace(site, version=version).put(name, state)
    for name in killed if only is not None else moving:
        paused = pause(site, name, by=by, on=True)
        site, entries = paused.site, [*entries, *paused.entries]
    return Moved(site=site, entries=tuple(entries))


def pause(site: SiteState, name: str, *, by: str, on: bool) -> Moved:
    """Have no further steps taken, or have them taken again."""
    state = site.of(name)
    if state.paused == on:
        return Moved(site=site)
    return noted(site, name, _replace(state, paused=on), "pause" if on else "resume", by)


def automate(site: SiteState, name: str, *, by: str, on: bool) -> Moved:
    """Have the controller take the steps, or not. Raises `RefusedError`."""
    state = site.of(name)
    if on and state.goal == MONOLITH:
        raise RefusedError(f"{name} has no service to go to. First: quickcomm migrate start {name}")
    if state.auto == on:
        return Moved(site=site)
    return noted(site, name, _replace(state, auto=on), "auto on" if on else "auto off", by)


# -- effects ----------------------------------------------------------------------------------------------------------


def next_effect(site: SiteState, name: str) -> Effect | None:
    """Return what the change under way needs next; None where there is none, or nothing is left of it."""
    state = site.of(name)
    if state.change is None:
        return None
    target = state.change.target
    return (
        deploying.before_all(state, target)
        or _before_routes(state, target)
        or _of_routes(state, target)
        or (EndMonolith() if _is_last(site, name) else None)
        or (StopProcesses() if _must_stop(state) else None)
        or deploying.settles(state, target)
    )


def done(site: SiteState, name: str, effect: Effect) -> Moved:
    """Return the state after an effect. Of `Publish`, before: what is published has to be stored first."""
    state = site.of(name)
    match effect:
        case Settle():
            return deploying.settled(site, name, state, effect)
        case Publish(route):  # and MoveLease
            change = state.change
            by, why = (change.by, change.why) if change is not None else (CONTROLLER, "")
            version = site.version + 1
            after = _replace(state, route=route, version=version)
            action = "lease" if isinstance(effect, MoveLease) else "publish"
            entry = entry_of(name, state, action, by, place(name, after), why)
            return Moved(site=_replace(site, version=version).put(name, after), entries=(entry,))
        case WaitFollowed(version):
            state = _replace(state, followed=version)
        case StartProcesses():
            state = _replace(state, service="running")
        case StopProcesses():
            state = _replace(state, service="stopped")
        case RetireModule():
            state = _replace(state, monolith="stopped")
        case EndMonolith():
            state = _replace(state, monolith="ended")
        case ReviveModule():
            state = _replace(state, monolith="running")
        case WaitReady(side):
            state = _replace(state, monolith="serving") if side == MONOLITH else _replace(state, service="complete")
    return Moved(site=site.put(name, state))


def finished(site: SiteState, name: str, *, at_ns: int) -> Moved:
    """Return the state once nothing is left of the change under way; the same one where something is."""
    state = site.of(name)
    if state.change is None or next_effect(site, name) is not None:
        return Moved(site=site)
    change = state.change
    after = _replace(state, change=None)
    if change.action != "override":  # the stage is the same, and what was measured of it counts
        after = _replace(after, since_ns=at_ns, why=change.why)
    entry = entry_of(name, state, "in force", change.by, place(name, after), change.why)
    return Moved(site=site.put(name, after), entries=(entry,))


def resumed(site: SiteState) -> SiteState:
    """Return the state as a new controller may trust it: effects that were under way have to be repeated."""
    for name, state in site.modules.items():
        if state.change is None:
            continue
        service = "unknown" if state.service == "running" else state.service
        monolith = "unknown" if _may_differ(state) else state.monolith
        site = site.put(name, _replace(state, service=service, monolith=monolith, followed=0))
    return site


def _before_routes(state: ModuleState, target: Stage) -> Effect | None:
    """What a route must not be published without."""
    if target == RETIRED:
        return None if state.monolith in STOPPED else RetireModule()
    if state.monolith in {"unknown", *STOPPED}:
        return ReviveModule()
    if state.monolith == "running":
        return WaitReady(MONOLITH)
    if target == OFF or state.service == "complete":
        return None
    return WaitReady(SERVICE) if state.service == "running" else StartProcesses()


def _of_routes(state: ModuleState, target: Stage) -> Effect | None:
    route = route_of(target, overrides.route_with(state))
    waits = state.followed < state.version
    if target == FULL and state.route.decides == state.route.base:
        all_there = _replace(route, decides=state.route.base)
        if state.route != all_there:
            return Publish(all_there)
        return WaitFollowed(state.version) if waits else MoveLease(route)
    if state.route != route:
        return Publish(route)
    return WaitFollowed(state.version) if waits else None


def _is_last(site: SiteState, name: str) -> bool:
    """Return True if no module is left in the monolith, and none is on its way back there."""
    states = [site.of(each) for each in MODULES]
    here = [state for state in states if state.beside is None]  # of the others, two releases of the service move
    left = all(state.stage == RETIRED and state.monolith in STOPPED for state in here)
    comes_back = any(state.change is not None and state.change.target != RETIRED for state in here)
    return left and not comes_back and site.of(name) in here and site.of(name).monolith == "stopped"


def _may_differ(state: ModuleState) -> bool:
    """Return True where the module in the monolith may be otherwise than it is stored.

    A monolith that was started meanwhile goes by the routes: by these it does not have what is retired.
    """
    if state.route.mode != RETIRED.mode:
        return state.monolith in {"running", *STOPPED}
    stays = state.change is not None and state.change.target == RETIRED
    return not (stays and state.monolith in STOPPED)


def _must_stop(state: ModuleState) -> bool:
    return state.change is not None and state.change.target == OFF and state.service != "stopped"


# -- inside -----------------------------------------------------------------------------------------------------------


def _has_first_step(state: ModuleState, to: Role) -> bool:
    """Return True if the command itself takes a step: into the shadow, or the first one back."""
    return state.stage == OFF if to == SERVICE else state.stage != OFF and state.goal == SERVICE


def _is_away(state: ModuleState) -> bool:
    return state.stage != OFF or state.change is not None or state.service != "stopped"


def _homewards(state: ModuleState) -> ModuleState:
    return _replace(state, goal=MONOLITH, auto=False, forced=False, paused=False)


def _retreat(state: ModuleState) -> Stage:
    """Return where a rollback leads: the service stays complete, unless nobody was on the way to it."""
    goes_on = state.change is not None and state.change.target.weight > 0
    return SHADOW if state.route.weight or goes_on else OFF
