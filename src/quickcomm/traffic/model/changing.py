"""What all changes of a migration begin with: may they begin, and what is stored and told of them. Pure."""

from typing import Final

import msgspec

from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.migration import Figure, with_decider
from quickcomm.contracts.routes import MONOLITH, SERVICE, release_of
from quickcomm.traffic.model.ladder import BOTH_SERVE, FULL, MODULES, OFF, RETIRED, Stage
from quickcomm.traffic.model.state import Action, Change, Entry, ModuleState, Moved, RefusedError, Role, SiteState

_replace: Final = msgspec.structs.replace


def free(site: SiteState, name: str) -> ModuleState:
    state = site.of(name)
    if state.change is not None:
        raise RefusedError(
            f"{name} is on its way to {state.change.target}. Wait for it (quickcomm migrate status), "
            f"or take it back: quickcomm migrate rollback {name}"
        )
    return state


def check_goes_on(site: SiteState, name: str, state: ModuleState) -> None:
    if state.stage == OFF and state.goal == MONOLITH:
        raise RefusedError(f"{name} has not been started. First: quickcomm migrate start {name}")
    check_not_paused(state, name)
    if not state.forced:
        check_order(site, name, state.goal)


def check_not_paused(state: ModuleState, name: str) -> None:
    if state.paused:
        raise RefusedError(f"{name} is paused. First: quickcomm migrate resume {name}")


def check_order(site: SiteState, name: str, to: Role) -> None:
    place = MODULES.index(name)
    if to == SERVICE:
        for other in MODULES[:place]:
            if site.of(other).stage not in {FULL, RETIRED} and site.of(other).beside is None:
                raise RefusedError(
                    f"{other} goes before {name}, and is {site.of(other).stage}. Bring it to full first, "
                    "or use: quickcomm migrate start --force"
                )
        return
    for other in MODULES[place + 1 :]:
        if site.of(other).route.weight or site.of(other).goal == SERVICE:
            raise RefusedError(
                f"{other} goes back before {name}, and is {site.of(other).stage}. Take it back first: "
                f"quickcomm migrate rollback {other}. Or use: quickcomm migrate start --force"
            )


def begun(
    site: SiteState,
    name: str,
    state: ModuleState,
    action: Action,
    target: Stage,
    by: str,
    why: str,
    evidence: tuple[Figure, ...] = (),
) -> Moved:
    change = Change(id=site.changes + 1, action=action, target=target, by=by, why=why)
    entries = []
    if state.change is not None:
        entries.append(entry_of(name, state, "abandoned", by, str(state.change.target), why))
    entries.append(entry_of(name, state, action, by, str(target), why, evidence))
    if state.overrides and target.mode not in BOTH_SERVE:
        gone = ", ".join(f"{each.kind} {each.of}" for each in state.overrides)
        entries.append(entry_of(name, state, "overrides removed", by, str(target), gone))
    after = _replace(
        state,
        change=change,
        overrides=state.overrides if target.mode in BOTH_SERVE else (),
        service="unknown" if state.service in {"stopped", "running"} and target != OFF else state.service,
        monolith="unknown" if target == RETIRED and state.monolith == "serving" else state.monolith,
    )
    return Moved(site=_replace(site, changes=change.id).put(name, after), entries=tuple(entries))


def noted(site: SiteState, name: str, after: ModuleState, action: str, by: str, why: str = "") -> Moved:
    entry = entry_of(name, site.of(name), action, by, place(name, after), why)
    return Moved(site=site.put(name, after), entries=(entry,))


def entry_of(
    name: str, state: ModuleState, action: str, by: str, after: str, why: str, evidence: tuple[Figure, ...] = ()
) -> Entry:
    return Entry(who=by, name=name, action=action, before=place(name, state), after=after, why=why, evidence=evidence)


def place(name: str, state: ModuleState) -> str:
    route = state.route
    waits_for_lease = route.weight == BUCKETS and route.decides == route.base
    stage = with_decider(str(state.stage), name, route.base) if waits_for_lease else str(state.stage)
    return f"{stage} of {route.candidate}" if release_of(route.candidate) else stage
