"""The file of an export: one SQLite database with the tables that modules export, recordings, and a manifest.

Written under another name and verified before it takes its own. It is verified again before anything of it is imported.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from quickcomm.contracts.backfill import digest, written
from quickcomm.contracts.decisions import archive_subject
from quickcomm.contracts.erasing import Scope
from quickcomm.kernel.copier.transfer import MARKS, ModuleTables, stored
from quickcomm.kernel.errors import MALFORMED, InvalidInputError
from quickcomm.kernel.storage.migrations import knows
from quickcomm.operate.backup_file import APPLICATION_ID as BACKUP
from quickcomm.operate.backup_file import MANIFEST, reading

EXPORT: Final = 0x51434558
"""`QCEX`: marks an export as ours."""
RECORDINGS: Final = "transfer_recordings"
ERASED: Final = "_erased"
"""The end of the names of tables of tombstones."""
RECORDING: Final = re.compile(
    r"(?P<site>[A-Za-z0-9][A-Za-z0-9._-]{0,79})/c-(?P<conversation>[A-Za-z0-9._~-]{1,128})/(?P<place>[0-9]+-[0-9]+)\.flac"
)
"""The name of a recording, in the folder of all recordings: `main/c-shift-7/0-512.flac`."""
_AWAY: Final = "CREATE TEMP TABLE away (site, conversation_id, PRIMARY KEY (site, conversation_id))"
_UNHANDLED: Final = "INSERT OR IGNORE INTO away VALUES (?, ?)"
_OPEN: Final = """
INSERT OR IGNORE INTO away
SELECT site, conversation_id FROM audio_conversations WHERE state IN ('live', 'interrupted')
"""
_LATE: Final = """
INSERT OR IGNORE INTO away
SELECT site, conversation_id FROM dashboard_conversations AS here
WHERE max(at_ns, last_spoken_ns) >= ? AND NOT EXISTS (
    SELECT 1 FROM audio_conversations AS there
    WHERE there.site = here.site AND there.conversation_id = here.conversation_id
)
"""
_COPIES: Final = """
INSERT OR IGNORE INTO away
SELECT copy.site, copy.conversation_id FROM dashboard_utterances AS copy
JOIN away ON copy.site = away.site
    AND substr(copy.copy_of, 1, instr(copy.copy_of, ':') - 1) = away.conversation_id
"""
_GONE: Final = "CREATE TEMP TABLE gone (site, conversation_id, subject, PRIMARY KEY (site, conversation_id))"
_LEAVE: Final = "DELETE FROM {} WHERE (site, {}) IN (SELECT site, {} FROM gone)"
_OF_UTTERANCE: Final = "substr(utterance_id, 1, instr(utterance_id, ':') - 1)"
Talk = tuple[str, str]
"""Site and id of a conversation."""


class TableTotal(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a table in the file, and the sum of their digests in hexadecimal digits."""

    rows: int
    digest: str


NOTHING: Final = TableTotal(rows=0, digest=written(0))


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation that was under way."""

    site: str
    conversation_id: str


class TransferManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an export contains. `id`: its own name, by which a site knows what it has imported.

    `site`: the only one that is in it; None for all of a server's.
    """

    id: str
    version: str
    taken_at: str
    deployment: str
    tables: dict[str, TableTotal]
    site: str | None = None
    left_out: tuple[LeftOut, ...] = ()


def names(modules: Iterable[ModuleTables]) -> list[str]:
    """Return the names of all tables with what is exported."""
    return [*(stored(table).name for module in modules for table in module.tables), RECORDINGS]


def totals(connection: sqlite3.Connection, tables: Iterable[str]) -> dict[str, TableTotal]:
    """Read these tables through."""
    return {name: _total(connection, name) for name in tables}


