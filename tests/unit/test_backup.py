"""Backup and restore of one database: the whole site or nothing, and never over what is in use."""

import contextlib
import json
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from quickcomm.cli import backup as cli_backup
from quickcomm.cli.main import main
from quickcomm.kernel.errors import ConfigurationError, InvalidInputError
from quickcomm.kernel.runtime.data_directory import DataDirectory, DataDirectoryBusyError, Running
from quickcomm.operate import backup as backing_up
from quickcomm.operate import backup_file
from quickcomm.operate.backup import Taken, Whereabouts, back_up, elsewhere, whereabouts
from quickcomm.operate.backup_file import APPLICATION_ID, Recordings, check
from quickcomm.operate.restore import Restored, restore
from quickcomm.operate.up.layout import Layout


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


def left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.glob("**/*") if path.suffix in {".part", ".restoring"}]


def quiet(_what: str, _done: int, _of: int) -> None:
    """Report no progress."""


async def save(directory: DataDirectory, file: Path, *, force: bool = False) -> Taken:
    return await back_up(Whereabouts(directory=directory), file, quiet, force=force)


def put_back(file: Path, directory: DataDirectory) -> Restored:
    return restore(file, directory, quiet)


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path / "data")
    made.create()
    return made


async def test_taken_while_the_server_runs_and_put_back(directory: DataDirectory, tmp_path: Path) -> None:
    file = tmp_path / "site.backup"
    with contextlib.closing(fill(directory.database, "before")) as running:
        taken = await save(directory, file)
        assert taken.bytes == file.stat().st_size > 0
        assert taken.manifest.rows == {"thing": 1}
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert names(file) == ["before"]
        running.execute("INSERT INTO thing VALUES ('after')")
    kept = put_back(file, directory).kept
    assert names(directory.database) == ["before"]
    assert kept is not None
    assert names(kept / directory.database.name) == ["before", "after"]
    assert left_behind(tmp_path) == []
    with contextlib.closing(sqlite3.connect(directory.database)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (0,)
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("thing",)]


async def test_into_an_empty_directory(directory: DataDirectory, tmp_path: Path) -> None:
    with contextlib.closing(fill(directory.database, "x")):
        await save(directory, tmp_path / "b")
    fresh = DataDirectory(tmp_path / "fresh")
    assert put_back(tmp_path / "b", fresh).kept is None
    assert names(fresh.database) == ["x"]


async def test_a_server_that_writes_does_not_disturb_the_copy(directory: DataDirectory, tmp_path: Path) -> None:
    """Each report of progress comes between two steps of the copy: what is written then is not in it."""
    with contextlib.closing(fill(directory.database, "x")) as running:
        running.execute("INSERT INTO thing VALUES (zeroblob(20000000))")
        reports = []

        def write(what: str, done: int, of: int) -> None:
            reports.append((what, done, of))
            with contextlib.closing(sqlite3.connect(directory.database)) as other, other:
                other.execute("INSERT INTO thing VALUES ('late')")

        taken = await back_up(Whereabouts(directory=directory), tmp_path / "b", write)
    assert len(reports) > 1
    assert taken.manifest.rows == {"thing": 2}
    assert "late" not in names(tmp_path / "b")


