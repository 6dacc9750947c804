"""What the dashboard's SQL says differently to SQLite and to PostgreSQL: all of it, and nothing else."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from quickcomm.dashboard.adapters.dialect import MIN_PREFIX, Dialect, Inserting, Words

MAX_TERMS: Final = 16
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


def terms_of(query: str) -> list[str]:
    """People type anything: only words are taken from it, so that nothing is ever a syntax error."""
    return re.findall(r"\w+", query)[:MAX_TERMS]


fts = sa.table("dashboard_fts", sa.column("rowid", sa.BigInteger))


_FTS5: Final = sa.table(
    "dashboard_fts", *map(sa.column, ("rowid", "dashboard_fts", "text", "summary", "rooms", "tags"))
)
_UNINDEX: Final = _FTS5.delete().where(_FTS5.c.rowid == sa.bindparam("row"))
_INDEX: Final = _FTS5.insert().values(
    rowid=sa.bindparam("row"), **{name: sa.bindparam(name) for name in ("text", "summary", "rooms", "tags")}
)


class _Sqlite(Inserting):
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


@cache
def dialect(name: str) -> Dialect:
    """By SQLAlchemy's name for it. What is for PostgreSQL is loaded where there is one: it takes a while."""
    if name == "sqlite":
        return _Sqlite()
    from quickcomm.dashboard.adapters.dialect_postgres import PostgresDialect  # noqa: PLC0415

    return PostgresDialect()


def dialect_of(connection: Connection) -> Dialect:
    return dialect(connection.dialect.name)
