"""Backup and restore: the whole site or nothing, and never over what is in use."""

import contextlib
import sqlite3
import stat
from pathlib import Path

import pytest

from quickcomm.entrypoints.backup import back_up, restore
from quickcomm.entrypoints.data_directory import DataDirectory, DataDirectoryBusyError
from quickcomm.kernel.errors import InvalidInputError


def fill(database: Path, name: str) -> sqlite3.Connection:
    """A database as a running server has it: in WAL mode, open, the last rows only in the log."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS thing (name TEXT)")
    connection.execute("INSERT INTO thing VALUES (?)", (name,))
    return connection


def names(database: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM thing ORDER BY rowid")]


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path / "data")
    made.create()
    return made


def test_taken_while_the_server_runs_and_put_back(directory: DataDirectory, tmp_path: Path) -> None:
    file = tmp_path / "site.backup"
    with contextlib.closing(fill(directory.database, "before")) as running:
        assert back_up(directory.database, file) == file.stat().st_size > 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert names(file) == ["before"]
        running.execute("INSERT INTO thing VALUES ('after')")
    restore(file, directory)
    assert names(directory.database) == ["before"]
    kept = directory.database.with_name(directory.database.name + ".before-restore")
    assert names(kept) == ["before", "after"]
    assert {path.suffix for path in tmp_path.glob("**/*")} & {".part", ".restoring"} == set()


def test_into_an_empty_directory(directory: DataDirectory, tmp_path: Path) -> None:
    with contextlib.closing(fill(directory.database, "x")):
        back_up(directory.database, tmp_path / "b")
    fresh = DataDirectory(tmp_path / "fresh")
    restore(tmp_path / "b", fresh)
    assert names(fresh.database) == ["x"]


def test_a_newer_backup_replaces_an_older_one(directory: DataDirectory, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with contextlib.closing(fill(directory.database, name)):
            back_up(directory.database, tmp_path / "b")
    assert names(tmp_path / "b") == ["a", "b"]


def test_not_over_a_running_server(directory: DataDirectory, tmp_path: Path) -> None:
    with contextlib.closing(fill(directory.database, "x")):
        back_up(directory.database, tmp_path / "b")
    with directory.own(), pytest.raises(DataDirectoryBusyError):
        restore(tmp_path / "b", directory)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_never_onto_the_database_itself(directory: DataDirectory, tmp_path: Path, suffix: str) -> None:
    """The server would go on writing to a file that nobody sees any more."""
    (tmp_path / "link").symlink_to(directory.path)
    with contextlib.closing(fill(directory.database, "x")) as running:
        before = directory.database.stat().st_ino
        with pytest.raises(InvalidInputError, match="the database itself"):
            back_up(directory.database, tmp_path / "link" / (directory.database.name + suffix))
        assert directory.database.stat().st_ino == before
        running.execute("INSERT INTO thing VALUES ('y')")
    assert names(directory.database) == ["x", "y"]


def test_where_nothing_can_be_written(directory: DataDirectory, tmp_path: Path) -> None:
    with contextlib.closing(fill(directory.database, "x")):
        with pytest.raises(InvalidInputError, match="could not be written"):
            back_up(directory.database, tmp_path / "missing" / "b")
        (tmp_path / "folder").mkdir()
        with pytest.raises(InvalidInputError, match="could not be written"):
            back_up(directory.database, tmp_path / "folder")
    assert list(tmp_path.glob("*.part")) == []


def test_what_is_no_backup_is_refused_and_changes_nothing(directory: DataDirectory, tmp_path: Path) -> None:
    with contextlib.closing(fill(directory.database, "mine")):
        back_up(directory.database, tmp_path / "good")
    with contextlib.closing(fill(tmp_path / "foreign", "y")):
        pass
    (tmp_path / "text").write_text("hello " * 1_000)
    torn = bytearray((tmp_path / "good").read_bytes())
    (tmp_path / "torn").write_bytes(torn[: len(torn) // 2])
    for name in ("missing", "foreign", "text", "torn"):
        with pytest.raises(InvalidInputError):
            restore(tmp_path / name, directory)
    assert names(directory.database) == ["mine"]
