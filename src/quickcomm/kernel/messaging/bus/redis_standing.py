"""How far the groups of a stream are in the partition of a key, for a person who looks for one message of it."""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from quickcomm.contracts.checking import Standing
from quickcomm.kernel.messaging.bus.handling import carried
from quickcomm.kernel.messaging.bus.redis_link import Link, Script
from quickcomm.kernel.messaging.bus.redis_names import Names, partition
from quickcomm.kernel.messaging.bus.redis_scripts import STANDING

PAGE: Final = 500
_STANDING: Final = Script(STANDING)
Id = tuple[int, int]
"""Of an entry of a stream."""


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was asked for."""

    at: Id
    side: str


async def standings(link: Link, names: Names, stream: str, key: str, utterance_id: str) -> list[Standing]:
    """Return a `Standing` for each group of a stream. Raises what the server says.

    The messages behind the slowest group are read: at most as many as a partition holds.
    """
    part = partition(key)
    name = names.part(stream, part)
    now, *rows = await link.run(_STANDING, (name,))
    groups = list(zip(rows[::3], rows[1::3], rows[2::3], strict=True))
    firsts = [_id(first) for _, _, first in groups if first]
    messages = [each async for each in _messages(link, name, min(firsts), key, utterance_id)] if firsts else []
    found = []
    for raw, count, first in groups:
        group = raw.decode()
        held, until = await link.call("HMGET", names.leases(stream, group), part, f"{part}:until")
        is_held = held is not None and int(until or 0) > int(now)
        waits = next((each for each in messages if first and each.at >= _id(first)), None)
        found.append(
            Standing(
                stream=stream,
                partition=part,
                group=group,
                count=int(count),
                oldest_ns=_id(first)[0] * 1_000_000 if first else 0,
                reader=held.decode().partition("/")[0] if is_held else "",
                waits_since_ns=0 if waits is None else waits.at[0] * 1_000_000,
                side="" if waits is None else waits.side,
            )
        )
    return found


async def _messages(link: Link, name: str, first: Id, key: str, utterance_id: str) -> AsyncIterator[_Found]:
    """Yield the messages of a key from an id on, in their order; of an utterance only, if one is given."""
    at = f"{first[0]}-{first[1]}"
    while page := await link.call("XRANGE", name, at, "+", "COUNT", PAGE):
        for entry, fields in page:
            if fields[b"k"] != key.encode():
                continue
            message = carried(fields[b"p"])
            if not utterance_id or message.utterance_id == utterance_id:
                yield _Found(at=_id(entry), side=message.owner if message.owner_epoch else "")
        at = f"({page[-1][0].decode()}"


def _id(entry: bytes) -> Id:
    ms, seq = entry.split(b"-")
    return int(ms), int(seq)
