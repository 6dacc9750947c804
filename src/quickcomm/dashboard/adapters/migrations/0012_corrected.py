"""What a person has put in the place of the heard text of an utterance."""

import sqlalchemy as sa
from alembic import op

revision = "dashboard_0012"
down_revision = "dashboard_0011"


def upgrade() -> None:
    op.add_column("dashboard_utterances", sa.Column("corrected", sa.LargeBinary))
