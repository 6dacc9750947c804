"""How far the tables of a monolith's database have been copied. Where that was done before, it is not begun again."""

import sqlalchemy as sa
from alembic import op

revision = "intelligence_0006"
down_revision = "intelligence_0005"


def upgrade() -> None:
    copied = op.create_table(
        "intelligence_copied",
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("row_count", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )
    if op.get_bind().execute(sa.text("SELECT 1 FROM intelligence_inherited")).first() is not None:
        done = {"table_name": "all", "after": "", "row_count": 0, "digest": "0", "state": "done"}
        op.bulk_insert(copied, [done])
    op.drop_table("intelligence_inherited")
