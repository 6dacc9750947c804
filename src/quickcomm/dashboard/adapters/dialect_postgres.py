"""PostgreSQL's part of `dialects`, loaded only where there is one.

Full text: FTS5 cuts text into words by itself. PostgreSQL's own parser knows addresses, hyphens and signs, and would
find other things; so words are cut here as FTS5 does (`unicode61 remove_diacritics 2`), and stored as they are in a
`tsvector`.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

from quickcomm.dashboard.adapters.dialect import MIN_PREFIX, Inserting, Words

FAR: Final = 8
"""Words between two columns, so that no phrase goes from one into the next."""
MAX_POSITION: Final = 16_383
MAX_WORD: Final = 500

_MARKS: Final = frozenset(map(chr, range(0x300, 0x370)))
_ACCENTS: Final = frozenset(
    "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u0309\u030a\u030b\u030c\u030f\u0311\u031b"
    "\u0323\u0324\u0325\u0326\u0327\u0328\u032d\u032e\u0330\u0331"
)
"""Marks behind a letter that are no part of a word for FTS5; all others part it in two."""

_VECTORS: Final = sa.table("dashboard_fts", sa.column("rowid", sa.BigInteger), sa.column("words", postgresql.TSVECTOR))


class PostgresDialect(Inserting):
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
        bare = "".join(_bare(character) for character in text.lower())
        text = unicodedata.normalize("NFC", bare).replace(
            "\N{GREEK SMALL LETTER FINAL SIGMA}", "\N{GREEK SMALL LETTER SIGMA}"
        )
    else:
        text = text.lower()
    return [word[:MAX_WORD] for word in re.findall(r"[^\W_]+", text)]


def _bare(character: str) -> str:
    """Return a letter without its accents; of a mark that stands alone, nothing, or a gap where FTS5 knows no such."""
    if character in _MARKS:
        return "" if character in _ACCENTS else " "
    return "".join(each for each in unicodedata.normalize("NFD", character) if each not in _MARKS)


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
