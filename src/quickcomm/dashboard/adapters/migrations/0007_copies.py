"""When an utterance ended, and of which other one it is a copy: the same transmission through another receiver."""

import sqlalchemy as sa
from alembic import op

from quickcomm.kernel.storage.columns import text

revision = "dashboard_0007"
down_revision = "dashboard_0006"


def upgrade() -> None:
    op.add_column("dashboard_utterances", sa.Column("ended_ns", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("dashboard_utterances", sa.Column("copy_of", text(200)))
    op.create_index("dashboard_utterances_span", "dashboard_utterances", ["site", "spoken_ns", "ended_ns"])
    which = sa.text("copy_of IS NOT NULL")
    op.create_index(
        "dashboard_utterances_copies",
        "dashboard_utterances",
        ["site", "copy_of"],
        sqlite_where=which,
        postgresql_where=which,
    )
