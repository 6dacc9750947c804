"""Sums and ids of what the session store in Valkey has in a range, for the checker."""

from collections.abc import Iterable
from typing import Final

from quickcomm.audio.adapters import redis_scripts as lua
from quickcomm.audio.adapters.redis_calls import Calls
from quickcomm.audio.adapters.redis_rows import Row, SessionNames, pairs
from quickcomm.contracts.checking import ANSWERED, ENDED, TRANSCRIBED, Compare, Contents, Key
from quickcomm.kernel.checking.gathering import Gathering
from quickcomm.kernel.messaging.bus.redis_link import Script

_LOAD: Final = Script(lua.LOAD)
_KINDS: Final = {b"u:": TRANSCRIBED, b"i:": ANSWERED}
BEFORE, BEHIND = ":", ";"
"""Between these behind a conversation's id are the ids of its utterances."""
Said = dict[str, dict[Key, int]]
"""By kind, ids of utterances with when their conversation changed last."""


async def gather(request: Compare, calls: Calls, names: SessionNames) -> Contents:
    known = await _members(calls, names)
    said, until = await _said(request, calls, names, known)
    gathering = Gathering(request, until)
    for kind, keys in said.items():
        inside = ((*key, None, at_ns) for key, at_ns in keys.items() if _is_within(key, request.after, until))
        gathering.add(kind, inside)
    over = []
    for key in (key for key in known if _is_within(key, request.after, until)):
        row, _ = await _load(calls, names, key)
        if row is None:
            continue
        gathering.check_ledgers(row.site, row.conversation_id, row.ledgers, row.updated_ns)
        if not row.is_open:
            over.append((row.site, row.conversation_id, row.ledgers, row.updated_ns))
    gathering.add(ENDED, over)
    return gathering.contents()


async def recent(since_ns: int, limit: int, calls: Calls, names: SessionNames) -> list[Key]:
    return sorted(await _members(calls, names, since_ns))[-limit:]


async def _said(request: Compare, calls: Calls, names: SessionNames, known: Iterable[Key]) -> tuple[Said, Key | None]:
    """Read conversations in the order of the ids of their utterances, until there are `limit` utterances."""
    said: Said = {TRANSCRIBED: {}, ANSWERED: {}}
    for site, conversation_id in sorted(known, key=lambda key: (key[0], key[1] + BEFORE)):
        if (site, conversation_id + BEHIND) <= request.after:
            continue
        if request.until is not None and (site, conversation_id + BEFORE) > request.until:
            break
        row, fields = await _load(calls, names, (site, conversation_id))
        for field in fields if row is not None else ():
            key = (site, field[2:].decode())
            if (kind := _KINDS.get(field[:2])) is not None and _is_within(key, request.after, request.until):
                said[kind][key] = 0 if row is None else row.updated_ns
        if len(said[TRANSCRIBED]) > request.limit:
            return said, sorted(said[TRANSCRIBED])[request.limit - 1]
    return said, request.until


async def _members(calls: Calls, names: SessionNames, since_ns: int = 0) -> set[Key]:
    """Return the conversations that changed since then; the order of an index is only as exact as a float is."""
    found: set[Key] = set()
    for index in (names.open, names.closed):
        for name in await calls.call("ZRANGEBYSCORE", index, since_ns, "+inf"):
            site, _, conversation_id = name.decode().partition(":")
            found.add((site, conversation_id))
    return found


async def _load(calls: Calls, names: SessionNames, key: Key) -> tuple[Row | None, Iterable[bytes]]:
    """Return a conversation, and the fields of what is in its log; None where it is gone by now."""
    name = ":".join(key)
    loaded, _ = await calls.run(_LOAD, [names.conversation(name), names.said(name)])
    return (Row.of(pairs(loaded[0])), pairs(loaded[1])) if loaded[0] else (None, ())


def _is_within(key: Key, after: Key, until: Key | None) -> bool:
    return after < key and (until is None or key <= until)
