"""Keys and page sessions go from the database to Valkey, with the rest of a site. Nobody may use either meanwhile."""

from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.kernel.bus.redis_link import Link
from quickcomm.kernel.bus.redis_names import PREFIX
from quickcomm.kernel.keys.port import Key
from quickcomm.kernel.keys.redis import KeyNames, Session
from quickcomm.kernel.keys.sql import keys_table, sessions_table
from quickcomm.kernel.storage.database import Database

MS: Final = 1_000_000


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
