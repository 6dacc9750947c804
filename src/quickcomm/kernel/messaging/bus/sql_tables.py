"""The tables of the bus inside a process, and `append`, by which other tables' transactions publish."""

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.identity import bucket
from quickcomm.kernel.storage.database import touch

MIGRATIONS: Final = Path(__file__).with_name("migrations")
PARTITIONS: Final = 4
TOPIC: Final = "bus:"
"""What commit listeners are told begins with it."""

_meta = sa.MetaData()
messages = sa.Table(
    "bus_messages",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("stream", sa.String),
    sa.Column("part", sa.Integer),
    sa.Column("key", sa.String),
    sa.Column("payload", sa.LargeBinary),
)
groups = sa.Table(
    "bus_groups",
    _meta,
    sa.Column("stream", sa.String, primary_key=True),
    sa.Column("group_name", sa.String, primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True),
    sa.Column("acked_id", sa.Integer),
)
dead = sa.Table(
    "bus_dead_letters",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("stream", sa.String),
    sa.Column("group_name", sa.String),
    sa.Column("key", sa.String),
    sa.Column("payload", sa.LargeBinary),
    sa.Column("reason", sa.Text),
    sa.Column("attempts", sa.Integer),
    sa.Column("at_ns", sa.BigInteger),
)

_APPEND: Final = messages.insert()
"""Made once: to build a statement takes longer than to run it."""


def partition(key: str) -> int:
    return bucket("bus", key) % PARTITIONS


def topic(stream: str, part: int) -> str:
    return f"{TOPIC}{stream}:{part}"


def append(connection: Connection, stream: str, key: str, payload: bytes) -> None:
    """Publish as part of the caller's transaction."""
    part = partition(key)
    connection.execute(_APPEND, {"stream": stream, "part": part, "key": key, "payload": payload})
    touch(connection, topic(stream, part))
