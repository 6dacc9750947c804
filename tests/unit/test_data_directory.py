"""A data directory has one owner; a second process is refused with words that help."""

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.data_directory import (
    PROBED_WITHIN_S,
    SOCKET_LIMIT,
    DataDirectory,
    DataDirectoryBusyError,
    Running,
    is_trusted,
    make_runtime_directory,
    runtime_directory,
)
from quickcomm.operate.up.layout import Layout

OWN = """
import sys
import tempfile
import time
from pathlib import Path
from quickcomm.kernel.runtime.data_directory import DataDirectory, Running
directory = DataDirectory(Path(sys.argv[1]))
with directory.own():
    if len(sys.argv) > 2:
        directory.announce(Running(pid=4321, url=sys.argv[2], version="1"))
    print("mine", flush=True)
    sys.stdin.read()
"""


def owner(path: Path, *url: str) -> subprocess.Popen[str]:
    """A real second process that owns the directory until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWN, str(path), *url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    return process


def test_the_second_one_is_told_who_is_there(tmp_path: Path) -> None:
    with owner(tmp_path, "http://127.0.0.1:8099") as process:
        with pytest.raises(DataDirectoryBusyError) as refused, DataDirectory(tmp_path).own():
            pass
        for word in ("4321", "http://127.0.0.1:8099", str(tmp_path), "--data-dir", "--port"):
            assert word in str(refused.value)
        process.communicate("")
    with DataDirectory(tmp_path).own():
        assert DataDirectory(tmp_path).running() is None


def test_a_killed_owner_keeps_nobody_out_and_is_not_named_again(tmp_path: Path) -> None:
    with owner(tmp_path, "http://127.0.0.1:8099") as process:
        process.kill()
        process.communicate()
    assert DataDirectory(tmp_path).running() is not None
    with owner(tmp_path) as process:
        refused = pytest.raises(DataDirectoryBusyError, match="just starting or stopping")
        with refused, DataDirectory(tmp_path).own(wait_s=0):
            pass
        process.communicate("")


def test_an_owner_is_known_by_what_it_announced(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "new" / "deep")
    running = Running(pid=1, url="http://x", version="2")
    with directory.own():
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
        directory.announce(running)
        assert directory.running() == running
    assert directory.running() is None


def test_an_error_gives_the_directory_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), DataDirectory(tmp_path).own():
        raise ZeroDivisionError
    with DataDirectory(tmp_path).own():
        pass


def test_what_is_no_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be made"), DataDirectory(tmp_path / "file").own():
        pass
    if os.getuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(ConfigurationError, match="not writable"), DataDirectory(tmp_path / "locked").own():
            pass


def test_a_half_written_announcement_is_none(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    (tmp_path / "running.json").write_text('{"pid":')
    assert directory.running() is None


def test_the_socket_fits_whatever_the_path(tmp_path: Path) -> None:
    assert DataDirectory(Path("/short")).socket == Path("/short/admin.sock")
    long = DataDirectory(tmp_path / ("ä" * 60))
    assert len(os.fsencode(long.socket)) <= SOCKET_LIMIT
    assert long.socket == DataDirectory(tmp_path / ("ä" * 60)).socket
    assert long.socket != DataDirectory(tmp_path / ("ö" * 60)).socket


def test_a_command_at_work_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has not announced itself, and is soon done: a server that starts meanwhile does not give up for it."""
    with owner(tmp_path) as command:
        monkeypatch.setattr(time, "sleep", lambda _seconds: command.communicate(""))
        with DataDirectory(tmp_path).own(wait_s=3600):
            assert command.returncode == 0
            assert DataDirectory(tmp_path).is_owned()
    assert not DataDirectory(tmp_path).is_owned()


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_a_directory_that_others_can_read_is_refused_with_the_command_that_closes_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "my site"
    path.mkdir()
    (path / "quickcomm.toml").touch()
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"mode {mode:o}") as refused, DataDirectory(path).own():
        pass
    command = str(refused.value).partition("Close it: ")[2]
    subprocess.run(["/bin/sh", "-c", command], check=True)
    with DataDirectory(path).own():
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_an_empty_directory_of_ours_is_closed(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new").chmod(0o755)
    with DataDirectory(tmp_path / "new").own():
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_parts_of_a_site_are_closed_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        layout = Layout(DataDirectory(tmp_path / "site"))
        with layout.own():
            layout.create()
            with layout.directory.dashboard.own():
                folders = [path for path in (tmp_path / "site").rglob("*") if path.is_dir()]
    finally:
        os.umask(before)
    assert layout.directory.dashboard.path in folders
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which sockets have room."""
    with tempfile.TemporaryDirectory(prefix="qc-") as folder:
        yield Path(folder)


def test_the_folder_for_sockets_must_be_ours(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is known to all users of the machine: somebody may have made it before us."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    long = DataDirectory(short_path / ("x" * 120))
    assert long.socket.parent == runtime_directory() == short_path / f"quickcomm-{os.getuid()}"
    with long.own():
        assert stat.S_IMODE(runtime_directory().stat().st_mode) == 0o700
    runtime_directory().chmod(0o755)  # as earlier versions made it
    with long.own():
        assert stat.S_IMODE(runtime_directory().stat().st_mode) == 0o700
    for spoil in (_make_a_link, *([_give_away] if os.getuid() == 0 else [])):
        spoil(runtime_directory())
        with pytest.raises(ConfigurationError, match="must be a directory of this user"):
            make_runtime_directory()
        with pytest.raises(ConfigurationError, match="must be a directory of this user"), long.own():
            pass
        with pytest.raises(ConfigurationError, match="must be a directory of this user"):
            Layout(long).create()


def _make_a_link(path: Path) -> None:
    path.rmdir()
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


def _give_away(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)
    os.chown(path, os.getuid() + 4321, -1)


def test_a_socket_of_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    assert not is_trusted(socket, tmp_path)
    socket.touch()
    assert is_trusted(socket, tmp_path)
    if os.getuid() == 0:
        os.chown(socket, 4321, -1)
        assert not is_trusted(socket, tmp_path)
        os.chown(tmp_path, 4321, -1)  # a service's directory, and root who looks after it
        assert is_trusted(socket, tmp_path)


def test_sockets_have_room_where_the_temporary_folder_is_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("deep" * 20)))
    socket = DataDirectory(tmp_path / ("x" * 120)).socket
    assert len(os.fsencode(socket)) <= SOCKET_LIMIT


def test_a_lock_that_is_only_probed_refuses_no_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = DataDirectory(tmp_path / "site")
    directory.create()
    probe = FileLock(directory.path / ".lock")
    probe.acquire()
    monkeypatch.setattr("time.sleep", lambda _seconds: probe.release())
    with directory.own(wait_s=PROBED_WITHIN_S):
        assert not probe.is_locked
