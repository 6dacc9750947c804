"""Conversations that were closed, and by whom."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "dashboard_0011"
down_revision = "dashboard_0010"


def upgrade() -> None:
    op.add_column("dashboard_conversations", sa.Column("archived_ns", sa.BigInteger))
    op.add_column("dashboard_conversations", sa.Column("archived_by", text(80)))
