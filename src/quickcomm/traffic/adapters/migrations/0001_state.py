"""The state of the controller, in one row, and its audit, which nothing changes or deletes."""

import sqlalchemy as sa
from alembic import op

revision = "traffic_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "traffic_state",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "traffic_audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String(80), nullable=False),
        sa.Column("module", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("before", sa.String(80), nullable=False),
        sa.Column("after", sa.String(80), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("evidence", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER traffic_audit_no_{change.lower()} BEFORE {change} ON traffic_audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit is only appended to'); END"
        )
