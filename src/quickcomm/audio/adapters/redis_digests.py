"""Sums and ids of what the session store in Valkey has in a range, for the checker."""

from typing import Final

from quickcomm.audio.adapters.redis_calls import Calls
from quickcomm.audio.adapters.redis_rows import Row, SessionNames, pairs
from quickcomm.contracts.checking import ANSWERED, ENDED, TRANSCRIBED, Compare, Contents, Key
from quickcomm.kernel.checking.gathering import Gathering

_KINDS: Final = {b"u:": TRANSCRIBED, b"i:": ANSWERED}
BEFORE, BEHIND = ":", ";"
"""Between these behind a conversation's id are the ids of its utterances."""


async def gather(request: Compare, calls: Calls, names: SessionNames) -> Contents:
    known: dict[Key, int] = {}
    for index in (names.open, names.closed):
        found = await calls.call("ZRANGEBYSCORE", index, "-inf", "+inf", "WITHSCORES")
        for name, score in pairs(found).items():
            site, _, conversation_id = name.decode().partition(":")
            known[site, conversation_id] = int(float(score))
    said, until = await _said(request, calls, names, known)
    gathering = Gathering(request, until)
    for kind, keys in said.items():
        inside = ((*key, None, at_ns) for key, at_ns in keys.items() if _is_within(key, request.after, until))
        gathering.add(kind, inside)
    over = []
    for site, conversation_id in (key for key in known if _is_within(key, request.after, until)):
        if not (stored := pairs(await calls.call("HGETALL", names.conversation(f"{site}:{conversation_id}")))):
            continue
        row = Row.of(stored)
        gathering.check_ledgers(site, conversation_id, row.ledgers, row.updated_ns)
        if not row.is_open:
            over.append((site, conversation_id, row.ledgers, row.updated_ns))
    gathering.add(ENDED, over)
    return gathering.contents()


async def _said(
    request: Compare, calls: Calls, names: SessionNames, known: dict[Key, int]
) -> tuple[dict[str, dict[Key, int]], Key | None]:
    """Read conversations in the order of the ids of their utterances, until there are `limit` utterances.

    `known`: when each conversation changed last.
    """
    said: dict[str, dict[Key, int]] = {TRANSCRIBED: {}, ANSWERED: {}}
    for site, conversation_id in sorted(known, key=lambda key: (key[0], key[1] + BEFORE)):
        if (site, conversation_id + BEHIND) <= request.after:
            continue
        if request.until is not None and (site, conversation_id + BEFORE) > request.until:
            break
        for field in pairs(await calls.call("HGETALL", names.said(f"{site}:{conversation_id}"))):
            key = (site, field[2:].decode())
            if (kind := _KINDS.get(field[:2])) is not None and _is_within(key, request.after, request.until):
                said[kind][key] = known[site, conversation_id]
        if len(said[TRANSCRIBED]) > request.limit:
            return said, sorted(said[TRANSCRIBED])[request.limit - 1]
    return said, request.until


def _is_within(key: Key, after: Key, until: Key | None) -> bool:
    return after < key and (until is None or key <= until)
