"""Whether the site's messages and conversations are kept in a Valkey, and which life of it that is."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "bus_0002"
down_revision = "bus_0001"


def upgrade() -> None:
    op.create_table(
        "bus_home",
        sa.Column("id", text(64), primary_key=True),
        sa.Column("whole", sa.Boolean, nullable=False),
    )
