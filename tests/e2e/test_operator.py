"""What a site's operator does on the command line, beside a running server and without one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from click.testing import CliRunner
from tests.e2e.conftest import NewServer
from tests.support.ports import free_port
from tests.support.server import Server, command, quickcomm
from tests.support.talk import Talk
from tests.support.wire import converse

from quickcomm.cli.main import main
from quickcomm.contracts.commands import StopModule
from quickcomm.kernel.runtime.admin_socket import ask
from quickcomm.kernel.runtime.data_directory import DataDirectory


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def refused(*arguments: str, text: str = "") -> str:
    """Run a command that must fail in one line, without a trace; gives what it said."""
    done = subprocess.run([command(), *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_status_has_a_line_a_process(server: Server) -> None:
    [line] = rows(quickcomm("status", "--json", "--data-dir", str(server.data_dir)))
    assert line["module"] == "monolith"
    assert line["healthy"] is True
    assert line["pid"] > 0
    assert line["version"]
    assert line["url"] == server.url


def test_status_without_a_server_says_how_to_start_one(tmp_path: Path) -> None:
    assert "quickcomm serve" in refused("status", "--data-dir", str(tmp_path / "none"))


def test_a_second_server_on_the_same_data_is_refused(server: Server) -> None:
    said = refused("serve", "--port", str(free_port()), "--data-dir", str(server.data_dir))
    assert "Another QuickComm" in said
    assert server.url in said


def test_a_port_that_is_taken_is_told(server: Server, tmp_path: Path) -> None:
    said = refused("serve", "--port", str(server.port), "--data-dir", str(tmp_path / "other"))
    assert f"Port {server.port} is taken" in said
    assert "--port" in said


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "quickcomm.toml").write_text("[audio]\nidle_limt_s = 3\n")
    assert "idle_limt_s" in refused("serve", "--port", "0", "--data-dir", str(tmp_path))


def test_keys_are_made_listed_and_revoked_while_nothing_runs(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path / "site"))
    [made] = rows(quickcomm("keys", "create", "--role", "read", "--name", "wall", "--json", *where))
    assert set(made) >= {"key", "id", "role"}
    listed = quickcomm("keys", "list", "--json", *where)
    assert made["id"] in listed
    assert made["key"] not in listed
    quickcomm("keys", "revoke", made["id"], *where)
    assert "nobody" in refused("keys", "revoke", "nobody", *where)


async def test_the_ledger_balances(server: Server, talk: Talk) -> None:
    wire = await converse(server.url, server.key(), talk.wire)
    [line] = rows(quickcomm("ledger", wire.conversation_id, "--json", "--data-dir", str(server.data_dir)))
    assert line["balanced"] is True
    assert line["received"] == talk.samples == line["speech"] + line["silence"] + line["gap"]


async def test_backup_while_it_runs_and_restore(new_server: NewServer, talk: Talk, tmp_path: Path) -> None:
    site = new_server()
    wire = await converse(site.url, site.key(), talk.wire)
    file = tmp_path / "site.backup"
    quickcomm("backup", str(file), "--data-dir", str(site.data_dir))
    assert "Another QuickComm" in refused("restore", str(file), "--data-dir", str(site.data_dir))
    site.stop()
    other = Server(tmp_path / "other")
    quickcomm("restore", str(file), "--data-dir", str(other.data_dir))
    other.start()
    try:
        kept = other.get(f"/v1/utterances?conversation={wire.conversation_id}", role="read").json()
    finally:
        other.stop()
    assert {card["text"] for card in kept["items"]} == {event["text"] for event in wire.of("utterance")}


def test_what_is_no_backup_is_not_restored(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"not a database, far from it")
    assert "no backup" in refused("restore", str(tmp_path / "file"), "--data-dir", str(tmp_path / "site"))


async def test_recordings_are_kept_where_wanted_and_the_log_keeps_quiet(new_server: NewServer, talk: Talk) -> None:
    site = new_server(QUICKCOMM_STORAGE_RECORDINGS="true")
    key = site.key("ingest")
    wire = await converse(site.url, site.key(), talk.wire)
    files = sorted((site.data_dir / "recordings").rglob("*.flac"))
    assert len(files) == len(wire.of("utterance")) > 0
    site.stop()
    assert key not in site.log
    for event in wire.of("utterance"):
        assert event["text"] not in site.log


def test_classify_gives_an_object_a_line() -> None:
    said = "412 needs two extra towels\nthere is smoke on the second floor and somebody cannot breathe\n"
    done = subprocess.run([command(), "classify"], input=said, capture_output=True, text=True, timeout=300, check=True)
    first, second = rows(done.stdout)
    assert first["text"] == "412 needs two extra towels"
    assert first["insights"][0]["rooms"] == ["412"]
    assert first["insights"][0]["intent"] == "request_item"
    assert second["insights"][0]["intent"] == "emergency"
    assert second["insights"][0]["urgency"] == "critical"


def test_classify_answers_whatever_is_on_a_line() -> None:
    lines = [
        b"",
        b"\xff\xfe no text",
        "café in 412".encode("latin-1"),
        b"\x00\x1b[31m",
        b"\xed\xa0\x80",
        "\u202e214 rof slewot".encode(),
        b'{"text":"towels"}',
        b"x" * 9_000,
        b"towels to 412",
    ]
    done = subprocess.run(
        [command(), "classify"], input=b"\r\n".join(lines), capture_output=True, timeout=300, check=True
    )
    answers = rows(done.stdout.decode())
    assert len(answers) == len(lines)
    assert all(answer["insights"] for answer in answers)
    assert answers[-1]["insights"][0]["rooms"] == ["412"]
    assert done.stderr == b""


def test_classify_takes_a_line_without_an_end_in_pieces() -> None:
    said = b"towels to 412 " * 5_000
    done = subprocess.run([command(), "classify"], input=said, capture_output=True, timeout=300, check=True)
    answers = rows(done.stdout.decode())
    assert len(answers) == 7
    assert all(len(answer["text"]) <= 10_000 for answer in answers)


def test_transcribe_gives_the_text_of_a_file(talk: Talk, tmp_path: Path) -> None:
    file = tmp_path / "talk.wav"
    soundfile.write(file, talk.pcm, 16_000)
    [line] = rows(quickcomm("transcribe", str(file), "--json", timeout=120))
    assert len(line["text"].split()) >= 5
    assert line["utterances"]


def test_doctor_finds_the_models(server: Server) -> None:
    findings = {row["check"]: row for row in rows(quickcomm("doctor", "--json", "--data-dir", str(server.data_dir)))}
    assert findings["model tiny.en"]["result"] == "ok"
    assert "hash ok" in findings["model tiny.en"]["detail"]
    assert server.url in findings["server"]["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "serve",
        "up",
        "down",
        "scale",
        "restart",
        "demo",
        "ingest",
        "classify",
        "transcribe",
        "status",
        "ledger",
        "keys",
        "backup",
        "doctor",
    ],
)
def test_every_command_explains_itself(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"])
    assert (shown.exit_code, "Usage:" in shown.output) == (0, True)


def test_the_command_line_is_also_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quickcomm.cli.main", "--version"], capture_output=True, text=True, check=True
    )
    assert "quickcomm" in done.stdout


async def test_a_module_of_a_monolith_is_stopped_and_the_others_go_on(new_server: NewServer, talk: Talk) -> None:
    """What a migration retires: sound is written down and shown, and nothing is understood here any more."""
    server = new_server(QUICKCOMM_AUDIO_ANSWER_WAIT_S="0.2")
    key = server.key()
    directory = DataDirectory(server.data_dir)
    before = await converse(server.url, key, talk.wire)
    assert before.of("insights")
    [stopped] = await ask(directory.socket, StopModule(name="intelligence"))
    assert stopped["stopped"]
    after = await converse(server.url, key, talk.wire)
    assert [event["text"] for event in after.of("utterance")] == [event["text"] for event in before.of("utterance")]
    assert after.of("insights") == []
    await server.until(
        f"/v1/utterances?conversation={after.conversation_id}",
        lambda body: len(body["items"]) == len(after.of("utterance")),
    )
    [row] = rows(quickcomm("status", "--json", "--data-dir", str(server.data_dir)))
    assert "llm" not in row
    assert "sessions" in row
    assert "Traceback" not in server.log