async def test_never_over_a_file_unless_told(directory: DataDirectory, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("precious")
    with contextlib.closing(fill(directory.database, "a")):
        with pytest.raises(InvalidInputError, match=r"exists already.*--force"):
            await save(directory, tmp_path / "b")
        assert (tmp_path / "b").read_text() == "precious"
        await save(directory, tmp_path / "b", force=True)
    assert names(tmp_path / "b") == ["a"]


async def test_a_copy_that_lacks_rows_is_no_backup(
    directory: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again before it gets its name."""
    copy = backup_file.copy_database

    def lossy(source: Path, target: Path, tell: Any) -> dict[str, int]:
        rows = copy(source, target, tell)
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as connection:
            connection.execute("DELETE FROM thing")
        return rows

    monkeypatch.setattr(backing_up, "copy_database", lossy)
    with contextlib.closing(fill(directory.database, "x")), pytest.raises(InvalidInputError, match="0 rows of 1"):
        await save(directory, tmp_path / "b")
    assert left_behind(tmp_path) == []
    assert not (tmp_path / "b").exists()


async def test_not_over_a_running_server(directory: DataDirectory, tmp_path: Path) -> None:
    with contextlib.closing(fill(directory.database, "x")):
        await save(directory, tmp_path / "b")
    with directory.own():
        directory.announce(Running(pid=4711, url="http://localhost", version="1"))
        with pytest.raises(DataDirectoryBusyError, match="kill 4711"):
            put_back(tmp_path / "b", directory)
    with Layout(directory).own(), pytest.raises(DataDirectoryBusyError, match="quickcomm down --data-dir"):
        put_back(tmp_path / "b", directory)
    assert names(directory.database) == ["x"]


async def test_cut_off_anywhere_it_is_done_again_and_no_server_starts_meanwhile(
    directory: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(fill(directory.database, "old")):
        await save(directory, tmp_path / "b")
    with contextlib.closing(fill(directory.database, "new")):
        pass
    directory.dashboard.create()
    replace = Path.replace
    left = 0

    def cut(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", cut)
    for left in (1, 2, 3):  # noqa: B007 - the patched call counts it down
        with pytest.raises(KeyboardInterrupt):
            put_back(tmp_path / "b", directory)
        with pytest.raises(ConfigurationError, match=r"cut off.*quickcomm restore"), directory.own():
            pass
    put_back(tmp_path / "b", directory)
    with directory.own():
        assert names(directory.database) == ["old"]
    assert not directory.dashboard.path.exists()
    kept = [path for path in directory.path.glob("before-restore-*/*") if path.name == directory.database.name]
    assert [names(path) for path in kept] == [["old", "new"]]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
async def test_never_onto_the_database_itself(directory: DataDirectory, tmp_path: Path, suffix: str) -> None:
    """The server would go on writing to a file that nobody sees any more."""
    (tmp_path / "link").symlink_to(directory.path)
    with contextlib.closing(fill(directory.database, "x")) as running:
        before = directory.database.stat().st_ino
        with pytest.raises(InvalidInputError, match="the database itself"):
            await save(directory, tmp_path / "link" / (directory.database.name + suffix), force=True)
        assert directory.database.stat().st_ino == before
        running.execute("INSERT INTO thing VALUES ('y')")
    assert names(directory.database) == ["x", "y"]


async def test_where_nothing_can_be_written(directory: DataDirectory, tmp_path: Path) -> None:
    with contextlib.closing(fill(directory.database, "x")):
        with pytest.raises(InvalidInputError, match="could not be written"):
            await save(directory, tmp_path / "missing" / "b")
        (tmp_path / "folder").mkdir()
        with pytest.raises(InvalidInputError, match="could not be written"):
            await save(directory, tmp_path / "folder", force=True)
    assert left_behind(tmp_path) == []
    with pytest.raises(ConfigurationError, match="no site"):
        await save(DataDirectory(tmp_path / "nothing"), tmp_path / "b")


async def test_what_is_no_backup_is_refused_and_changes_nothing(directory: DataDirectory, tmp_path: Path) -> None:
    with contextlib.closing(fill(directory.database, "mine")):
        await save(directory, tmp_path / "good")
    with contextlib.closing(fill(tmp_path / "foreign", "y")):
        pass
    (tmp_path / "text").write_text("hello " * 1_000)
    torn = bytearray((tmp_path / "good").read_bytes())
    (tmp_path / "torn").write_bytes(torn[: len(torn) // 2])
    for name in ("missing", "foreign", "text", "torn"):
        with pytest.raises(InvalidInputError):
            put_back(tmp_path / name, directory)
    assert names(directory.database) == ["mine"]


def test_a_backup_of_an_earlier_version_is_put_back(directory: DataDirectory, tmp_path: Path) -> None:
    with contextlib.closing(fill(tmp_path / "old", "x")) as connection:
        connection.execute("CREATE TABLE bus_home (id TEXT, whole INTEGER)")
        connection.execute("INSERT INTO bus_home VALUES ('i', 1)")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA journal_mode = DELETE")
    assert check(tmp_path / "old") is None
    done = CliRunner().invoke(main, ["restore", str(tmp_path / "old"), "--data-dir", str(directory.path)])
    assert done.exit_code == 0
    assert "An earlier version made this backup" in done.output
    assert names(directory.database) == ["x"]
    with contextlib.closing(sqlite3.connect(directory.database)) as connection:
        assert connection.execute("SELECT * FROM bus_home").fetchall() == []


def test_recordings_are_counted_and_postgresql_is_named(
    directory: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICKCOMM_DASHBOARD_DATABASE_URL", "postgresql://q:secret@db/cards?sslmode=require")
    directory.dashboard.create()
    (directory.recordings / "main").mkdir(parents=True)
    (directory.recordings / "main" / "a.flac").write_bytes(b"12345")
    with contextlib.closing(fill(directory.database, "x")):
        arguments = ["backup", str(tmp_path / "b"), "--data-dir", str(directory.path), "--json"]
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    dump = f"pg_dump --format=custom --file={tmp_path}/b.dashboard.pgdump postgresql://q@db/cards"
    assert dump in done.stderr
    assert f"recordings (1 files, 0.0 MB). Copy them with: cp -a {directory.recordings} TARGET" in done.stderr
    assert "secret" not in done.output
    manifest = json.loads(done.stdout)["manifest"]
    assert manifest["elsewhere"] == [{"service": "dashboard", "database": "postgresql://q@db/cards"}]
    assert manifest["recordings"] == {"where": str(directory.recordings), "files": 1, "bytes": 5}
    new = tmp_path / "new"
    back = CliRunner().invoke(main, ["restore", str(tmp_path / "b"), "--data-dir", str(new)])
    assert "pg_restore --clean --if-exists --dbname=postgresql://q@db/cards" in back.stderr
    assert f"cp -a {directory.recordings} {new}/recordings" in back.stderr


def test_remote_recordings_are_named(directory: DataDirectory) -> None:
    site = Whereabouts(directory=directory, recordings="s3://bucket/calls")
    assert backing_up._recordings(site) == Recordings(where="s3://bucket/calls")
    assert elsewhere(None, "postgres://a:b@c/d") == [{"service": "intelligence", "database": "postgresql://a@c/d"}]


def test_a_file_elsewhere_is_named(directory: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards that a setting puts into another file are not left out in silence."""
    monkeypatch.setenv("QUICKCOMM_DASHBOARD_DATABASE_URL", f"{tmp_path}/cards.sqlite")
    directory.dashboard.create()
    with contextlib.closing(fill(directory.database, "x")):
        done = CliRunner().invoke(main, ["backup", str(tmp_path / "b"), "--data-dir", str(directory.path)])
    assert f"sqlite3 {tmp_path}/cards.sqlite '.backup \"{tmp_path}/b.dashboard.sqlite\"'" in done.stderr
    back = CliRunner().invoke(main, ["restore", str(tmp_path / "b"), "--data-dir", str(tmp_path / "new")])
    assert f"in place of {tmp_path}/cards.sqlite" in back.stderr


def test_a_store_that_does_not_run_is_said(directory: DataDirectory) -> None:
    with contextlib.closing(sqlite3.connect(directory.database)) as connection:
        connection.execute("CREATE TABLE bus_home (id TEXT, whole INTEGER)")
        connection.execute("INSERT INTO bus_home VALUES ('i', 1)")
        connection.commit()
    with pytest.raises(ConfigurationError, match="quickcomm up --detach --data-dir"):
        whereabouts(directory.path)


def test_long_work_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 1.0, 2.5, 3.0, 5.0, 9.0])
    monkeypatch.setattr("quickcomm.cli.backup.time.monotonic", lambda: next(now))
    tell = cli_backup.Progress()
    for done in (1, 2, 3, 4):
        tell("Copying", done, 4)
    tell("Checking", 0, 0)
    monkeypatch.undo()
    assert capsys.readouterr().err.splitlines() == ["Copying: 50 %", "Copying: 100 %", "Checking …"]
