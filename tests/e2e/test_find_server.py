"""A newcomer's second terminal: commands find the server that runs there, and disturb none that is starting."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.ports import free_port
from tests.support.server import READY_S, Server, command, quickcomm
from tests.support.site import Site

MakeServer = Callable[[str], Server]
_POLL_S = 0.01


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A user of their own, as far as files go; models are prepared already."""
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_DATA_HOME": str(tmp_path / "share")}


@pytest.fixture
def launched(tmp_path: Path, home: dict[str, str]) -> Iterator[MakeServer]:
    """Launches servers, which need not be ready."""
    made: list[Server] = []

    def launch(name: str) -> Server:
        made.append(Server(tmp_path / name, **home))
        made[-1].launch()
        return made[-1]

    try:
        yield launch
    finally:
        for each in made:
            each.stop()


def said(*arguments: str, home: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "QUICKCOMM_DATA_DIR"} | home
    return subprocess.run(
        [command(), *arguments], env=environment, capture_output=True, text=True, timeout=READY_S, check=False
    )


def until_it_owns_its_directory(server: Server) -> None:
    deadline = time.monotonic() + READY_S
    while not (server.data_dir / ".lock").exists():
        assert time.monotonic() < deadline, server.log
        time.sleep(_POLL_S)


def test_a_key_made_while_the_server_starts_is_good_and_the_server_lives(
    launched: MakeServer, home: dict[str, str]
) -> None:
    server = launched("site")
    until_it_owns_its_directory(server)
    made = said("keys", "create", "--role", "read", "--json", home=home)
    assert made.returncode == 0, made.stderr
    assert str(server.data_dir) in made.stderr
    server.wait_ready()
    assert server.ask("GET", "/v1/tasks", json.loads(made.stdout)["key"]).status == 200


@pytest.mark.long
def test_commands_that_work_on_the_directory_do_not_keep_a_server_from_starting(
    tmp_path: Path, launched: MakeServer
) -> None:
    where = ("--data-dir", str(tmp_path / "site"))
    create = [command(), "keys", "create", "--role", "read", "--json", *where]
    quickcomm(*create[1:])
    commands = [subprocess.Popen(create, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    server = launched("site")
    keys = [json.loads(each.communicate()[0])["key"] for each in commands]
    server.wait_ready()
    assert [server.ask("GET", "/v1/tasks", key).status for key in keys] == [200] * 4
    until_the_log_has(server, "keys create --role admin")  # a key that was made before does not cost the way in


@pytest.mark.long
def test_two_servers_are_told_apart_by_address(launched: MakeServer, home: dict[str, str]) -> None:
    first, second = launched("first"), launched("second")
    first.wait_ready()
    second.wait_ready()
    asked = said("keys", "create", "--role", "read", "--json", home=home)
    assert asked.returncode == 1
    for server in (first, second):
        assert f"quickcomm keys create --role read --json --data-dir {server.data_dir}   # {server.url}" in asked.stderr
    refused = second.ask("GET", "/v1/tasks", "qc_read_wrong").json()["detail"]
    hint = refused.partition("quickcomm ")[2].replace("ROLE", "read").split()
    made = said(*hint, "--json", home=home)
    key = json.loads(made.stdout)["key"]
    assert [server.ask("GET", "/v1/tasks", key).status for server in (first, second)] == [401, 200]


def test_without_a_server_it_is_said_where_the_key_is(home: dict[str, str]) -> None:
    made = said("keys", "create", "--role", "ingest", home=home)
    assert made.returncode == 0
    assert made.stdout.startswith("qc_ingest_")
    assert f"No server runs on {home['XDG_DATA_HOME']}/quickcomm" in made.stderr


def test_what_serve_prints_is_complete(launched: MakeServer) -> None:
    server = launched("site")
    server.wait_ready()
    until_the_log_has(server, "quickcomm ingest")
    assert f"quickcomm keys create --role ingest --name radio --data-dir {server.data_dir}\n" in server.log
    assert f"quickcomm ingest FILE --key KEY --url {server.url}\n" in server.log


@pytest.mark.long
def test_a_whole_site_is_found_and_stopped(tmp_path: Path, home: dict[str, str]) -> None:
    site = Site(tmp_path / "site", **home)
    site.launch()
    try:
        until_it_is_listed(home)
        made = said("keys", "create", "--role", "read", "--json", home=home)
        site.wait_ready()
        assert site.ask("GET", "/v1/tasks", json.loads(made.stdout)["key"]).status == 200
        assert site.url in said("status", home=home).stdout
        stopped = said("down", "--url", site.url, home=home)
        assert "Stopped." in stopped.stdout, stopped.stderr
        assert site.wait() == 0
    finally:
        site.make_sure()


def until_the_log_has(server: Server, text: str) -> None:
    deadline = time.monotonic() + READY_S
    while text not in server.log:
        assert time.monotonic() < deadline, server.log
        time.sleep(_POLL_S)


def until_it_is_listed(home: dict[str, str]) -> None:
    deadline = time.monotonic() + READY_S
    while not list((Path(home["XDG_STATE_HOME"]) / "quickcomm" / "servers").glob("*.json")):
        assert time.monotonic() < deadline
        time.sleep(_POLL_S)


def test_a_directory_that_others_can_read_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "site"
    path.mkdir()
    (path / "quickcomm.toml").touch()
    path.chmod(0o755)
    serve = [command(), "serve", "--port", str(free_port()), "--data-dir", str(path)]
    refused = subprocess.run(serve, capture_output=True, text=True, timeout=READY_S, check=False)
    assert refused.returncode == 1
    assert refused.stderr.rstrip().endswith(f"Close it: chmod 700 {path}")
