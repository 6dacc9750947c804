"""The file of a backup: one SQLite database with all tables of a site, as `serve` keeps them, and a manifest.

Written under another name and verified before it takes its own. Copies are consistent while a server writes.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from quickcomm.kernel.errors import MALFORMED, InvalidInputError

APPLICATION_ID: Final = 0x51434F4D
"""`QCOM`: marks a backup as ours."""
PAGES: Final = 4096
"""So many are copied between two reports of progress."""
MANIFEST: Final = "backup_manifest"
HOME: Final = "bus_home"
"""Says that messages and conversations are in a store. In a backup they are not."""
TABLES: Final = "SELECT name FROM {} WHERE type = 'table' AND name NOT LIKE 'sqlite@_%' ESCAPE '@' ORDER BY name"
FULL_TEXT: Final = "_fts_"
"""In the names of tables that SQLite keeps for itself beside a full text."""
SEQUENCE: Final = "sqlite_sequence"
DASHBOARD: Final = "dashboard_"
INTELLIGENCE: Final = "intelligence_"
TRAFFIC: Final = "traffic_"
"""Beginnings of the names of a module's tables."""
SIDE: Final = "dashboard_side"
MESSAGES: Final = "bus_messages"
STATE, AUDIT = "traffic_state", "traffic_audit"
STORED: Final = f"SELECT state FROM {STATE}"  # noqa: S608 - our name
DONE: Final = "done"
CARDS_COPIED: Final = "dashboard_backfill"
RESULTS_COPIED: Final = "intelligence_copied"
"""Marks of a copy from one side of a migration to the other, also where what is there has become stale."""
Rows = dict[str, int]
"""How many rows each table has."""
Tell = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and of how much (0: unknown)."""


class Recordings(msgspec.Struct, frozen=True, kw_only=True):
    """Where recordings are, which a backup does not contain. `files` and `bytes` are None where they are remote."""

    where: str
    files: int | None = None
    bytes: int | None = None


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """A service's database that a backup does not contain, because a setting puts it elsewhere."""

    service: str
    database: str
    """The address of a PostgreSQL database, without the password, or a file."""

    @property
    def is_file(self) -> bool:
        return "://" not in self.database


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup contains. `deployment`: `serve`, `monolith` or `services`."""

    version: str
    taken_at: str
    deployment: str
    rows: Rows
    recordings: Recordings | None = None
    elsewhere: tuple[Elsewhere, ...] = ()


def copy_database(source: Path, target: Path, tell: Tell) -> Rows:
    """Copy a SQLite database as it is at one moment, whoever writes to it; return the rows of its tables then."""

    def progress(_status: int, remaining: int, total: int) -> None:
        tell(f"Copying {source.name}", total - remaining, total)

    with reading(source) as old, contextlib.closing(connect(target)) as new:
        rows = _count(old)
        old.backup(new, pages=PAGES, progress=progress)
    return rows


def add_tables(source: Path, target: Path, tell: Tell, of: str = "") -> Rows:
    """Copy tables into another database, as they are at one moment; return their rows.

    `of`: the beginning of their names; empty: all but the dashboard's.
    """
    with contextlib.closing(connect(target)) as new:
        new.execute("ATTACH ? AS site", (f"{source.absolute().as_uri()}?mode=ro",))
        new.execute("BEGIN")
        found = (name for (name,) in new.execute(TABLES.format("site.sqlite_master")))
        names = [name for name in found if (name.startswith(of) if of else not name.startswith(DASHBOARD))]
        for place, name in enumerate(names):
            tell(f"Copying {source.name}", place, len(names))
            _add_table(new, name)
        rows = {name: _rows(new, f'site."{name}"') for name in names}
        new.execute("COMMIT")
    return rows


def add_messages(source: Path, target: Path) -> Rows:
    """Append the messages that a service has not sent yet to those of the site; return their rows."""
    with contextlib.closing(connect(target)) as new:
        new.execute("ATTACH ? AS service", (f"{source.absolute().as_uri()}?mode=ro",))
        if not (_has(new, MESSAGES, "service") and _has(new, MESSAGES)):
            return {}
        columns = ", ".join(row[1] for row in new.execute(f"PRAGMA main.table_info({MESSAGES})") if row[1] != "id")
        unsent = f"SELECT {columns} FROM service.{MESSAGES} ORDER BY id"  # noqa: S608 - our names
        new.execute(f"INSERT INTO main.{MESSAGES} ({columns}) {unsent}")
        return {MESSAGES: _rows(new, MESSAGES)}


def split_migration(database: Path, target: Path, taken_at: str) -> bool:
    """Move the state and audit of a migration into a file of their own; return False where there are none.

    What was restored is in one database, and with the monolith: the state says so, and the audit goes on.
    """
    with contextlib.closing(connect(database)) as connection:
        row = connection.execute(STORED).fetchone() if _has(connection, STATE) else None
    if row is None:
        return False
    target.unlink(missing_ok=True)
    before = msgspec.json.decode(row[0], type=_Migration)
    after = _Migration(version=before.version, changes=before.changes)
    add_tables(database, target, lambda *_: None, TRAFFIC)
    with contextlib.closing(connect(target)) as new:
        new.execute(f"UPDATE {STATE} SET state = ?", (msgspec.json.encode(after),))  # noqa: S608 - our name
        entry = (
            time.time_ns(),
            "restore",
            "all",
            "restored",
            "",
            "off",
            after.version,
            f"a backup of {taken_at}",
            b"[]",
        )
        columns = "at_ns, who, module, action, before, after, version, why, evidence"
        new.execute(f"INSERT INTO {AUDIT} ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", entry)  # noqa: S608 - our names
    with contextlib.closing(connect(database)) as connection:
        for (name,) in connection.execute(TABLES.format("sqlite_master")).fetchall():
            if name.startswith(TRAFFIC):
                connection.execute(f'DROP TABLE "{name}"')
    return True


class _Migration(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a migration controller. Without modules, all are with the monolith."""

    version: int = 0
    changes: int = 0
    modules: dict[str, msgspec.Raw] = {}


