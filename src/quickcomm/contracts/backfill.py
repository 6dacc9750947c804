"""Rows that are copied between processes: pages in a stable order, each with its checksum.

Over HTTP: `GET {PATH}/{table}?after=…&limit=…` answers a `BackfillPage`, `GET {PATH}/{table}/total?…` a
`BackfillTotal`, both as MessagePack.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import xxhash

PATH: Final = "/internal/v1/backfill"
MAX_PAGE: Final = 1000
MODULUS: Final = 2**64

Row: TypeAlias = tuple[Any, ...]
"""Values of columns: numbers, text, bytes, booleans, None."""

_rows = msgspec.msgpack.Decoder(list[Row])


class BackfillPage(msgspec.Struct, frozen=True, kw_only=True):
    """`rows`: MessagePack of a list of rows, `checksum` the xxh64 of it in hexadecimal digits.

    `after`: where the next page begins; opaque. Both ends must know the same `columns`.
    """

    table: str
    columns: tuple[str, ...]
    rows: bytes
    checksum: str
    after: str
    more: bool


class BackfillTotal(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows, and the sum of their digests, from one position to the next."""

    table: str
    rows: int
    digest: str
    after: str
    more: bool


def encoded(rows: Sequence[Row]) -> bytes:
    return msgspec.msgpack.encode(rows)


def decoded(rows: bytes) -> list[Row]:
    """Raises `ValueError`."""
    return _rows.decode(rows)


def checksum(rows: bytes) -> str:
    return xxhash.xxh64_hexdigest(rows)


def digest(rows: Iterable[Row], before: int = 0) -> int:
    """A sum, so that it does not matter in which pages the rows came."""
    return (before + sum(xxhash.xxh64_intdigest(msgspec.msgpack.encode(row)) for row in rows)) % MODULUS


def written(total: int) -> str:
    return f"{total:016x}"
