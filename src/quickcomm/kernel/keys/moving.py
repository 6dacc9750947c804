"""Keys and page sessions go from the database to Valkey with the rest of a site, and from Valkey into a backup.

Nobody may use either while they move; an export disturbs nobody.
"""

from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.kernel.bus.export import keys_like
from quickcomm.kernel.bus.redis_link import Link
from quickcomm.kernel.bus.redis_names import PREFIX
from quickcomm.kernel.keys.port import Key
from quickcomm.kernel.keys.redis import KeyNames, Session
from quickcomm.kernel.keys.sql import keys_table, sessions_table
from quickcomm.kernel.storage.database import Database

MS: Final = 1_000_000
_keys: Final = msgspec.msgpack.Decoder(Key)
_sessions: Final = msgspec.msgpack.Decoder(Session)


async def move_keys(database: Database, link: Link, now_ns: int, prefix: str = PREFIX) -> int:
    """Write every key and every session that is open; how many keys. What Valkey has of them already stays."""
    names = KeyNames(prefix)
    keys = await database.read(lambda connection: connection.execute(sa.select(keys_table)).all())
    digests = {row.id: bytes(row.digest) for row in keys}
    for row in keys:
        key = Key(
            id=row.id, site=row.site, role=row.role, name=row.name, created_ns=row.created_ns, revoked_ns=row.revoked_ns
        )
        await link.call("HSETNX", names.by_digest, digests[row.id], msgspec.msgpack.encode(key))
        await link.call("HSETNX", names.by_id, row.id, digests[row.id])
    query = sa.select(sessions_table).where(sessions_table.c.expires_ns > now_ns)
    for row in await database.read(lambda connection: connection.execute(query).all()):
        session = msgspec.msgpack.encode(Session(key=digests[row.key_id], expires_ns=row.expires_ns))
        left_ms = max(1, (row.expires_ns - now_ns) // MS)
        await link.call("SET", names.session(bytes(row.digest)), session, "PX", left_ms, "NX")
    return len(keys)


def forget_keys(connection: Connection) -> None:
    """After the move: the database has none any more."""
    for table in (sessions_table, keys_table):
        connection.execute(table.delete())


async def export_keys(database: Database, link: Link, prefix: str = PREFIX) -> dict[str, int]:
    """Write Valkey's keys and page sessions into the database instead of what it has; return the rows of each table."""
    names = KeyNames(prefix)
    stored: dict[bytes, bytes] = await link.call("HGETALL", names.by_digest)
    keys = {place: _keys.decode(key) for place, key in stored.items()}
    sessions = []
    async for name in keys_like(link, f"{names.sessions}*"):
        value: bytes | None = await link.call("GET", name)
        session = None if value is None else _sessions.decode(value)
        if session is not None and session.key in keys:
            place = bytes.fromhex(name.decode().removeprefix(names.sessions))
            sessions.append(
                {"digest": place, "key_id": keys[session.key].id, "expires_ns": session.expires_ns},
            )

    def run(connection: Connection) -> None:
        forget_keys(connection)
        if keys:
            rows = [msgspec.structs.asdict(key) | {"digest": place} for place, key in keys.items()]
            connection.execute(keys_table.insert(), rows)
        if sessions:
            connection.execute(sessions_table.insert(), sessions)

    await database.write(run)
    return {keys_table.name: len(keys), sessions_table.name: len(sessions)}