def check(file: Path, modules: Iterable[ModuleTables]) -> TransferManifest:
    """Read an export through. Raises `InvalidInputError` if it is damaged, or of a newer version."""
    if not file.is_file():
        raise InvalidInputError(f"There is no file {file}.")
    modules = tuple(modules)
    try:
        with reading(file) as export:
            _require_sound(export, file)
            [(text,)] = export.execute(f"SELECT json FROM {MANIFEST}")  # noqa: S608 - our name
            manifest = msgspec.json.decode(text, type=TransferManifest)
            _require_known(export, file, manifest, modules)
            there = {name for (name,) in export.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            wanted = {*manifest.tables, *names(modules)}
            found = totals(export, sorted(wanted & there))
    except (sqlite3.Error, TypeError, *MALFORMED) as error:
        raise InvalidInputError(f"{file} is no export of QuickComm: {error}") from error
    for name in wanted:
        if manifest.tables.get(name, NOTHING) != found.get(name, NOTHING):
            raise InvalidInputError(f"{file} is damaged: {name} is not as it was exported. Export the site again.")
    return manifest


def _require_sound(export: sqlite3.Connection, file: Path) -> None:
    mark = export.execute("PRAGMA application_id").fetchone()[0]
    if mark == BACKUP:
        raise InvalidInputError(f"{file} is a backup. Put it back with: quickcomm restore FILE")
    is_sound = export.execute("PRAGMA quick_check").fetchone()[0] == "ok"
    if mark != EXPORT or not is_sound:
        raise InvalidInputError(f"{file} is no sound export of QuickComm (made with `quickcomm export`).")
    if export.execute("SELECT 1 FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchone() is not None:
        raise InvalidInputError(f"{file} has triggers or views, which no export has.")


def _require_known(
    export: sqlite3.Connection, file: Path, manifest: TransferManifest, modules: Iterable[ModuleTables]
) -> None:
    for module in modules:
        [(revision,)] = export.execute(f"SELECT version_num FROM {module.module}_schema_version")  # noqa: S608 - our name
        if not knows(revision, module.migrations):
            raise InvalidInputError(
                f"{file} was exported by QuickComm {manifest.version}, whose tables of {module.module} are newer than "
                "those of this version. Install that version or a later one."
            )


def _total(connection: sqlite3.Connection, name: str) -> TableTotal:
    count, total = 0, 0
    for row in connection.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - our names
        count, total = count + 1, digest([row], total)
    return TableTotal(rows=count, digest=written(total))


# -- what is left out -------------------------------------------------------------------------------------------------


def make_recordings(connection: sqlite3.Connection) -> None:
    """Make the table of recordings, empty."""
    connection.execute(
        f"CREATE TABLE {RECORDINGS} (site TEXT NOT NULL, conversation_id TEXT NOT NULL, name TEXT PRIMARY KEY,"
        " content BLOB NOT NULL)"
    )


def forget_secrets(connection: sqlite3.Connection) -> None:
    """Remove what lets clients resume, and the marks of the copy that filled the file."""
    connection.execute("UPDATE audio_conversations SET token_hash = zeroblob(32)")
    connection.execute(f"DROP TABLE IF EXISTS {MARKS.name}")


def keep_site(connection: sqlite3.Connection, tables: Iterable[str], site: str) -> None:
    """Delete what belongs to other sites. What belongs to none, such as prompts, stays."""
    for name in tables:
        if "site" in _columns(connection, name):
            connection.execute(f"DELETE FROM {name} WHERE site != ?", (site,))  # noqa: S608 - our names


def under_way(connection: sqlite3.Connection, unhandled: Iterable[Talk], began_ns: int) -> list[Talk]:
    """Return the conversations that are not complete: live or interrupted, or with messages that are not handled yet.

    `began_ns`: when the first table was read. What began later may be in some tables only. A conversation with a copy
    of what another one has goes with it.
    """
    connection.execute(_AWAY)
    connection.executemany(_UNHANDLED, unhandled)
    connection.execute(_OPEN)
    connection.execute(_LATE, (began_ns,))
    while connection.execute(_COPIES).rowcount:
        pass
    return connection.execute("SELECT site, conversation_id FROM away ORDER BY site, conversation_id").fetchall()


def leave_out(connection: sqlite3.Connection, tables: Iterable[str], talks: Iterable[Talk]) -> None:
    """Delete what belongs to these conversations; tombstones stay."""
    connection.execute(_GONE)
    rows = [(site, conversation, archive_subject(conversation)) for site, conversation in talks]
    connection.executemany("INSERT INTO gone VALUES (?, ?, ?)", rows)
    for name in tables:
        columns = _columns(connection, name)
        if name.endswith(ERASED):
            continue
        if "conversation_id" in columns:
            connection.execute(_LEAVE.format(name, "conversation_id", "conversation_id"))
        elif "utterance_id" in columns:
            connection.execute(_LEAVE.format(name, _OF_UTTERANCE, "conversation_id"))
        if "subject" in columns:
            connection.execute(_LEAVE.format(name, "subject", "subject"))


def compact(connection: sqlite3.Connection) -> None:
    """Write the file anew, without what deleted rows leave behind."""
    connection.execute("VACUUM")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


# -- recordings -------------------------------------------------------------------------------------------------------


def add_recordings(connection: sqlite3.Connection, folder: Path, left: Iterable[Talk], site: str | None) -> None:
    """Put the recordings of the folder in, but for those of these conversations. `site`: of this one alone."""
    away = set(left)
    for path in sorted(folder.glob("*/c-*/*.flac")):
        name = path.relative_to(folder).as_posix()
        found = RECORDING.fullmatch(name)
        if found is None or (found["site"], found["conversation"]) in away or site not in {None, found["site"]}:
            continue
        row = (found["site"], found["conversation"], name, path.read_bytes())
        connection.execute(f"INSERT INTO {RECORDINGS} VALUES (?, ?, ?, ?)", row)  # noqa: S608 - our name


def recordings(connection: sqlite3.Connection, erased: Iterable[Scope]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of all recordings but those of what was erased.

    Raises `InvalidInputError` for a name that is none of a recording.
    """
    scopes = tuple(erased)
    for name, content in connection.execute(f"SELECT name, content FROM {RECORDINGS} ORDER BY name"):  # noqa: S608
        found = RECORDING.fullmatch(name)
        if found is None:
            raise InvalidInputError(f"The export has a recording with the name {name!r}, which no recording has.")
        utterance = f"{found['conversation']}:{found['place'].replace('-', ':')}"
        if not any(scope.has(found["site"], utterance) for scope in scopes):
            yield name, content
