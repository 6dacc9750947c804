"""The name of this database in cursors, and conversations by change: for clients that poll."""

import secrets

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "dashboard_0009"
down_revision = "dashboard_0008"


def upgrade() -> None:
    side = op.create_table("dashboard_side", sa.Column("id", text(32), primary_key=True))
    op.bulk_insert(side, [{"id": secrets.token_hex(8)}])
    op.create_index("dashboard_conversations_change", "dashboard_conversations", ["site", "change"])
