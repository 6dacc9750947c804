"""Conversations, utterances with their full text, tasks, closings by voice, and the change counter of each site."""

import sqlalchemy as sa
from alembic import op

from quickcomm.dashboard.adapters.dialects import dialect_of
from quickcomm.kernel.storage.columns import FLOAT, NUMBER, text

revision = "dashboard_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "dashboard_changes",
        sa.Column("site", text(80), primary_key=True),
        sa.Column("change", NUMBER, nullable=False),
    )
    _conversations()
    _utterances()
    _tasks()
    _closings()


def _conversations() -> None:
    op.create_table(
        "dashboard_conversations",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("site", text(80), nullable=False),
        sa.Column("conversation_id", text(128), nullable=False),
        sa.Column("channel", text(200), nullable=False),
        sa.Column("state", text(16), nullable=False),
        sa.Column("sample_rate", NUMBER, nullable=False),
        sa.Column("speakers", NUMBER, nullable=False),
        sa.Column("started_ns", sa.BigInteger, nullable=False),
        sa.Column("ended_ns", sa.BigInteger),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("utterances", NUMBER, nullable=False),
        sa.Column("last_spoken_ns", sa.BigInteger, nullable=False),
        sa.Column("ledgers", sa.LargeBinary, nullable=False),
        sa.Column("change", NUMBER, nullable=False),
        sa.UniqueConstraint("site", "conversation_id"),
    )
    op.create_index("dashboard_conversations_time", "dashboard_conversations", ["site", "started_ns", "id"])
    op.create_index("dashboard_conversations_state", "dashboard_conversations", ["site", "state", "started_ns", "id"])
    op.create_index("dashboard_conversations_ended", "dashboard_conversations", ["ended_ns"])


def _utterances() -> None:
    op.create_table(
        "dashboard_utterances",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("site", text(80), nullable=False),
        sa.Column("utterance_id", text(200), nullable=False),
        sa.Column("conversation_id", text(128), nullable=False),
        sa.Column("channel", text(200), nullable=False),
        sa.Column("spoken_ns", sa.BigInteger, nullable=False),
        sa.Column("heard", sa.Boolean, nullable=False),
        sa.Column("change", NUMBER, nullable=False),
        sa.Column("transcript", sa.LargeBinary),
        sa.Column("found", sa.LargeBinary),
        sa.Column("receipt", sa.LargeBinary),
        sa.Column("painted_ms", FLOAT),
        sa.UniqueConstraint("site", "utterance_id"),
        sqlite_autoincrement=True,
    )
    for name, columns in {
        "time": ["site", "heard", "spoken_ns", "id"],
        "channel": ["site", "heard", "channel", "spoken_ns", "id"],
        "conversation": ["site", "conversation_id", "heard", "spoken_ns", "id"],
        "change": ["site", "heard", "change"],
    }.items():
        op.create_index(f"dashboard_utterances_{name}", "dashboard_utterances", columns)
    for statement in dialect_of(op.get_bind()).full_text:
        op.execute(statement)


def _tasks() -> None:
    op.create_table(
        "dashboard_tasks",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("site", text(80), nullable=False),
        sa.Column("task_id", text(210), nullable=False),
        sa.Column("utterance_id", text(200), nullable=False),
        sa.Column("insight_index", NUMBER, nullable=False),
        sa.Column("channel", text(200), nullable=False),
        sa.Column("status", text(16), nullable=False),
        sa.Column("department", text(64), nullable=False),
        sa.Column("urgency", text(16), nullable=False),
        sa.Column("rooms", sa.LargeBinary, nullable=False),
        sa.Column("summary", text(80), nullable=False),
        sa.Column("assignee", text(80)),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        sa.Column("acknowledged_ns", sa.BigInteger),
        sa.Column("completed_ns", sa.BigInteger),
        sa.Column("completed_by", text(80)),
        sa.Column("completed_by_utterance", text(200)),
        sa.Column("reopened_ns", sa.BigInteger),
        sa.UniqueConstraint("site", "task_id"),
    )
    for name, columns in {
        "time": ["site", "created_ns", "id"],
        "status": ["site", "status", "created_ns", "id"],
        "department": ["site", "department", "created_ns", "id"],
        "utterance": ["site", "utterance_id", "insight_index"],
        "channel": ["site", "channel", "status"],
    }.items():
        op.create_index(f"dashboard_tasks_{name}", "dashboard_tasks", columns)
    op.create_table(
        "dashboard_rooms",
        sa.Column("site", text(80), primary_key=True),
        sa.Column("kind", text(1), primary_key=True),
        sa.Column("room", text(200), primary_key=True),
        sa.Column("at_ns", sa.BigInteger, primary_key=True),
        sa.Column("owner", text(210), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("dashboard_rooms_owner", "dashboard_rooms", ["site", "kind", "owner"])


def _closings() -> None:
    op.create_table(
        "dashboard_closings",
        sa.Column("site", text(80), primary_key=True),
        sa.Column("closing_id", text(210), primary_key=True),
        sa.Column("utterance_id", text(200), nullable=False),
        sa.Column("insight_index", NUMBER, nullable=False),
        sa.Column("channel", text(200), nullable=False),
        sa.Column("department", text(64), nullable=False),
        sa.Column("rooms", sa.LargeBinary, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("task_id", text(210)),
        sa.Column("pinned", sa.Boolean, nullable=False),
    )
    op.create_index("dashboard_closings_utterance", "dashboard_closings", ["site", "utterance_id"])
