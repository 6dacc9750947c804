"""What the dashboard's SQL says differently to SQLite and to PostgreSQL: all of it, and nothing else.

Full text: FTS5 cuts text into words by itself. PostgreSQL's own parser knows addresses, hyphens and signs, and would
find other things; so words are cut here as FTS5 does (`unicode61 remove_diacritics 2`), and stored as they are in a
`tsvector`.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

MIN_PREFIX: Final = 2
MAX_TERMS: Final = 16
FAR: Final = 8
"""Words between two columns, so that no phrase goes from one into the next."""
MAX_POSITION: Final = 16_383
MAX_WORD: Final = 500
NO_NUL: Final = "\U0010fffd"
"""PostgreSQL's text cannot hold U+0000. Two characters stand for it, and two for this one itself."""


class EscapedText(sa.TypeDecorator[str]):
    """Any text, on PostgreSQL."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - its interface
        if value is None or ("\x00" not in value and NO_NUL not in value):
            return value
        return value.replace(NO_NUL, f"{NO_NUL}1").replace("\x00", f"{NO_NUL}0")

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - its interface
        if value is None or NO_NUL not in value:
            return value
        return value.replace(f"{NO_NUL}0", "\x00").replace(f"{NO_NUL}1", NO_NUL)


TEXT: Final = sa.String().with_variant(EscapedText(), "postgresql")


class Least(FunctionElement[int]):
    """The smaller of two that are both there, or both not."""

    type = sa.BigInteger()
    inherit_cache = True
    name = "least"


class Greatest(FunctionElement[int]):
    type = sa.BigInteger()
    inherit_cache = True
    name = "greatest"


@compiles(Least)
def _least(element: Least, compiler: Any, **options: Any) -> str:
    return f"least({compiler.process(element.clauses, **options)})"


@compiles(Greatest)
def _greatest(element: Greatest, compiler: Any, **options: Any) -> str:
    return f"greatest({compiler.process(element.clauses, **options)})"


@compiles(Least, "sqlite")
def _min(element: Least, compiler: Any, **options: Any) -> str:
    return f"min({compiler.process(element.clauses, **options)})"


@compiles(Greatest, "sqlite")
def _max(element: Greatest, compiler: Any, **options: Any) -> str:
    return f"max({compiler.process(element.clauses, **options)})"


class Words(NamedTuple):
    """What of an utterance is found by its words; `tags` are words too, of a kind that nobody says."""

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


def dialect_of(connection: Connection) -> Dialect:
    return DIALECTS[connection.dialect.name]


def terms_of(query: str) -> list[str]:
    """People type anything: only words are taken from it, so that nothing is ever a syntax error."""
    return re.findall(r"\w+", query)[:MAX_TERMS]


fts = sa.table("dashboard_fts", sa.column("rowid", sa.BigInteger))


class _Inserting:
    """What both do alike, each with its own `INSERT`."""

    def __init__(self, insert: Callable[[sa.Table], Any]) -> None:
        self.insert = insert

    def save(self, table: sa.Table, key: Iterable[str], keep: Iterable[str] = ()) -> sa.Executable:
        statement = self.insert(table)
        stays = {*key, *keep}
        change = {column.name: statement.excluded[column.name] for column in table.c if column.name not in stays}
        saving: sa.Executable = statement.on_conflict_do_update(index_elements=list(key), set_=change)
        return saving


_FTS5: Final = sa.table(
    "dashboard_fts", *map(sa.column, ("rowid", "dashboard_fts", "text", "summary", "rooms", "tags"))
)
_UNINDEX: Final = _FTS5.delete().where(_FTS5.c.rowid == sa.bindparam("row"))
_INDEX: Final = _FTS5.insert().values(
    rowid=sa.bindparam("row"), **{name: sa.bindparam(name) for name in ("text", "summary", "rooms", "tags")}
)


class _Sqlite(_Inserting):
    full_text = (
        "CREATE VIRTUAL TABLE dashboard_fts USING fts5(text, summary, rooms, tags,"  # noqa: ISC004 - one statement
        " tokenize='unicode61 remove_diacritics 2', prefix='2 3')",
    )
    intent = "json_extract(CAST(found AS TEXT), '$.insights[' || insight_index || '].intent')"

    def __init__(self) -> None:
        super().__init__(sqlite.insert)

    def index(self, connection: Connection, words: Sequence[Words], *, new: bool = False) -> None:
        if not words:
            return
        if not new:
            connection.execute(_UNINDEX, [{"row": item.row} for item in words])
        connection.execute(_INDEX, [item._asdict() | {"tags": " ".join(item.tags)} for item in words])

    def expression(self, tags: Sequence[str], terms: Sequence[str]) -> str:
        wanted = f"tags : ({' AND '.join(tags)})"
        if not terms:
            return wanted
        quoted = [f'"{term}"' for term in terms]
        if len(terms[-1]) >= MIN_PREFIX:
            quoted[-1] += "*"
        return f"{wanted} AND {{text summary rooms}} : ({' AND '.join(quoted)})"

    @property
    def searched(self) -> sa.TableClause:
        return _FTS5

    def matches(self, expression: str) -> sa.ColumnElement[bool]:
        return _FTS5.c.dashboard_fts.op("MATCH", is_comparison=True)(expression)


_VECTORS: Final = sa.table("dashboard_fts", sa.column("rowid", sa.BigInteger), sa.column("words", postgresql.TSVECTOR))


class _Postgres(_Inserting):
    full_text = (
        "CREATE TABLE dashboard_fts (rowid BIGINT PRIMARY KEY, words TSVECTOR NOT NULL)",
        # A short list of what is not sorted in yet: every search reads all of it.
        "CREATE INDEX dashboard_fts_words ON dashboard_fts USING gin (words) WITH (gin_pending_list_limit = 256)",
    )
    intent = "convert_from(found, 'UTF8')::json -> 'insights' -> insight_index::int ->> 'intent'"

    def __init__(self) -> None:
        super().__init__(postgresql.insert)
        statement = postgresql.insert(_VECTORS).values(
            rowid=sa.bindparam("row"), words=sa.cast(sa.bindparam("words", type_=sa.Text), postgresql.TSVECTOR)
        )
        self._index = statement.on_conflict_do_update(
            index_elements=["rowid"], set_={"words": statement.excluded.words}
        )

    def index(self, connection: Connection, words: Sequence[Words], *, new: bool = False) -> None:  # noqa: ARG002
        if words:
            connection.execute(self._index, [{"row": item.row, "words": vector(item)} for item in words])

    def expression(self, tags: Sequence[str], terms: Sequence[str]) -> str:
        wanted = [f"':{tag}'" for tag in tags]
        for term in terms:
            phrase = [f"'{word}'" for word in words_in(term)]
            if not phrase:
                return ""
            if term is terms[-1] and len(term) >= MIN_PREFIX:
                phrase[-1] += ":*"
            wanted.append(f"({' <-> '.join(phrase)})")
        return " & ".join(wanted)

    @property
    def searched(self) -> sa.TableClause:
        return _VECTORS

    def matches(self, expression: str) -> sa.ColumnElement[bool]:
        query = sa.cast(sa.literal(expression, sa.Text), postgresql.TSQUERY)
        return _VECTORS.c.words.op("@@", is_comparison=True)(query)


def words_in(text: str) -> list[str]:
    """As FTS5 cuts them: runs of letters and digits, in lower case and without their accents."""
    if not text.isascii():
        marked = unicodedata.normalize("NFD", text.lower())
        bare = "".join(c for c in marked if not "\u0300" <= c <= "\u036f")
        text = unicodedata.normalize("NFC", bare).replace(
            "\N{GREEK SMALL LETTER FINAL SIGMA}", "\N{GREEK SMALL LETTER SIGMA}"
        )
    else:
        text = text.lower()
    return [word[:MAX_WORD] for word in re.findall(r"[^\W_]+", text)]


def vector(words: Words) -> str:
    """A `tsvector` in PostgreSQL's own writing. Words are letters and digits, so nothing needs to be escaped."""
    places: dict[str, list[int]] = {}
    place = 1
    for column in (words.text, words.summary, words.rooms):
        for word in words_in(column):
            places.setdefault(word, []).append(min(place, MAX_POSITION))
            place += 1
        place += FAR
    found = [f"'{word}':{','.join(map(str, sorted(set(at))[:255]))}" for word, at in places.items()]
    return " ".join([*found, *(f"':{tag}'" for tag in words.tags)])


DIALECTS: Final[Mapping[str, Dialect]] = {"sqlite": _Sqlite(), "postgresql": _Postgres()}
