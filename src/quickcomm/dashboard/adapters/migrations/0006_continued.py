"""Which conversation another one goes on with, and when the client of a conversation went and came."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "dashboard_0006"
down_revision = "dashboard_0005"


def upgrade() -> None:
    op.add_column("dashboard_conversations", sa.Column("continues", text(128)))
    for name in ("interrupted_ns", "live_ns"):
        op.add_column("dashboard_conversations", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
