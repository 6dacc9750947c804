"""Tombstones: ids of what was erased."""

from alembic import op

from quickcomm.kernel.erasing.tombstones import tombstone_columns

revision = "intelligence_0009"
down_revision = "intelligence_0008"


def upgrade() -> None:
    op.create_table("intelligence_erased", *tombstone_columns())
