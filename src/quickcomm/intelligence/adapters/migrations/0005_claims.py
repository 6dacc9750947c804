"""Where several processes share the work: until when something is in the hands of one of them."""

import sqlalchemy as sa
from alembic import op

revision = "intelligence_0005"
down_revision = "intelligence_0004"


def upgrade() -> None:
    for table in ("intelligence_owed", "intelligence_talks"):
        op.add_column(table, sa.Column("claimed_ns", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "intelligence_inherited",
        sa.Column("what", sa.Text, primary_key=True),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
    )
