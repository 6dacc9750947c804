"""How far the records of an earlier database have come over."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import NUMBER, text

revision = "dashboard_0004"
down_revision = "dashboard_0003"


def upgrade() -> None:
    op.create_table(
        "dashboard_backfill",
        sa.Column("table_name", text(32), primary_key=True),
        sa.Column("after", text(400), nullable=False),
        sa.Column("row_count", NUMBER, nullable=False),
        sa.Column("digest", text(16), nullable=False),
        sa.Column("state", text(16), nullable=False),
    )
