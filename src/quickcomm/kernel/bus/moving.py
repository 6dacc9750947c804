"""The bus of a site moves from its database to a Valkey: unhandled messages, groups where they stand, dead letters."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.kernel.bus.home import Home
from quickcomm.kernel.bus.redis_consumer import Letter
from quickcomm.kernel.bus.redis_link import Link
from quickcomm.kernel.bus.redis_names import PARTITIONS, PREFIX, Names
from quickcomm.kernel.bus.sql import PARTITIONS as SQL_PARTITIONS
from quickcomm.kernel.bus.sql import dead, groups, messages
from quickcomm.kernel.storage.database import Database

TOGETHER: Final = 500
OLD: Final = 1
"""Messages keep their ids as `1-id`: smaller than any that the server gives."""
homes: Final = sa.Table(
    "bus_home", sa.MetaData(), sa.Column("id", sa.String, primary_key=True), sa.Column("whole", sa.Boolean)
)


def mark(connection: Connection, home: Home) -> None:
    """Set the database's mark."""
    unmark(connection)
    connection.execute(homes.insert().values(id=home.id, whole=home.whole))


def unmark(connection: Connection) -> None:
    """Delete the database's mark: everything is kept in it."""
    connection.execute(homes.delete())


def forget(connection: Connection) -> None:
    """After the move: the database has no messages any more."""
    for table in (messages, groups, dead):
        connection.execute(table.delete())


class MessageMove:
    def __init__(self, database: Database, link: Link, prefix: str = PREFIX) -> None:
        self._database = database
        self._link = link
        self._names = Names(prefix)

    async def run(self) -> int:
        """How many messages not all groups had acknowledged. The streams must be empty."""
        positions = await self._database.read(lambda connection: connection.execute(sa.select(groups)).all())
        lowest: dict[tuple[str, int], int] = {}
        for row in positions:
            place = (row.stream, row.part)
            lowest[place] = min(row.acked_id, lowest.get(place, row.acked_id))
        count = await self._take_messages(lowest)
        for row in positions:
            await self._link.call("SADD", self._names.streams, row.stream)
            for part in range(row.part, PARTITIONS, SQL_PARTITIONS):
                name = self._names.part(row.stream, part)
                await self._link.call("XGROUP", "CREATE", name, row.group_name, f"{OLD}-{row.acked_id}", "MKSTREAM")
        for letter in await self._database.read(
            lambda connection: connection.execute(sa.select(dead).order_by(dead.c.id)).all()
        ):
            await self._take_letter(letter)
        return count

    async def _take_messages(self, lowest: dict[tuple[str, int], int]) -> int:
        count = after = 0
        while True:
            rows = await self._page(after)
            if not rows:
                return count
            for row in rows:
                if row.id > lowest.get((row.stream, row.part), 0):
                    name = self._names.of_key(row.stream, row.key)
                    await self._link.call("XADD", name, f"{OLD}-{row.id}", "k", row.key, "p", row.payload)
                    count += 1
            after = rows[-1].id

    async def _page(self, after: int) -> Sequence[sa.Row[Any]]:
        query = sa.select(messages).where(messages.c.id > after).order_by(messages.c.id).limit(TOGETHER)
        return await self._database.read(lambda connection: connection.execute(query).all())

    async def _take_letter(self, row: sa.Row[Any]) -> None:
        letter = Letter(
            stream=row.stream,
            group=row.group_name,
            key=row.key,
            payload=row.payload,
            reason=row.reason,
            attempts=row.attempts,
            at_ns=row.at_ns,
        )
        await self._link.call("HSET", self._names.dead, row.id, msgspec.msgpack.encode(letter))
        await self._link.call("SET", self._names.last_dead, row.id)  # in the order of their ids
