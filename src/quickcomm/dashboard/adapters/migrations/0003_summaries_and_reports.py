"""Summaries of conversations; the intent of each task, and an index that answers a shift report without its rows."""

import sqlalchemy as sa
from alembic import op

from quickcomm.dashboard.adapters.dialects import dialect_of
from quickcomm.kernel.storage.columns import NUMBER, text

revision = "dashboard_0003"
down_revision = "dashboard_0002"


def upgrade() -> None:
    for column in (
        sa.Column("summary", text(400), nullable=False, server_default=""),
        sa.Column("summary_source", text(16), nullable=False, server_default="local"),
        sa.Column("summary_revision", NUMBER, nullable=False, server_default="0"),
        sa.Column("summary_ns", sa.BigInteger, nullable=False, server_default="0"),
    ):
        op.add_column("dashboard_conversations", column)
    op.add_column("dashboard_tasks", sa.Column("intent", text(64), nullable=False, server_default=""))
    op.execute(
        "UPDATE dashboard_tasks SET intent = coalesce((SELECT "  # noqa: S608 - our own words
        f"{dialect_of(op.get_bind()).intent} FROM dashboard_utterances AS u"
        " WHERE u.site = dashboard_tasks.site AND u.utterance_id = dashboard_tasks.utterance_id), '')"
    )
    op.create_index(
        "dashboard_tasks_report",
        "dashboard_tasks",
        ["site", "created_ns", "department", "intent", "urgency", "acknowledged_ns", "completed_ns"],
    )
