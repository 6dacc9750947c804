"""The newest decision about each task, closing and copy. What was decided before stays in the records themselves."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "dashboard_0008"
down_revision = "dashboard_0007"


def upgrade() -> None:
    op.create_table(
        "dashboard_decisions",
        sa.Column("site", text(64), primary_key=True),
        sa.Column("subject", text(256), primary_key=True),
        sa.Column("utterance_id", text(200), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_index("dashboard_decisions_utterance", "dashboard_decisions", ["site", "utterance_id"])
    op.add_column("dashboard_tasks", sa.Column("version", sa.BigInteger, nullable=False, server_default="0"))
    for table, column in (("dashboard_closings", "task_id"), ("dashboard_tasks", "completed_by_utterance")):
        which = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"{table}_{column}", table, ["site", column], sqlite_where=which, postgresql_where=which)
