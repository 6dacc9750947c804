"""Prompt versions, which of them are in force, and who put them there on what evidence."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import NUMBER, text

revision = "intelligence_0003"
down_revision = "intelligence_0002"


def upgrade() -> None:
    op.create_table(
        "intelligence_prompts",
        sa.Column("id", text(64), primary_key=True),
        sa.Column("name", text(64), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("added_ns", sa.BigInteger, nullable=False),
        sa.Column("added_by", text(80), nullable=False),
    )
    op.create_table(
        "intelligence_prompt_deployments",
        sa.Column("revision", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("live_id", text(64), nullable=False),
        sa.Column("canary_id", text(64)),
        sa.Column("weight", NUMBER, nullable=False),
        sa.Column("back_to", sa.Integer),
    )
    op.create_table(
        "intelligence_prompt_audit",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("by", text(80), nullable=False),
        sa.Column("action", text(16), nullable=False),
        sa.Column("prompt_id", text(64), nullable=False),
        sa.Column("against_id", text(64)),
        sa.Column("weight", NUMBER, nullable=False),
        sa.Column("forced", sa.Boolean, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text),
    )
    op.create_index("intelligence_prompt_audit_of", "intelligence_prompt_audit", ["prompt_id", "action", "id"])
