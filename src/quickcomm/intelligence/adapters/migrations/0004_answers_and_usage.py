"""The model's answers, what they cost, and what conversations were about so far."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "intelligence_0004"
down_revision = "intelligence_0003"

SUMS = ("calls", "prompt_tokens", "completion_tokens", "cost_nano")


def upgrade() -> None:
    op.create_table(
        "intelligence_cache",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("used_ns", sa.BigInteger, nullable=False),
    )
    op.create_index("intelligence_cache_used", "intelligence_cache", ["used_ns"])
    op.create_index("intelligence_cache_at", "intelligence_cache", ["at_ns"])
    op.create_table(
        "intelligence_usage_days",
        sa.Column("site", text(64), primary_key=True),
        sa.Column("day", text(10), primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in SUMS),
    )
    op.create_table(
        "intelligence_usage_conversations",
        sa.Column("site", text(64), primary_key=True),
        sa.Column("conversation_id", text(128), primary_key=True),
        sa.Column("last_ns", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in SUMS),
    )
    op.create_index("intelligence_usage_time", "intelligence_usage_conversations", ["site", "last_ns"])
    op.create_table(
        "intelligence_talks",
        sa.Column("site", text(64), primary_key=True),
        sa.Column("conversation_id", text(128), primary_key=True),
        sa.Column("talk", sa.LargeBinary, nullable=False),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.Column("due_ns", sa.BigInteger),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
    )
    op.create_index("intelligence_talks_due", "intelligence_talks", ["due_ns"])
    op.create_index("intelligence_talks_at", "intelligence_talks", ["at_ns"])
