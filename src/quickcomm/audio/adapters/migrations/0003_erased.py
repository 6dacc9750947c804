"""Tombstones: ids of what was erased."""

from alembic import op

from quickcomm.kernel.erasing.tombstones import tombstone_columns

revision = "audio_0003"
down_revision = "audio_0002"


def upgrade() -> None:
    op.create_table("audio_erased", *tombstone_columns())
