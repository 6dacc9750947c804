"""`backup` and `restore`: the whole site in one SQLite file, consistent, taken while the server runs."""

import contextlib
import sqlite3
from pathlib import Path

from quickcomm.entrypoints.data_directory import PROBED_WITHIN_S, DataDirectory
from quickcomm.kernel.errors import InvalidInputError

APPLICATION_ID = 0x51434F4D
"""`QCOM`: marks a backup as ours."""


def back_up(database: Path, file: Path) -> int:
    """Copy the database with SQLite's online backup; returns the bytes written. The file appears only when complete."""
    part = file.with_name(file.name + ".part")
    if file.resolve() in {Path(f"{database.resolve()}{suffix}") for suffix in ("", "-wal", "-shm")}:
        raise InvalidInputError(f"{file} is the database itself; write the backup to another file.")
    try:
        with (
            contextlib.closing(sqlite3.connect(database, timeout=30)) as source,
            contextlib.closing(sqlite3.connect(part)) as target,
        ):
            source.backup(target, pages=4096)
            target.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            target.execute("PRAGMA journal_mode = DELETE")
        part.chmod(0o600)
        part.replace(file)
    except (OSError, sqlite3.Error) as error:
        part.unlink(missing_ok=True)
        raise InvalidInputError(f"The backup could not be written to {file}: {error}") from error
    return file.stat().st_size


def restore(file: Path, directory: DataDirectory) -> None:
    """Put a backup in place of the directory's database (which is kept beside it). No server may run there."""
    _check(file)
    with directory.own(wait_s=PROBED_WITHIN_S):
        database = directory.database
        part = database.with_name(database.name + ".restoring")
        try:
            with (
                contextlib.closing(sqlite3.connect(file)) as source,
                contextlib.closing(sqlite3.connect(part)) as target,
            ):
                source.backup(target)
                if target.execute("SELECT 1 FROM sqlite_master WHERE name = 'bus_home'").fetchone():
                    # No store knows of this copy: what it has is all there is.
                    target.execute("DELETE FROM bus_home")
                    target.commit()
        except sqlite3.Error as error:
            part.unlink(missing_ok=True)
            raise InvalidInputError(f"{file} could not be put into {directory.path}: {error}") from error
        if database.exists():
            back_up(database, database.with_name(database.name + ".before-restore"))
        for suffix in ("-wal", "-shm"):
            Path(f"{database}{suffix}").unlink(missing_ok=True)
        part.replace(database)


def _check(file: Path) -> None:
    if not file.is_file():
        raise InvalidInputError(f"There is no file {file}.")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as backup:
            mark = backup.execute("PRAGMA application_id").fetchone()[0]
            sound = backup.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        raise InvalidInputError(f"{file} is no backup of QuickComm: {error}") from error
    if mark != APPLICATION_ID or sound != "ok":
        raise InvalidInputError(f"{file} is no sound backup of QuickComm (made with `quickcomm backup`).")
