"""Indexes for what a page shows first: open tasks by urgency, those done last, unclassified utterances."""

import sqlalchemy as sa
from alembic import op

revision = "dashboard_0005"
down_revision = "dashboard_0004"


def upgrade() -> None:
    for name, table, columns, which in (
        ("dashboard_tasks_urgency", "dashboard_tasks", ["site", "urgency", "created_ns", "id"], "status != 'done'"),
        ("dashboard_tasks_done", "dashboard_tasks", ["site", "completed_ns"], "status = 'done'"),
        ("dashboard_utterances_unclassified", "dashboard_utterances", ["site", "heard", "spoken_ns"], "found IS NULL"),
    ):
        op.create_index(name, table, columns, sqlite_where=sa.text(which), postgresql_where=sa.text(which))
