"""The interface of a dialect of the dashboard's SQL, and what the dialects have in common."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy import Connection

MIN_PREFIX: Final = 2
"""Letters from which on the last word of a search may be a beginning."""


class Words(NamedTuple):
    """The searchable words of an utterance; `tags` are words that stand for a site, a channel or a department."""

    row: int
    text: str
    summary: str
    rooms: str
    tags: tuple[str, ...]


class Dialect(Protocol):
    @property
    def full_text(self) -> Sequence[str]:
        """Creates the table of the full text."""
        ...

    @property
    def intent(self) -> str:
        """The intent of insight number `insight_index`, in the JSON of `found`."""
        ...

    def insert(self, table: sa.Table) -> Any:
        """Has `on_conflict_do_update`."""
        ...

    def save(self, table: sa.Table, key: Iterable[str], keep: Iterable[str] = ()) -> sa.Executable:
        """Insert, or change all but the key and what is to be kept."""
        ...

    def index(self, connection: Connection, words: Sequence[Words], *, new: bool = False) -> None:
        """`new`: none of them was indexed before."""
        ...

    def expression(self, tags: Sequence[str], terms: Sequence[str]) -> str:
        """What to ask for: all tags and all terms, the last one also as the beginning of a word. Empty: in vain."""
        ...

    @property
    def searched(self) -> sa.TableClause:
        """The table of the full text."""
        ...

    def matches(self, expression: str) -> sa.ColumnElement[bool]:
        """Which rows of it do."""
        ...


class Inserting:
    """Upserts, with the `INSERT` of the dialect."""

    def __init__(self, insert: Callable[[sa.Table], Any]) -> None:
        self.insert = insert

    def save(self, table: sa.Table, key: Iterable[str], keep: Iterable[str] = ()) -> sa.Executable:
        statement = self.insert(table)
        stays = {*key, *keep}
        change = {column.name: statement.excluded[column.name] for column in table.c if column.name not in stays}
        saving: sa.Executable = statement.on_conflict_do_update(index_elements=list(key), set_=change)
        return saving
