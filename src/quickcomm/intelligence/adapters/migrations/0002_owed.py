"""Degraded insights that are owed a renewal: what to classify again, and how it was published."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "intelligence_0002"
down_revision = "intelligence_0001"


def upgrade() -> None:
    op.create_table(
        "intelligence_owed",
        sa.Column("site", text(64), primary_key=True),
        sa.Column("utterance_id", text(200), primary_key=True),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_index("intelligence_owed_at", "intelligence_owed", ["at_ns"])
