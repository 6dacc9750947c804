"""Tables of the audio module (prefix `audio_`)."""

from typing import Final

import sqlalchemy as sa

from quickcomm.kernel.erasing.tombstones import tombstones_table

OPEN_STATES: Final = ("live", "interrupted")
BLANK: Final = "erased"
"""The kind of an event whose words were erased: its place in the log stays."""
meta = sa.MetaData()
erased = tombstones_table("audio_erased")

conversations = sa.Table(
    "audio_conversations",
    meta,
    sa.Column("site", sa.String(64), primary_key=True),
    sa.Column("conversation_id", sa.String(128), primary_key=True),
    sa.Column("channel", sa.String(80), nullable=False),
    sa.Column("encoding", sa.String(16), nullable=False),
    sa.Column("sample_rate", sa.Integer, nullable=False),
    sa.Column("speakers", sa.Integer, nullable=False),
    sa.Column("token_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("checkpoints", sa.LargeBinary, nullable=False),
    sa.Column("ledgers", sa.LargeBinary, nullable=False),
    sa.Column("updated_ns", sa.BigInteger, nullable=False),
    sa.Column("step", sa.Integer, nullable=False, server_default="0"),
    sa.Column("mark", sa.Integer, nullable=False, server_default="0"),
    sa.Column("marked_ns", sa.BigInteger, nullable=False, server_default="0"),
)
events = sa.Table(
    "audio_events",
    meta,
    sa.Column("site", sa.String(64), primary_key=True),
    sa.Column("conversation_id", sa.String(128), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("utterance_id", sa.String(200), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.UniqueConstraint("site", "utterance_id", "kind", "revision", name="audio_events_once"),
)
