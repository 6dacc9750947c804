"""The epoch in which an utterance was answered: in a later one, it is answered again."""

import sqlalchemy as sa
from alembic import op

revision = "intelligence_0007"
down_revision = "intelligence_0006"


def upgrade() -> None:
    column = sa.Column("owner_epoch", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("intelligence_results", column)
