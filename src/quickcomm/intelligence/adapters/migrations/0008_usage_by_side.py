"""What each side of a migration has spent, so that both know the sum. Before, and where nothing moves, it is empty."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "intelligence_0008"
down_revision = "intelligence_0007"

SUMS = ("calls", "prompt_tokens", "completion_tokens", "cost_nano")
DAYS, CONVERSATIONS = "intelligence_usage_days", "intelligence_usage_conversations"


def upgrade() -> None:
    """Make both tables anew: a primary key cannot be changed everywhere."""
    op.drop_index("intelligence_usage_time", CONVERSATIONS)
    _anew(DAYS, sa.Column("day", text(10), primary_key=True), named="day")
    last = sa.Column("last_ns", sa.BigInteger, nullable=False)
    _anew(
        CONVERSATIONS, sa.Column("conversation_id", text(128), primary_key=True), last, named="conversation_id, last_ns"
    )
    op.create_index("intelligence_usage_time", CONVERSATIONS, ["site", "last_ns"])


def _anew(name: str, *columns: sa.Column[Any], named: str) -> None:
    op.create_table(
        f"{name}_new",
        sa.Column("site", text(64), primary_key=True),
        columns[0],
        sa.Column("side", text(16), primary_key=True),
        *columns[1:],
        *(sa.Column(sums, sa.BigInteger, nullable=False) for sums in SUMS),
    )
    sums = ", ".join(SUMS)
    op.execute(f"INSERT INTO {name}_new (site, side, {named}, {sums}) SELECT site, '', {named}, {sums} FROM {name}")  # noqa: S608 - our names
    op.drop_table(name)
    op.rename_table(f"{name}_new", name)
