"""Conversations with their checkpoints, and their event logs."""

import sqlalchemy as sa
from alembic import op

revision = "audio_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "audio_conversations",
        sa.Column("site", sa.String(64), primary_key=True),
        sa.Column("conversation_id", sa.String(128), primary_key=True),
        sa.Column("channel", sa.String(80), nullable=False),
        sa.Column("encoding", sa.String(16), nullable=False),
        sa.Column("sample_rate", sa.Integer, nullable=False),
        sa.Column("speakers", sa.Integer, nullable=False),
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("checkpoints", sa.LargeBinary, nullable=False),
        sa.Column("ledgers", sa.LargeBinary, nullable=False),
        sa.Column("updated_ns", sa.BigInteger, nullable=False),
    )
    op.create_index("audio_conversations_state", "audio_conversations", ["state", "updated_ns"])
    op.create_table(
        "audio_events",
        sa.Column("site", sa.String(64), primary_key=True),
        sa.Column("conversation_id", sa.String(128), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("utterance_id", sa.String(200), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.UniqueConstraint("site", "utterance_id", "kind", "revision", name="audio_events_once"),
    )
