"""Conversations from Valkey into the tables, for a backup. They may go on meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.audio.adapters.redis_rows import SessionNames, pairs
from quickcomm.audio.adapters.tables import BLANK, conversations, events
from quickcomm.kernel.messaging.bus.redis_link import Link, Script
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.kernel.storage import Database

TOGETHER: Final = 64
_READ: Final = Script("""
-- KEYS: conversation, said, log. Returns all of them, as they are at one moment.
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), redis.call('LRANGE', KEYS[3], 0, -1)}
""")
Values = dict[str, Any]


class _Event(msgspec.Struct):
    type: str


_types: Final = msgspec.json.Decoder(_Event)


async def export(
    database: Database, link: Link, tell: Callable[[int, int], None], *, prefix: str = PREFIX
) -> dict[str, int]:
    """Write every conversation with its event log instead of what the tables have; return the rows of each table.

    `tell`: is given how many conversations are written, of how many.
    """
    return await _Export(database, link, SessionNames(prefix)).run(tell)


class _Export:
    def __init__(self, database: Database, link: Link, names: SessionNames) -> None:
        self._database = database
        self._link = link
        self._names = names

    async def run(self, tell: Callable[[int, int], None]) -> dict[str, int]:
        first = self._names.conversation("")
        found = [key.decode().removeprefix(first) async for key in self._link.scan(f"{first}*")]
        await self._database.write(_forget)
        talks = logged = 0
        for start in range(0, len(found), TOGETHER):
            names = found[start : start + TOGETHER]
            read = [each for each in await asyncio.gather(*map(self._conversation, names)) if each is not None]
            rows = [row for row, _ in read]
            log = [event for _, log in read for event in log]
            await self._database.write(lambda connection, rows=rows, log=log: _insert(connection, rows, log))  # type: ignore[misc]
            talks, logged = talks + len(rows), logged + len(log)
            tell(talks, len(found))
        return {conversations.name: talks, events.name: logged}

    async def _conversation(self, name: str) -> tuple[Values, list[Values]] | None:
        keys = [self._names.conversation(name), self._names.said(name), self._names.log(name)]
        fields, said, log = await self._link.run(_READ, keys)
        if not fields:
            return None  # it was purged just now
        found = pairs(fields)
        row, base = _row(found), int(found.get(b"base", 0))
        return row, [_event(row, seq, entry, pairs(said)) for seq, entry in enumerate(log, start=base + 1)]


def _row(fields: dict[bytes, bytes]) -> Values:
    """Return the table's row: fields in Valkey are called as the columns; one that is not there is 0 or empty."""
    return {column.name: _value(column, fields.get(column.name.encode())) for column in conversations.c}


def _value(column: sa.Column[Any], value: bytes | None) -> Any:
    kind = column.type.python_type
    if value is None:
        return None if column.nullable else kind()
    if kind is bytes:
        return value
    return value.decode() if kind is str else kind(float(value) if kind is float else int(value))


def _event(row: Values, seq: int, entry: bytes, said: dict[bytes, bytes]) -> Values:
    name, _, payload = entry.partition(b"\n")
    kind = _types.decode(payload).type
    revision = 1
    if b"x:" + name in said:
        kind, revision = BLANK, seq
    elif kind != "utterance":
        # Valkey knows the number of the newest revision only; those before it need one of their own, and a lower one.
        newest, _, place = said.get(b"i:" + name, b"").partition(b" ")
        revision = int(newest) if place == str(seq).encode() else -seq
    return {
        "site": row["site"],
        "conversation_id": row["conversation_id"],
        "seq": seq,
        "kind": kind,
        "utterance_id": name.decode(),
        "revision": revision,
        "payload": payload.decode(),
    }


def _forget(connection: Connection) -> None:
    for table in (events, conversations):
        connection.execute(table.delete())


def _insert(connection: Connection, rows: Sequence[Values], log: Sequence[Values]) -> None:
    if rows:
        connection.execute(conversations.insert(), list(rows))
    if log:
        connection.execute(events.insert(), list(log))
