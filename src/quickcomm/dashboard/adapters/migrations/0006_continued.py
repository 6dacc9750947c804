"""Which conversation another one goes on with, and since when the client of a conversation is away."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "dashboard_0006"
down_revision = "dashboard_0005"


def upgrade() -> None:
    op.add_column("dashboard_conversations", sa.Column("continues", text(128)))
    op.add_column("dashboard_conversations", sa.Column("away_ns", sa.BigInteger))
