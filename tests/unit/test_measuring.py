"""`assess` on what runs: metrics over HTTP and over the local socket become samples, in a file that is read again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from aiohttp import web

import quickcomm.kernel.telemetry.machine  # noqa: F401 - brings the metrics of the machine
from quickcomm.cli.main import main
from quickcomm.contracts.commands import GetMetrics
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.messaging.rpc import LocalRpc
from quickcomm.kernel.runtime.admin_socket import admin_socket
from quickcomm.kernel.runtime.data_directory import DataDirectory, Running
from quickcomm.kernel.telemetry.exposition import exposition, metrics_answer
from quickcomm.operate.erasures import note_backup
from quickcomm.operate.measuring import found_ready, samples_of_site, samples_of_urls


@asynccontextmanager
async def metrics_served(key: str = "") -> AsyncIterator[str]:
    async def metrics(request: web.Request) -> web.Response:
        if key and request.headers.get("Authorization") != f"Bearer {key}":
            return web.Response(status=401, text="No key.")
        return metrics_answer()

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    finally:
        await runner.cleanup()


async def test_services_at_addresses_each_have_a_sample() -> None:
    async with metrics_served("secret") as url:
        found = await samples_of_urls([url, f"audio={url}"], "secret")
        with pytest.raises(ConfigurationError, match="--key"):
            await samples_of_urls([url], None)
    assert [each.module for each in found] == ["monolith", "audio"]
    assert len({each.process for each in found}) == 2
    assert {each.machine for each in found} == {"127.0.0.1"}
    assert "cpu.audio" in found[1].totals


async def test_a_server_is_asked_over_its_local_socket(tmp_path: Path) -> None:
    async def metrics(_request: GetMetrics) -> dict[str, Any]:
        return {"text": exposition().decode()}

    rpc = LocalRpc(SystemClock())
    rpc.serve([(GetMetrics, metrics)])
    directory = DataDirectory(tmp_path)
    with directory.own():
        directory.announce(Running(pid=1, url="", version="0", module="monolith"))
        async with admin_socket(rpc, directory.socket):
            [found] = await samples_of_site(tmp_path)
    assert (found.process, found.module) == ("monolith", "monolith")
    assert found.totals["machine_cpu"] > 0


async def test_it_is_recorded_into_a_file_that_is_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "day.jsonl"
    async with metrics_served() as url:
        words = ["assess", "--url", url, "--for", "0s", "--save", str(file), "--gpus", "1", "--have", "backups"]
        for _ in range(2):
            with pytest.raises(SystemExit, match="2"):
                await asyncio.to_thread(main, words, standalone_mode=False)
    assert "read them again" in capsys.readouterr().err
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["levels"]["gpus"], row["levels"]["ready.backups"]) for row in rows] == [(1, 1), (1, 1)]
    with pytest.raises(SystemExit, match="2"):
        main(["assess", str(file)], standalone_mode=False)
    assert "Not enough was seen" in capsys.readouterr().out
    with pytest.raises(click.UsageError, match="not both"):
        main(["assess", "--url", "http://x", "--data-dir", str(tmp_path)], standalone_mode=False)


def test_what_a_split_needs_is_looked_for_in_the_data_directory(tmp_path: Path) -> None:
    assert found_ready(tmp_path) == {"ready.tracing": 0, "ready.tokens": 0, "ready.backups": 0}
    (tmp_path / "quickcomm.toml").write_text('[telemetry]\notlp_url = "http://127.0.0.1:4318"\n')
    (tmp_path / "site.backup").touch()
    note_backup(DataDirectory(tmp_path), tmp_path / "site.backup")
    assert found_ready(tmp_path) == {"ready.tracing": 1, "ready.tokens": 0, "ready.backups": 1}
