"""How keys and page sessions become keys of a Valkey, with the rest of a site; and how a backup reads them there."""

from collections.abc import Iterator
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.kernel.copier.copier import CopiedTable, Values
from quickcomm.kernel.copier.valkey import Command, Moved
from quickcomm.kernel.keys.port import Key
from quickcomm.kernel.keys.redis import KeyNames, Session
from quickcomm.kernel.keys.sql import keys_table, sessions_table
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.kernel.storage.database import Database

MS: Final = 1_000_000
OPENED: Final = (
    sa.select(sessions_table, keys_table.c.digest.label("key"))
    .join(keys_table, keys_table.c.id == sessions_table.c.key_id)
    .subquery("opened")
)
_keys: Final = msgspec.msgpack.Decoder(Key)
_sessions: Final = msgspec.msgpack.Decoder(Session)


def moved(now_ns: int, prefix: str = PREFIX) -> list[Moved]:
    """Return every key, and every session that is open. What Valkey has of them already stays."""
    names = KeyNames(prefix)

    def add_keys(rows: list[Values]) -> Iterator[Command]:
        for row in rows:
            key = msgspec.convert(row, Key)
            yield "HSETNX", names.by_digest, row["digest"], msgspec.msgpack.encode(key)
            yield "HSETNX", names.by_id, key.id, row["digest"]

    def add_sessions(rows: list[Values]) -> Iterator[Command]:
        for row in rows:
            left_ms = (row["expires_ns"] - now_ns) // MS
            if left_ms > 0:
                session = Session(key=row["key"], expires_ns=row["expires_ns"])
                yield "SET", names.session(row["digest"]), msgspec.msgpack.encode(session), "PX", left_ms, "NX"

    return [
        Moved(CopiedTable("sessions", OPENED, ("digest",)), add_sessions, sessions_table),
        Moved(CopiedTable("keys", keys_table, ("id",)), add_keys, keys_table),
    ]


async def export_keys(database: Database, link: Link, prefix: str = PREFIX) -> dict[str, int]:
    """Write Valkey's keys and page sessions into the database instead of what it has; return the rows of each table."""
    names = KeyNames(prefix)
    stored: dict[bytes, bytes] = await link.call("HGETALL", names.by_digest)
    keys = {place: _keys.decode(key) for place, key in stored.items()}
    sessions = []
    async for name in link.scan(f"{names.sessions}*"):
        value: bytes | None = await link.call("GET", name)
        session = None if value is None else _sessions.decode(value)
        if session is not None and session.key in keys:
            place = bytes.fromhex(name.decode().removeprefix(names.sessions))
            sessions.append(
                {"digest": place, "key_id": keys[session.key].id, "expires_ns": session.expires_ns},
            )

    def run(connection: Connection) -> None:
        for table in (sessions_table, keys_table):
            connection.execute(table.delete())
        if keys:
            rows = [msgspec.structs.asdict(key) | {"digest": place} for place, key in keys.items()]
            connection.execute(keys_table.insert(), rows)
        if sessions:
            connection.execute(sessions_table.insert(), sessions)

    await database.write(run)
    return {keys_table.name: len(keys), sessions_table.name: len(sessions)}
