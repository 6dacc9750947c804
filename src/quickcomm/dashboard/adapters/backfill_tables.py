"""What both sides of a backfill know of the tables: their order, and rows that come from elsewhere."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import sqlalchemy as sa

from quickcomm.contracts.backfill import TABLES
from quickcomm.dashboard.adapters.tables import Row, changes, closings, conversations, tasks, utterances

Values = dict[str, Any]


class Part(NamedTuple):
    """`order`: columns by which pages follow each other. By id the newest come first: they are wanted first."""

    table: sa.Table
    order: tuple[str, ...]
    newest_first: bool

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(str(column.name) for column in self.table.c)


PARTS: Final[Mapping[str, Part]] = dict(
    zip(
        TABLES,
        (
            Part(changes, ("site",), newest_first=False),
            Part(tasks, ("id",), newest_first=True),
            Part(closings, ("site", "closing_id"), newest_first=False),
            Part(utterances, ("id",), newest_first=True),
            Part(conversations, ("id",), newest_first=True),
        ),
        strict=True,
    )
)


class _Arrived:
    """Looks like a row of SQLAlchemy's."""

    def __init__(self, values: Values) -> None:
        self._mapping = values

    def _asdict(self) -> Values:
        return dict(self._mapping)

    def __getattr__(self, name: str) -> Any:
        return self._mapping[name]


def as_row(values: Values) -> Row:
    """For the functions of `tables` that make records of rows."""
    return cast("Row", _Arrived(values))
