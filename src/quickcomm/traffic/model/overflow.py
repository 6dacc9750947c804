"""Conversations for which the service has no room: the monolith has each of them for some minutes. Pure.

Unlike those of an operator, these overrides do not wait for a change under way: its next routes have them, too.
"""

from typing import Final

import msgspec

from quickcomm.contracts.migration import MigrationOverride
from quickcomm.traffic.model import overrides
from quickcomm.traffic.model.ladder import BOTH_SERVE
from quickcomm.traffic.model.machine import CONTROLLER
from quickcomm.traffic.model.state import Change, Entry, ModuleState, Moved, RefusedError, SiteState

OVERFLOW_S: Final = 300.0
"""After so long it goes by its bucket again; the service takes it if it has room."""
NO_ROOM: Final = "the service has no room"
NS: Final = 10**9


def given_back(site: SiteState, name: str, conversation_id: str, *, now_ns: int) -> Moved:
    """Give a conversation to the monolith that has no override yet. Raises `RefusedError`."""
    state = site.of(name)
    if name != "audio":
        raise RefusedError(f"{name} refuses nothing for lack of room.")
    target = state.stage if state.change is None else state.change.target
    if state.route.mode not in BOTH_SERVE or target.mode not in BOTH_SERVE:
        raise RefusedError(
            f"{name} is {state.stage}: a conversation has a side of its own only while both sides serve."
        )
    wanted = MigrationOverride(
        kind="conversation",
        of=conversation_id,
        side=state.route.base,
        by=CONTROLLER,
        why=NO_ROOM,
        at_ns=now_ns,
        until_ns=now_ns + round(OVERFLOW_S * NS),
    )
    known = overrides.known(state, wanted)
    if known is not None and known.side == state.route.candidate:
        raise RefusedError(f"conversation {conversation_id} is to be with the service, which has no room for it.")
    if known is not None:
        return Moved(site=site)
    after = msgspec.structs.replace(state, overrides=overrides.added(state, name, wanted))
    entry = Entry(
        who=CONTROLLER,
        name=name,
        action="override",
        before=overrides.words(wanted, None),
        after=overrides.words(wanted, wanted),
        why=NO_ROOM,
    )
    return Moved(site=_changing(site, name, after, NO_ROOM), entries=(entry,))


def ended(site: SiteState, name: str, *, now_ns: int) -> Moved:
    """Remove the overrides whose time is over, unless a change is under way."""
    state = site.of(name)
    over = [each for each in state.overrides if 0 < each.until_ns <= now_ns]
    if not over or state.change is not None:
        return Moved(site=site)
    after = msgspec.structs.replace(state, overrides=tuple(each for each in state.overrides if each not in over))
    entries = tuple(
        Entry(
            who=CONTROLLER,
            name=name,
            action="override",
            before=overrides.words(each, each),
            after=overrides.words(each, None),
            why="its time is over",
        )
        for each in over
    )
    return Moved(site=_changing(site, name, after, "overrides have ended"), entries=entries)


def _changing(site: SiteState, name: str, after: ModuleState, why: str) -> SiteState:
    """Return the state with a change under way that publishes the overrides: the one that there is, or a new one."""
    if after.change is not None:
        return site.put(name, after)
    change = Change(id=site.changes + 1, action="override", target=after.stage, by=CONTROLLER, why=why)
    after = msgspec.structs.replace(after, change=change)
    return msgspec.structs.replace(site, changes=change.id).put(name, after)
