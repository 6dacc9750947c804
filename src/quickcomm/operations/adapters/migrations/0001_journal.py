"""How operations stand."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "operations_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "operations_journal",
        sa.Column("id", text(64), primary_key=True),
        sa.Column("name", text(64), nullable=False),
        sa.Column("site", text(64), nullable=False),
        sa.Column("subject", text(200), nullable=False),
        sa.Column("status", text(16), nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("started_ns", sa.BigInteger, nullable=False, index=True),
        sa.Column("changed_ns", sa.BigInteger, nullable=False),
        sa.Column("progress", sa.LargeBinary, nullable=False),
    )
    op.create_index("operations_journal_about", "operations_journal", ["site", "name", "subject"])
    op.create_index("operations_journal_status", "operations_journal", ["status"])
