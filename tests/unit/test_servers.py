"""Commands find the running server by themselves, and say which one; they never guess between two."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import pytest
from tests.unit.test_data_directory import owner

from quickcomm.kernel.runtime.data_directory import DataDirectory, Running, data_dir_flag
from quickcomm.operate.servers import (
    NoSuchServerError,
    SeveralServersError,
    find_data_dir,
    listed,
    running_servers,
    server_on,
)

A, B = "http://127.0.0.1:8091", "http://127.0.0.1:8092"
CREATE = ("keys", "create", "--role", "read", "--name", "the wall")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("QUICKCOMM_DATA_DIR", str(tmp_path / "default"))
    return tmp_path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serve(stack: ExitStack, path: Path, *url: str) -> subprocess.Popen[str]:
    """Another process owns the directory and is listed, as `serve` is."""
    process = stack.enter_context(owner(path, *url))
    stack.callback(process.communicate, "")
    stack.enter_context(listed(DataDirectory(path)))
    return process


def test_the_one_that_runs_is_used_and_named(home: Path, stack: ExitStack, capsys: pytest.CaptureFixture[str]) -> None:
    serve(stack, home / "a", A)
    assert find_data_dir(None, None) == home / "a"
    said = capsys.readouterr()
    assert A in said.err
    assert str(home / "a") in said.err
    assert said.out == ""


def test_where_none_runs_it_is_the_default_directory(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_data_dir(None, None) == home / "default"
    assert running_servers() == []
    assert capsys.readouterr().err == ""


def test_between_two_it_does_not_guess(home: Path, stack: ExitStack) -> None:
    serve(stack, home / "a b", A)
    serve(stack, home / "c")
    with pytest.raises(SeveralServersError) as refused:
        find_data_dir(None, None, CREATE)
    command = "quickcomm keys create --role read --name 'the wall' --data-dir"
    assert f"{command} '{home / 'a b'}'   # {A}" in str(refused.value)
    assert f"{command} {home / 'c'}   # starting" in str(refused.value)


@pytest.mark.parametrize("url", [B, "http://localhost:8092/", "https://127.0.0.1:8092/#/conversations", "[::1]:8092"])
def test_an_address_says_which(home: Path, stack: ExitStack, url: str) -> None:
    serve(stack, home / "a", A)
    serve(stack, home / "b", B)
    assert find_data_dir(None, url) == home / "b"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8093", "http://elsewhere:8091", "http://[", "http://x:99999"])
def test_an_address_where_none_is_gets_the_list(home: Path, stack: ExitStack, url: str) -> None:
    serve(stack, home / "a", A)
    with pytest.raises(NoSuchServerError) as refused:
        find_data_dir(None, url, (*CREATE, "--url", url))
    assert f"--data-dir {home / 'a'}   # {A}" in str(refused.value)
    assert f"--url {url}" not in str(refused.value)


def test_a_directory_that_is_given_is_taken(home: Path, stack: ExitStack) -> None:
    serve(stack, home / "a", A)
    serve(stack, home / "b", B)
    assert find_data_dir(home / "other", None) == home / "other"
    with pytest.raises(click.UsageError):
        find_data_dir(home / "a", A)


def test_a_killed_server_is_not_found(home: Path, stack: ExitStack) -> None:
    process = serve(stack, home / "a", A)
    assert server_on(home / "a") == running_servers()[0]
    process.kill()
    process.wait()
    assert running_servers() == []
    assert server_on(home / "a") is None


def test_what_is_left_of_a_directory_that_is_gone_is_removed(home: Path, stack: ExitStack) -> None:
    stack.enter_context(listed(DataDirectory(home / "gone")))
    folder = home / "state" / "quickcomm" / "servers"
    (folder / "rubbish.json").write_text("{")
    assert running_servers() == []
    assert [path.name for path in folder.iterdir()] == ["rubbish.json"]


def test_a_server_without_a_home_runs_all_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
    with listed(DataDirectory(home / "a")):
        assert running_servers() == []


def test_the_url_may_come_later(home: Path, stack: ExitStack) -> None:
    process = stack.enter_context(owner(home / "a"))
    stack.callback(process.communicate, "")
    with listed(DataDirectory(home / "a")) as file:
        assert [server.url for server in running_servers()] == [""]
        file.write(A)
        assert [server.url for server in running_servers()] == [A]
    DataDirectory(home / "a").announce(Running(pid=1, url=B, version="1"))
    assert server_on(home / "a") is not None


def test_a_printed_command_names_the_directory_unless_it_is_the_default(home: Path) -> None:
    assert data_dir_flag(home / "default") == ""
    assert data_dir_flag(home / "a b") == f" --data-dir '{home / 'a b'}'"
