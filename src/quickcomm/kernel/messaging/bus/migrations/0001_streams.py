"""Streams, groups and dead letters."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import NUMBER, text

revision = "bus_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "bus_messages",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("stream", text(64), nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("key", text(300), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("bus_messages_order", "bus_messages", ["stream", "part", "id"])
    op.create_table(
        "bus_groups",
        sa.Column("stream", text(64), primary_key=True),
        sa.Column("group_name", text(64), primary_key=True),
        sa.Column("part", sa.Integer, primary_key=True),
        sa.Column("acked_id", NUMBER, nullable=False),
    )
    op.create_table(
        "bus_dead_letters",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("stream", text(64), nullable=False),
        sa.Column("group_name", text(64), nullable=False),
        sa.Column("key", text(300), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
    )
