"""The mark that says where a site's messages and conversations are kept: in its database, or in a Valkey.

Both sides carry it, with the same id. The database's is written first, so that from the first moment nobody goes on
with what is about to move; the one in Valkey says whether it has everything. See `moving.py` for the move itself.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Final

import msgspec

from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX

TOGETHER: Final = 500
SYNC_S: Final = 5.0


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """A mark. `whole`: everything is there; else the move has begun and not ended."""

    id: str
    whole: bool


def first_row(database: Path, table: str, columns: str = "1") -> tuple[Any, ...] | None:
    """Return the first row of a table in a SQLite file; None if there is no file, table or row.

    Needs nothing that takes long to load. Raises `ConfigurationError` where the file cannot be read.
    """
    if not database.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                return None
            row: tuple[Any, ...] | None = connection.execute(f"SELECT {columns} FROM {table}").fetchone()  # noqa: S608 - our names
            return row
    except sqlite3.Error as error:
        raise ConfigurationError(f"The database {database} cannot be opened: {error}") from error


def home_in(database: Path) -> Home | None:
    """Return the database's mark: None where everything is still kept in it."""
    row = first_row(database, "bus_home", "id, whole")
    return None if row is None else Home(id=row[0], whole=bool(row[1]))


class HomeInStore:
    """The mark in Valkey, and all that is ours there."""

    def __init__(self, link: Link, prefix: str = PREFIX) -> None:
        self._link = link
        self._prefix = prefix
        self._mark = f"{prefix}:home"

    def copy_marks(self, home: Home) -> str:
        """Return the key of the marks of a move to this home; another one has others."""
        return f"{self._prefix}:copy:{home.id}"

    async def read(self) -> Home | None:
        fields: list[bytes | None] = await self._link.call("HMGET", self._mark, "id", "whole")
        return None if fields[0] is None else Home(id=fields[0].decode(), whole=fields[1] == b"1")

    async def write(self, home: Home) -> None:
        """Return once it and all that was written before is on the server's disk, if the server has one."""
        await self._link.call("HSET", self._mark, "id", home.id, "whole", int(home.whole))
        with contextlib.suppress(QuickCommError):  # it keeps no file, or is older than the command
            await self._link.call("WAITAOF", 1, 0, int(SYNC_S * 1000) - 1000)

    async def claim(self, home: Home) -> bool:
        """Set the mark where there is none; return whether it is this one now. Of two sites, one gets it."""
        await self._link.call("HSETNX", self._mark, "id", home.id)
        found: list[bytes | None] = await self._link.call("HMGET", self._mark, "id")
        return found[0] == home.id.encode()

    async def release(self) -> None:
        """Delete the mark: whoever comes may claim the store."""
        await self._link.call("UNLINK", self._mark)

    async def is_empty(self) -> bool:
        async for _ in self._link.scan(f"{self._prefix}:*"):
            return False
        return True

    async def wipe(self) -> None:
        """Delete all that is ours but the mark."""
        found = [key async for key in self._link.scan(f"{self._prefix}:*") if key != self._mark.encode()]
        for start in range(0, len(found), TOGETHER):
            await self._link.call("UNLINK", *found[start : start + TOGETHER])
