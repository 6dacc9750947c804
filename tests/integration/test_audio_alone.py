"""Audio as a service needs its own module, kernel and contracts: from a tree with nothing else it starts, and hears."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from tests.support.valkey import Valkey

from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.keys.redis import RedisKeys
from quickcomm.kernel.trust.directory import TrustDirectory

SOURCE: Final = Path(__file__).parents[2] / "src/quickcomm"
COMMAND: Final = ("__init__", "main", "services", "options", "logs")
OTHERS: Final = ("quickcomm.intelligence", "quickcomm.dashboard", "quickcomm.edge", "quickcomm.topology")
HEAVY: Final = frozenset({"openai", "sklearn", "scipy", "obstore", "psycopg"})
PROGRAM: Final = """
import json, sys
import quickcomm.cli.services
import quickcomm.kernel.runtime.app
import quickcomm.audio.assembly
print(json.dumps([quickcomm.__file__, sorted(sys.modules)]))
"""
WITHIN_S: Final = 120.0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Where a Python finds just so much of QuickComm."""
    package = tmp_path / "tree/quickcomm"
    for folder in ("contracts", "kernel", "audio", "packs"):
        shutil.copytree(SOURCE / folder, package / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCE / "__init__.py", package)
    (package / "cli").mkdir()
    for name in COMMAND:
        shutil.copy(SOURCE / "cli" / f"{name}.py", package / "cli")
    return package.parent


def test_it_is_imported_from_a_tree_that_has_nothing_else(tree: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env={"PYTHONPATH": str(tree)}, check=False
    )
    assert done.returncode == 0, done.stderr
    where, modules = json.loads(done.stdout)
    assert Path(where).is_relative_to(tree)
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()
    assert not [name for name in modules if name.startswith(OTHERS)]


@pytest.fixture
def run() -> Iterator[Path]:
    """Sockets and leases; a socket's path has little room."""
    folder = Path(tempfile.mkdtemp(prefix="qc-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def started(folder: Path, log: Path, place: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "quickcomm.cli.main", "audio", "--data-dir", str(folder / "data")],
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, **place},
        )


async def test_it_starts_and_hears_and_stops(tree: Path, run: Path, valkey: Valkey, tmp_path: Path) -> None:
    TrustDirectory(run / "trust").ensure(["audio", "dashboard"])
    place = {
        "PYTHONPATH": str(tree),
        "QUICKCOMM_INSTANCE_NAME": "audio-1",
        "QUICKCOMM_INSTANCE_SOCKET": str(run / "audio-1.sock"),
        "QUICKCOMM_INSTANCE_REGISTRY": str(run / "instances"),
        "QUICKCOMM_REDIS_URL": valkey.url,
        "QUICKCOMM_TRUST_SERVICE": "audio",
        "QUICKCOMM_TRUST_DIRECTORY": str(run / "trust"),
    }
    log = tmp_path / "audio.log"
    process = started(tmp_path, log, place)
    registry = DirectoryRegistry(run / "instances")
    keys = RedisKeys(valkey.url, SystemClock())
    try:
        async with asyncio.timeout(WITHIN_S):
            while not registry.instances():
                assert process.poll() is None, log.read_text()
                await asyncio.sleep(0.05)
        made = await keys.create("ingest")
        connector = aiohttp.UnixConnector(str(run / "audio-1.sock"))
        headers = {"Authorization": f"Bearer {made.key}"}
        async with aiohttp.ClientSession("http://audio", connector=connector, headers=headers) as client:
            async with client.get("/readyz") as answer:
                assert answer.status == 200
            async with client.get("/internal/v1/link") as answer:
                assert answer.status == 401, "a stranger is no dashboard"
            async with client.ws_connect("/v1/conversations/c-1/audio") as socket:
                assert (await socket.receive_json())["type"] == "ready"
                await socket.send_bytes(bytes(32_000))
                await socket.send_json({"type": "end"})
                async with asyncio.timeout(WITHIN_S):
                    while (event := await socket.receive_json())["type"] != "ended":
                        pass
        assert event["ledger"] == {"received": 16_000, "speech": 0, "silence": 16_000, "gap": 0}
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0
        assert registry.instances() == []
        assert not (run / "audio-1.admin.sock").exists()
    finally:
        await keys.aclose()
        if process.poll() is None:
            process.kill()
            process.wait(30)


def test_without_a_store_it_says_what_to_use(tree: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quickcomm.cli.main", "audio", "--data-dir", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tree)},
        check=False,
    )
    assert done.returncode == 1
    assert "quickcomm up" in done.stderr
    assert "Traceback" not in done.stderr