def lacks_copy(database: Path, marks: str) -> bool:
    """Return True where the tables of a module are stale: it went on elsewhere, or is being copied back from there."""
    if not database.is_file():
        return False
    with reading(database) as connection:
        if not _has(connection, marks):
            return False
        row = connection.execute(f"SELECT state FROM {marks} WHERE table_name = 'all'").fetchone()  # noqa: S608 - our name
        return row is not None and row[0] != DONE


def seal(file: Path, manifest: msgspec.Struct, mark: int = APPLICATION_ID) -> None:
    """Put the manifest in, and have all of it in one file on the disk. `mark`: the application id of the file."""
    with contextlib.closing(connect(file)) as connection:
        connection.execute(f"CREATE TABLE {MANIFEST} (json TEXT NOT NULL)")
        connection.execute(f"INSERT INTO {MANIFEST} VALUES (?)", (msgspec.json.encode(manifest).decode(),))  # noqa: S608 - our name
        connection.execute(f"PRAGMA application_id = {mark}")
        connection.execute("PRAGMA journal_mode = DELETE")
    sync(file)


def unseal(database: Path) -> None:
    """Make a backup's copy a site's database again."""
    with contextlib.closing(connect(database)) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {MANIFEST}")
        connection.execute("PRAGMA application_id = 0")
        forget_home(connection)
        _renew_side(connection)


def forget_home(connection: sqlite3.Connection) -> None:
    """No store knows of this copy: what it has is all there is."""
    if _has(connection, HOME):
        connection.execute(f"DELETE FROM {HOME}")  # noqa: S608 - our name


def _renew_side(connection: sqlite3.Connection) -> None:
    """What clients know of the former site's changes is not what this one counts on from."""
    if _has(connection, SIDE):
        connection.execute(f"UPDATE {SIDE} SET id = lower(hex(randomblob(8)))")  # noqa: S608 - our name


def check(file: Path) -> Manifest | None:
    """Read a backup through; return its manifest, None for one that an earlier version made.

    Raises `InvalidInputError` if it is damaged, or lacks rows that were read when it was made.
    """
    if not file.is_file():
        raise InvalidInputError(f"There is no file {file}.")
    try:
        with reading(file) as backup:
            mark = backup.execute("PRAGMA application_id").fetchone()[0]
            is_sound = backup.execute("PRAGMA quick_check").fetchone()[0] == "ok"
            if mark != APPLICATION_ID or not is_sound:
                raise InvalidInputError(f"{file} is no sound backup of QuickComm (made with `quickcomm backup`).")
            if not _has(backup, MANIFEST):
                return None
            [(text,)] = backup.execute(f"SELECT json FROM {MANIFEST}")  # noqa: S608 - our name
            manifest = msgspec.json.decode(text, type=Manifest)
            rows = _count(backup)
    except (sqlite3.Error, ValueError, *MALFORMED) as error:
        raise InvalidInputError(f"{file} is no backup of QuickComm: {error}") from error
    for name, count in manifest.rows.items():
        if rows.get(name, 0) != count:
            raise InvalidInputError(f"{file} is not whole: {name} has {rows.get(name, 0)} rows of {count}.")
    return manifest


def sync(path: Path) -> None:
    """Return once the file or folder is on the disk."""
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def connect(path: Path) -> sqlite3.Connection:
    """Open a SQLite file in which each statement is a transaction of its own."""
    return sqlite3.connect(f"{path.absolute().as_uri()}", uri=True, isolation_level=None, timeout=30)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """See the database as it is now until the end, whatever is written meanwhile."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN")
        yield connection


# -- inside -----------------------------------------------------------------------------------------------------------


def _has(connection: sqlite3.Connection, table: str, schema: str = "main") -> bool:
    query = f"SELECT 1 FROM {schema}.sqlite_master WHERE name = ?"  # noqa: S608 - our name
    return connection.execute(query, (table,)).fetchone() is not None


def _count(connection: sqlite3.Connection) -> Rows:
    names = [name for (name,) in connection.execute(TABLES.format("sqlite_master"))]
    return {name: _rows(connection, f'"{name}"') for name in names if FULL_TEXT not in name and name != MANIFEST}


def _rows(connection: sqlite3.Connection, table: str) -> int:
    count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - from sqlite_master
    return count


def _add_table(new: sqlite3.Connection, name: str) -> None:
    new.execute(f'DROP TABLE IF EXISTS main."{name}"')
    made = new.execute(
        "SELECT sql FROM site.sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type = 'table' DESC",
        (name,),
    ).fetchall()
    (table,), *others = made
    new.execute(table)
    new.execute(f'INSERT INTO main."{name}" SELECT * FROM site."{name}"')  # noqa: S608 - from sqlite_master
    for (statement,) in others:
        new.execute(statement)
    if _has(new, SEQUENCE, "main") and _has(new, SEQUENCE, "site"):  # a number that was given is not given again
        new.execute("DELETE FROM main.sqlite_sequence WHERE name = ?", (name,))
        new.execute("INSERT INTO main.sqlite_sequence SELECT * FROM site.sqlite_sequence WHERE name = ?", (name,))
