"""How the tables of the bus become streams of a Valkey: unhandled messages, positions of groups, dead letters."""

from collections.abc import Iterator
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.kernel.copier.copier import CopiedTable, Values
from quickcomm.kernel.copier.valkey import Command, Moved
from quickcomm.kernel.messaging.bus.home import Home
from quickcomm.kernel.messaging.bus.redis_consumer import Letter
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS, PREFIX, Names
from quickcomm.kernel.messaging.bus.sql_tables import PARTITIONS as SQL_PARTITIONS
from quickcomm.kernel.messaging.bus.sql_tables import dead, groups, messages

OLD: Final = 1
"""Messages keep their ids as `1-id`: smaller than any that the server gives."""
homes: Final = sa.Table(
    "bus_home", sa.MetaData(), sa.Column("id", sa.String, primary_key=True), sa.Column("whole", sa.Boolean)
)
_ACKED: Final = (
    sa.select(sa.func.coalesce(sa.func.min(groups.c.acked_id), 0))
    .where(groups.c.stream == messages.c.stream, groups.c.part == messages.c.part)
    .scalar_subquery()
)
UNHANDLED: Final = sa.select(messages).where(messages.c.id > _ACKED).subquery("unhandled")
"""Messages that not all groups have acknowledged."""


def mark(connection: Connection, home: Home | None) -> None:
    """Set the database's mark; None: everything is kept in it."""
    connection.execute(homes.delete())
    if home is not None:
        connection.execute(homes.insert().values(id=home.id, whole=home.whole))


def moved(prefix: str = PREFIX) -> list[Moved]:
    """Return the tables, for streams that are empty."""
    names = Names(prefix)

    def add_messages(rows: list[Values]) -> Iterator[Command]:
        for row in rows:
            name = names.of_key(row["stream"], row["key"])
            yield "XADD", name, f"{OLD}-{row['id']}", "k", row["key"], "p", row["payload"]

    def add_groups(rows: list[Values]) -> Iterator[Command]:
        for row in rows:
            yield "SADD", names.streams, row["stream"]
            for part in range(row["part"], PARTITIONS, SQL_PARTITIONS):
                place = names.part(row["stream"], part)
                yield "XGROUP", "CREATE", place, row["group_name"], f"{OLD}-{row['acked_id']}", "MKSTREAM"

    def add_letters(rows: list[Values]) -> Iterator[Command]:
        for row in rows:
            letter = msgspec.convert(row | {"group": row["group_name"]}, Letter)
            yield "HSET", names.dead, row["id"], msgspec.msgpack.encode(letter)
            yield "SET", names.last_dead, row["id"]  # in the order of their ids

    return [
        Moved(CopiedTable("messages", UNHANDLED, ("id",), repeatable=False), add_messages, messages),
        Moved(CopiedTable("groups", groups, ("stream", "group_name", "part"), repeatable=False), add_groups, groups),
        Moved(CopiedTable("dead_letters", dead, ("id",)), add_letters, dead),
    ]
