"""Which utterances have insights, and their newest revision."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import NUMBER, text

revision = "intelligence_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "intelligence_results",
        sa.Column("site", text(64), primary_key=True),
        sa.Column("utterance_id", text(200), primary_key=True),
        sa.Column("revision", NUMBER, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
    )
    op.create_index("intelligence_results_at", "intelligence_results", ["at_ns"])
