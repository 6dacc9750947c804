"""Counts of unfinished tasks a channel, without a walk through all that are done."""

import sqlalchemy as sa
from alembic import op

revision = "dashboard_0002"
down_revision = "dashboard_0001"


def upgrade() -> None:
    unfinished = sa.text("status != 'done'")
    op.create_index(
        "dashboard_tasks_unfinished",
        "dashboard_tasks",
        ["site", "channel"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
