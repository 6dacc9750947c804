"""The parts of `quickcomm up` that need no process: places, the table, logs that are followed, ports."""

import contextlib
import errno
import socket
import sqlite3
import stat
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from quickcomm.apps import DEPLOYMENTS, MODULES
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.cli import up as cli_up
from quickcomm.cli.serve import first_start
from quickcomm.contracts.commands import GetLedgers
from quickcomm.contracts.routes import ModuleRoute, Routes
from quickcomm.edge.module import Public
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.data_directory import DataDirectory, DataDirectoryBusyError
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.operate.administration import administer
from quickcomm.operate.moving import check_shape
from quickcomm.operate.settings import SITE, load_settings
from quickcomm.operate.up import ports
from quickcomm.operate.up.asked import differences, in_force, keep, kept
from quickcomm.operate.up.layout import Layout
from quickcomm.operate.up.left import check_left, is_left
from quickcomm.operate.up.modules import Site, rows
from quickcomm.operations.declaration import OPERATIONS
from quickcomm.topology.module import ScaleError, Tail


def layout(path: Path) -> Layout:
    return Layout(DataDirectory(path))


def site(path: Path, settings: Settings | None = None) -> Site:
    return Site(
        layout=layout(path),
        settings=settings or SITE(),
        public_url="https://x:8443",
        redis_url="unix:///v.sock",
        flags=("--log-level", "info"),
        engines={"stt_model": "base", "pack": "hospitality", "llm_url": "http://llm"},
    )


# -- places -----------------------------------------------------------------------------------------------------------


def test_sockets_are_in_the_data_directory_unless_its_path_is_too_long(tmp_path: Path) -> None:
    assert layout(Path("/srv/site")).root == Path("/srv/site/run")
    far = layout(tmp_path / ("x" * 90))
    assert not far.root.is_relative_to(tmp_path)
    assert len(far.socket("intelligence-99")) < 108
    assert far.root != layout(tmp_path / ("y" * 90)).root


def test_a_place_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    place = layout(tmp_path / "d")
    place.directory.create()
    place.root.mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match="mode 700"):
        place.create()


def test_one_at_a_time(tmp_path: Path) -> None:
    with layout(tmp_path / "d").own(), pytest.raises(DataDirectoryBusyError), layout(tmp_path / "d").own():
        pass
    with layout(tmp_path / "d").own():
        pass


def test_nothing_is_left_of_the_place(tmp_path: Path) -> None:
    place = layout(tmp_path / "d")
    place.create()
    Path(place.socket("x")).touch()
    place.clear()
    assert not place.root.exists()
    assert place.logs.is_dir()
    place.clear()


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_monolith_serves_every_route(tmp_path: Path) -> None:
    row, *others = rows("monolith", site(tmp_path))
    assert [each.module.name for each in others if each.module.replicas] == ["operations"]
    assert {route.name for route in row.routes} == {"audio", "twilio", "ingest", "live", "health", "rest", "page"}
    program = row.module.program("monolith-1", "/m.sock")
    assert program.environment["QUICKCOMM_INSTANCE_SOCKET"] == "/m.sock"
    assert program.environment["QUICKCOMM_INSTANCE_NAME"] == "monolith-1"
    assert program.environment["QUICKCOMM_REDIS_URL"] == "unix:///v.sock"
    assert program.command[-8:] == (
        *("--log-level", "info", "--pack", "hospitality"),
        *("--stt-model", "base", "--llm-url", "http://llm"),
    )
    assert program.drain_s > AudioSettings().drain_s


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_every_deployment_runs_each_module_once(deployment: str) -> None:
    settings = load_settings(Path("/nowhere"), {}, {})
    started = [app for app in DEPLOYMENTS[deployment] if app.replicas(settings).first]
    assert Counter(module.name for app in started for module in app.modules) == {
        module.name: 1 for module in (*MODULES, OPERATIONS)
    }


def test_as_services_sound_goes_to_audio_and_all_else_to_the_dashboard(tmp_path: Path) -> None:
    found = rows("services", site(tmp_path))
    served = {row.module.name: {route.name for route in row.routes} for row in found}
    assert served == {
        "audio": {"audio", "twilio", "ingest"},
        "intelligence": set(),
        "dashboard": {"live", "health", "rest", "page"},
        "operations": set(),
        "relay": set(),
    }
    assert [row.module.name for row in found] == ["dashboard", "intelligence", "audio", "operations", "relay"]
    flags = {row.module.name: row.module.program(f"{row.module.name}-1", "/x.sock").command for row in found}
    assert {name for name, command in flags.items() if "--stt-model" in command} == {"audio"}
    assert {name for name, command in flags.items() if "--llm-url" in command} == {"intelligence"}
    assert {name for name, command in flags.items() if "--pack" in command} == {"audio", "intelligence"}
    assert all("--log-level" in command for command in flags.values())


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_the_relay_runs_where_it_is_wanted_before_the_routes_of_audio(tmp_path: Path, deployment: str) -> None:
    settings = load_settings(tmp_path, {"relay.processes": 2}, {})
    for given, first in ((None, 0), (settings, 2)):
        row = rows(deployment, site(tmp_path, given) if given else site(tmp_path))[-1]
        assert (row.module.name, row.module.replicas) == ("relay", first)
        assert {route.name for route in row.stands_before} == {"audio", "twilio"}
        assert row.module.faces_edge
        row.module.check(0)
    assert row.module.program("relay-1", "/r.sock").environment["QUICKCOMM_INSTANCE_EDGE"].endswith("inner.sock")


