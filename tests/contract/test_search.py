"""Full-text search: both databases find the same, whatever was said and whatever is asked."""

import re
from collections.abc import Iterator
from unicodedata import ucd_3_2_0

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st
from sqlalchemy import Connection
from tests.support.examples import examples
from tests.support.hostile import TEXTS, UNPRINTABLE
from tests.support.postgres import PostgresServer

from quickcomm.dashboard.adapters.dialect import Words
from quickcomm.dashboard.adapters.dialects import dialect_of
from quickcomm.dashboard.adapters.queries import match_expression
from quickcomm.dashboard.adapters.tables import tag
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import UtteranceFilter
from quickcomm.kernel.storage import Database, migrate

SPOKEN = (
    "please bring two towels to 412",
    "Crème brûlée for the café, TOWELS!",
    "well-known e-mail: desk@hotel.example, see https://hotel.example/412?x=1",
    "room_service 4.12 -412 +1 3/4 O'Brien",
    "ΣΊΣΥΦΟΣ Straße ǅ İstanbul",
    "나비 客房服务 гостиница नमस्ते",
    "",
    "\x00 nul \x00",
    *TEXTS.values(),
    *(re.sub("[\u2066\u2069]", "", text) for text in UNPRINTABLE.values()),
)
known = st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs"]).filter(
    lambda character: ucd_3_2_0.category(character) not in {"Cn", "Co"}
)
"""FTS5's table of characters is of Unicode 6.1. What came later, it takes for letters; that is not imitated."""
words = st.sampled_from([word for text in SPOKEN for word in text.split()] or [""])
questions = st.one_of(
    st.lists(words, min_size=1, max_size=3).map(" ".join),
    st.lists(words.flatmap(lambda word: st.integers(0, len(word)).map(lambda n: word[:n])), max_size=3).map(" ".join),
    st.text(known, max_size=12),
)


@pytest.fixture(scope="module")
def both(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Connection]]:
    name = postgres.create()
    databases = [Database(tmp_path_factory.mktemp("search") / "x.sqlite"), Database(postgres.url(name))]
    connections = []
    for database in databases:
        migrate(database.engine, "dashboard", MIGRATIONS)
        connections.append(database.engine.connect())
    fill(connections, SPOKEN, 1)
    yield connections
    for connection, database in zip(connections, databases, strict=True):
        connection.close()
        database.engine.dispose()
    postgres.drop(name)


def fill(connections: list[Connection], spoken: tuple[str, ...], first: int) -> None:
    indexed = [
        Words(row=first + place, text=text, summary=f"summary {text[:9]}", rooms="9 10", tags=(tag("s", "main"),))
        for place, text in enumerate(spoken)
    ]
    for connection in connections:
        dialect_of(connection).index(connection, indexed)
        dialect_of(connection).index(connection, indexed[:3])  # again: they are there once


def find(connection: Connection, query: str, site: str = "main") -> list[int]:
    dialect = dialect_of(connection)
    expression = match_expression(dialect, site, UtteranceFilter(query=query))
    if not expression:
        return []
    rows = sa.select(dialect.searched.c.rowid).where(dialect.matches(expression)).order_by(dialect.searched.c.rowid)
    return [int(row) for row in connection.execute(rows).scalars()]


@examples(80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("room_serv")
@example("_")
@example("412 _")
@example("service room")
@example("summary 9 tow")
@example("' & ! | <-> :* \\ ''")
@example("cafe\u0301")
@given(questions)
def test_the_same_is_found(both: list[Connection], query: str) -> None:
    in_file, on_server = (find(connection, query) for connection in both)
    assert in_file == on_server


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("0\u03600")
@example("e\u0301e\u0358e")
@given(st.text(known, max_size=24))
def test_words_are_cut_alike(both: list[Connection], text: str) -> None:
    """Each word of what was said finds it."""
    fill(both, (text,), 1000)
    for query in {text, *text.split()}:
        in_file, on_server = (find(connection, query) for connection in both)
        assert in_file == on_server, query


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("towels", [1, 2]),
        ("TOW", [1, 2]),
        ("towels 412", [1]),
        ("creme brulee", [2]),
        ("owels", []),
        ("bring tow", [1]),
    ],
)
def test_words_beginnings_and_several(both: list[Connection], query: str, found: list[int]) -> None:
    for connection in both:
        assert find(connection, query) == found
        assert find(connection, query, "elsewhere") == []
