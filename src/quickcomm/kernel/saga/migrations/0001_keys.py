"""Idempotency keys of the steps that had their effects in this database."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "saga_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "saga_keys",
        sa.Column("key", text(200), primary_key=True),
        sa.Column("undone", sa.Boolean, nullable=False),
        sa.Column("reply", sa.LargeBinary, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False, index=True),
    )