def test_in_a_file_intelligence_is_one_process_and_on_a_server_as_many_as_partitions(tmp_path: Path) -> None:
    alone = next(row.module for row in rows("services", site(tmp_path)) if row.module.name == "intelligence")
    with pytest.raises(ConfigurationError, match="QUICKCOMM_INTELLIGENCE_DATABASE_URL"):
        alone.check(2)
    settings = load_settings(tmp_path, {"intelligence.database_url": "postgresql://db/q"}, {})
    several = next(
        row.module for row in rows("services", site(tmp_path, settings)) if row.module.name == "intelligence"
    )
    several.check(8)
    with pytest.raises(ConfigurationError, match="partitions"):
        several.check(9)


def test_each_of_several_processes_answers_its_operator_at_a_socket_of_its_own(tmp_path: Path) -> None:
    place = layout(tmp_path / "d")
    place.create()
    for name in ("intelligence-1", "intelligence-2", "audio-1"):
        place.administration(name).touch()
    assert place.administrations("intelligence") == [
        place.administration("intelligence-1"),
        place.administration("intelligence-2"),
    ]
    far = layout(tmp_path / ("x" * 90))
    assert len(str(far.administration("intelligence-99"))) < 108


def test_a_monolith_does_not_begin_without_the_cards_that_a_dashboard_of_its_own_has(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    check_shape(directory, "monolith")
    directory.dashboard.path.mkdir()
    check_shape(directory, "services")
    with pytest.raises(ConfigurationError, match="--deployment services"):
        check_shape(directory, "monolith")
    directory.dashboard.note_moving()
    check_shape(directory, "monolith")
    for shape in ("services", "serve"):
        with pytest.raises(ConfigurationError, match="--deployment monolith"):
            check_shape(directory, shape)


def test_every_shape_of_the_command_line_is_in_the_table() -> None:
    assert set(cli_up.SHAPES) == set(DEPLOYMENTS)


# -- logs that are followed -------------------------------------------------------------------------------------------


def test_new_lines_are_given_once_and_only_whole(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\n")
    tail = Tail(log, from_end=True)
    assert list(tail.lines()) == []
    with log.open("a") as file:
        file.write("one\ntw")
        file.flush()
        assert list(tail.lines()) == ["one"]
        file.write("o\n")
        file.flush()
    assert list(tail.lines()) == ["two"]
    tail.close()


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "a.log", from_end=False)
    assert list(tail.lines()) == []
    (tmp_path / "a.log").write_text("first\n")
    assert list(tail.lines()) == ["first"]
    tail.close()


def test_nothing_is_missed_when_a_file_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("")
    tail = Tail(log, from_end=True)
    with log.open("a") as file:
        file.write("last of the old\n")
    log.rename(tmp_path / "a.log.1")
    log.write_text("first of the new\n")
    assert list(tail.lines()) == ["last of the old", "first of the new"]
    log.write_text("")  # cut short in its place
    assert list(tail.lines()) == []
    log.write_text("again\n")
    assert list(tail.lines()) == ["again"]
    tail.close()


def test_a_line_without_an_end_is_given_in_pieces(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("x" * 100_000)
    tail = Tail(log, from_end=False)
    assert sum(len(piece) for piece in tail.lines()) == 100_000
    tail.close()


# -- ports ------------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_found_before_anything_is_started() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigurationError, match="taken"):
            ports.check(Public(host="127.0.0.1", port=other.getsockname()[1]))


def test_an_address_that_is_not_here_is_told() -> None:
    with pytest.raises(ConfigurationError, match="Cannot listen"):
        ports.check(Public(host="203.0.113.1", port=80))


def test_a_free_port_can_be_had() -> None:
    ports.check(Public(host="127.0.0.1", port=ports.free("127.0.0.1")))


# -- a second `up` ----------------------------------------------------------------------------------------------------


def test_options_that_a_running_site_does_not_follow_are_told() -> None:
    given = dict.fromkeys(("host", "port", "redis_url", "pack", "stt_model", "llm_url"))
    running = in_force({"shape": "monolith", **given}, Settings(redis_url="redis://:secret@store"))
    assert differences({"pack": "hospitality", "port": "8080", "stt_model": "tiny.en"}, running) == []
    assert differences({"port": "0", "shape": "monolith"}, running) == []
    wanted = in_force({"port": 9000, "redis_url": "redis://:other@store", "new_store": True}, SITE())
    assert differences(wanted, running) == ["--new-store", "--port 9000 (it has 8080)", "--redis-url"]
    same = in_force({"redis_url": "redis://:secret@store"}, SITE())
    assert differences(same, running) == []


def test_a_key_is_shown_to_a_person_only(tmp_path: Path) -> None:
    shown = "\n".join(first_start(tmp_path, "http://127.0.0.1:8080", "qc_admin_x"))
    assert "http://127.0.0.1:8080/#key=qc_admin_x" in shown
    logged = "\n".join(first_start(tmp_path, "http://127.0.0.1:8080", None))
    assert f"quickcomm keys create --role admin --data-dir {tmp_path}" in logged
    assert "quickcomm ingest FILE" in logged


def test_options_are_kept_for_the_next_start_and_for_this_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    assert kept(file) == {}
    keep(file, {"shape": "services", "port": 8090, "new_store": True, "detached": True, "tls_key": Path("key.pem")})
    assert kept(file) == {"shape": "services", "port": 8090, "tls_key": str(Path("key.pem").absolute())}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"cut o")
    assert kept(file) == {}


def test_a_start_goes_on_where_its_options_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_path: Path, _given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("quickcomm.operate.up.asked.keep", full)
    cli_up._keep(Layout(DataDirectory(tmp_path)), {"port": 8090})
    assert "No space left" in capsys.readouterr().err


# -- a monolith that its modules have left ----------------------------------------------------------------------------


def retired(*names: str) -> Routes:
    return Routes(version=7, modules={name: ModuleRoute(mode="retired") for name in names})


EVERYTHING: Final = retired("dashboard", "intelligence", "audio")


def note(directory: DataDirectory, **marks: str) -> None:
    """Have the monolith's database say how its tables are."""
    directory.create()
    with contextlib.closing(sqlite3.connect(directory.database)) as database:
        for table, state in marks.items():
            database.execute(f"CREATE TABLE IF NOT EXISTS {table} (table_name TEXT, state TEXT)")
            database.execute(f"DELETE FROM {table}")  # noqa: S608 - our names
            database.execute(f"INSERT INTO {table} VALUES ('all', ?)", (state,))  # noqa: S608 - our names
        database.commit()


def test_a_site_does_without_the_monolith_by_its_routes_and_by_what_the_monolith_has(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    assert not is_left(EVERYTHING, directory), "there is no database"
    note(directory, dashboard_backfill="stale", intelligence_copied="done")
    assert not is_left(EVERYTHING, directory), "it has the newest prompts"
    note(directory, dashboard_backfill="stale", intelligence_copied="stale")
    assert is_left(EVERYTHING, directory)
    assert not is_left(retired("dashboard", "audio"), directory)
    assert not is_left(Routes(), directory), "a store and a file without routes"


def test_a_monolith_with_modules_is_not_scaled_away(tmp_path: Path) -> None:
    [row] = [row for row in rows("monolith", site(tmp_path)) if row.module.name == "monolith"]
    row.module.check(0)
    with pytest.raises(ScaleError, match="The monolith has audio, intelligence"):
        check_left("monolith", "monolith", retired("dashboard"))
    check_left("monolith", "monolith", EVERYTHING)
    check_left("audio", "monolith", Routes())
    check_left("monolith", "services", Routes())


async def test_while_up_runs_a_command_waits_for_who_has_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no process has the directory, a service has it: nothing is looked up in what the monolith has left."""
    monkeypatch.setattr("quickcomm.operate.administration.START_S", 0.3)
    place = layout(tmp_path)
    with place.own(), pytest.raises(ConfigurationError, match="starting or stopping"):
        await administer(tmp_path, GetLedgers())
    assert await administer(tmp_path, GetLedgers()) == []


@pytest.mark.parametrize(("mode", "told"), [(0o644, True), (0o640, False), (0o600, False)])
def test_a_key_that_everybody_can_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, *, told: bool
) -> None:
    for name in ("edge.pem", "edge.key"):
        (tmp_path / name).touch()
    (tmp_path / "edge.key").chmod(mode)
    assert cli_up._tls(tmp_path / "edge.pem", tmp_path / "edge.key") is not None
    assert ("can read the TLS key" in capsys.readouterr().err) is told
