"""Tombstones: ids of what was erased."""

from alembic import op

from quickcomm.kernel.erasing.tombstones import tombstone_columns

revision = "dashboard_0010"
down_revision = "dashboard_0009"


def upgrade() -> None:
    op.create_table("dashboard_erased", *tombstone_columns())
