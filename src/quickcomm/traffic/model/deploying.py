"""From one release of a service to another: how that begins and ends. Between, it is a migration like any. Pure."""

from typing import Final

import msgspec

from quickcomm.contracts.routes import SERVICE, ModuleRoute, Side
from quickcomm.traffic.model.changing import begun, check_not_paused, entry_of, free
from quickcomm.traffic.model.ladder import MODULES, OFF, RETIRED, SHADOW, Stage, route_of
from quickcomm.traffic.model.state import Effect, ModuleState, Moved, RefusedError, Settle, SiteState, WaitFollowed

_replace: Final = msgspec.structs.replace


def deploy(site: SiteState, name: str, release: Side, *, by: str, why: str = "", share: int = 0) -> Moved:
    """Begin to bring a release of the service up beside the service, in the shadow. Raises `RefusedError`.

    `share`: the buckets that it gets first; 0: those of the first step.
    """
    state = free(site, name)
    check_not_paused(state, name)
    if state.stage != RETIRED:
        raise RefusedError(
            f"{name} is {state.stage}: another release is compared with a service that has all of it. "
            f"The way there: quickcomm migrate step {name}"
        )
    before = state.route.candidate
    if release in {before, SERVICE}:
        raise RefusedError(f"{name} runs {release} already.")
    others = {site.of(each).monolith for each in MODULES}
    route = ModuleRoute(base=before, candidate=release, decides=before)
    after = _replace(
        state,
        route=route,
        version=site.version + 1,
        monolith="serving",
        service="stopped",
        beside="ended" if "ended" in others else state.monolith,
        goal=SERVICE,
        forced=True,
        share=share,
    )
    return begun(_replace(site, version=site.version + 1), name, after, "deploy", SHADOW, by, why)


def before_all(state: ModuleState, target: Stage) -> Effect | None:
    """Return what a release must not be started without: all know by then which two sides there are."""
    begins = state.beside is not None and state.route.mode == OFF.mode and target != OFF
    return WaitFollowed(state.version) if begins and state.followed < state.version else None


def settles(state: ModuleState, target: Stage) -> Effect | None:
    """Return the end of the way between two releases, there or back."""
    if state.beside is None or target not in {OFF, RETIRED}:
        return None
    sides = state.route.candidate, state.route.base
    side, without = sides if target == RETIRED else reversed(sides)
    route = route_of(RETIRED, ModuleRoute(candidate=side))
    return Settle(route, side=side, without=without)


def settled(site: SiteState, name: str, state: ModuleState, effect: Settle) -> Moved:
    """Return the state in which the module is a service beside the monolith again."""
    assert state.change is not None, "an effect is of a change"  # noqa: S101 - a programming error
    assert state.beside is not None, "see settles"  # noqa: S101 - a programming error
    change = _replace(state.change, target=RETIRED)
    version = site.version + 1
    after = _replace(
        state,
        route=effect.route,
        version=version,
        goal=SERVICE,
        service="complete",
        monolith=state.beside,
        beside=None,
        forced=False,
        auto=False,
        share=0,
        change=change,
    )
    entry = entry_of(name, state, "settle", change.by, f"{after.stage}, {effect.side} alone", change.why)
    return Moved(site=_replace(site, version=version).put(name, after), entries=(entry,))
