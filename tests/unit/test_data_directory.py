"""A data directory has one owner; a second process is refused with words that help."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from quickcomm.entrypoints.data_directory import SOCKET_LIMIT, DataDirectory, DataDirectoryBusyError, Running
from quickcomm.kernel.errors import ConfigurationError

OWN = """
import sys
from pathlib import Path
from quickcomm.entrypoints.data_directory import DataDirectory, Running
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
        with pytest.raises(DataDirectoryBusyError, match="just starting or stopping"), DataDirectory(tmp_path).own():
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
