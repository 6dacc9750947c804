"""Exceptions from the share: what has a side of its own, whatever its bucket, while both sides serve. Pure."""

import msgspec

from quickcomm.contracts.migration import MAX_OVERRIDES, MigrationOverride, OverrideKind
from quickcomm.contracts.routes import ModuleRoute, Side
from quickcomm.traffic.model.ladder import BOTH_SERVE
from quickcomm.traffic.model.state import ModuleState, RefusedError


def route_with(state: ModuleState) -> ModuleRoute:
    """Return the route with what is wanted to have a side of its own."""
    own: dict[OverrideKind, dict[str, Side]] = {"conversation": {}, "channel": {}, "site": {}}
    for each in state.overrides:
        own[each.kind][each.of] = each.side
    return msgspec.structs.replace(
        state.route, overrides=own["conversation"], channels=own["channel"], sites=own["site"]
    )


def known(state: ModuleState, wanted: MigrationOverride) -> MigrationOverride | None:
    """Return the override of the same thing that there is."""
    return next((each for each in state.overrides if _same(each, wanted)), None)


def added(state: ModuleState, name: str, wanted: MigrationOverride) -> tuple[MigrationOverride, ...]:
    """Return all overrides with this one in the place of that of the same thing. Raises `RefusedError`."""
    others = tuple(each for each in state.overrides if not _same(each, wanted))
    if sum(_ends(each) == _ends(wanted) for each in others) >= MAX_OVERRIDES:
        what = "Wait until one has ended." if _ends(wanted) else "Remove one first."
        raise RefusedError(f"{name} has {MAX_OVERRIDES} overrides, which is the most. {what}")
    return (*others, wanted)


def removed(state: ModuleState, name: str, wanted: MigrationOverride) -> tuple[MigrationOverride, ...]:
    """Return all overrides without that of the same thing. Raises `RefusedError` where there is none."""
    if known(state, wanted) is None:
        raise RefusedError(
            f"There is no override of {wanted.kind} {wanted.of} for {name}. There are: quickcomm migrate status"
        )
    return tuple(each for each in state.overrides if not _same(each, wanted))


def words(of: MigrationOverride, found: MigrationOverride | None) -> str:
    """Return the side of something, for the audit."""
    return f"{of.kind} {of.of}: {'by its bucket' if found is None else found.side}"


def check_possible(state: ModuleState, name: str, kind: OverrideKind) -> None:
    """Raise `RefusedError` where nothing of this kind can have a side of its own now."""
    if name == "dashboard":
        raise RefusedError(
            "dashboard is split by page session and key, and the edge knows these only by their hash: no channel, site "
            "or conversation has a side there. A larger share: quickcomm migrate weight dashboard PERCENT"
        )
    if name == "audio" and kind == "site":
        raise RefusedError(
            "audio has no overrides of sites: the edge does not know whose site a client's key is of. "
            "Use --channel or --conversation."
        )
    if state.route.mode not in BOTH_SERVE:
        raise RefusedError(
            f"{name} is {state.stage}: there are overrides only while both sides serve, in a canary and at full. "
            f"The way there: quickcomm migrate step {name}"
        )


def check_none_stays(state: ModuleState, name: str) -> None:
    """Raise `RefusedError` where the monolith is to keep something."""
    kept = next((each for each in state.overrides if each.side == state.route.base), None)
    if kept is not None and _ends(kept):
        raise RefusedError(
            f"The service had no room for {kept.kind} {kept.of} a moment ago. More processes have more room: "
            f"quickcomm scale {name}=N. Try again when that override has ended (quickcomm migrate status)."
        )
    if kept is not None:
        raise RefusedError(
            f"{kept.kind} {kept.of} is to stay with the {kept.side}. First: "
            f"quickcomm migrate override {name} --{kept.kind} {kept.of} --remove"
        )


def _ends(each: MigrationOverride) -> bool:
    return each.until_ns > 0


def _same(one: MigrationOverride, other: MigrationOverride) -> bool:
    return (one.kind, one.of) == (other.kind, other.of)
