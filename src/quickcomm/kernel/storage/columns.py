"""Types for migrations that run on SQLite and on PostgreSQL."""

from typing import Any, Final

import sqlalchemy as sa

NUMBER: Final = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
"""As wide as SQLite's: keys and counters, that never start again."""
FLOAT: Final = sa.Float().with_variant(sa.Double(), "postgresql")


def text(length: int) -> sa.types.TypeEngine[Any]:
    """A length that is a hint, and sorted by code points, as in SQLite."""
    return sa.String(length).with_variant(sa.Text(collation="C"), "postgresql")
