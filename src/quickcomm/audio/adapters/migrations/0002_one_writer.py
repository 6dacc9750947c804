"""The step of a conversation's writer, and from where on its log is forgotten next."""

import sqlalchemy as sa
from alembic import op

revision = "audio_0002"
down_revision = "audio_0001"


def upgrade() -> None:
    for name, kind in (("step", sa.Integer), ("mark", sa.Integer), ("marked_ns", sa.BigInteger)):
        op.add_column("audio_conversations", sa.Column(name, kind, nullable=False, server_default="0"))
