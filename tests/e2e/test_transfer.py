"""What was said to one site is exported while it runs, and imported into another deployment."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.e2e.test_backup import lists
from tests.e2e.test_check import check
from tests.e2e.test_crash import listed_once
from tests.e2e.test_up import refused
from tests.support.drill import fill
from tests.support.server import Server, command, quickcomm
from tests.support.site import Site
from tests.support.talk import Talk
from tests.support.wire import converse

from quickcomm.kernel.runtime.data_directory import IMPORTING, DataDirectory

CARDS = 600


@pytest.mark.long  # each pair of databases, without processes: tests/contract/test_transfer.py
async def test_cards_of_serve_are_those_of_services(tmp_path: Path, talk: Talk) -> None:
    server = Server(tmp_path / "first")
    file, where = str(tmp_path / "site.export"), ("--data-dir", str(tmp_path / "second"))
    site = Site(tmp_path / "second", "--deployment", "services")
    try:
        await asyncio.to_thread(server.start)
        wire = await converse(server.url, server.key(), talk.wire)
        await listed_once(server, wire.conversation_id, wire.heard)
        await server.until("/v1/conversations", lambda body: all(item.get("summary") for item in body["items"]))
        reader = await asyncio.to_thread(server.new_key, "read")
        before = await asyncio.to_thread(lists, server, reader)
        assert before["utterances"]
        said = await asyncio.to_thread(quickcomm, "export", file, "--data-dir", str(server.data_dir), timeout=120)
        assert "complete and checked" in said
        running = await asyncio.to_thread(refused, "import", file, "--data-dir", str(server.data_dir))
        assert "Stop it" in running
        await asyncio.to_thread(quickcomm, "import", file, *where, timeout=120)
        await asyncio.to_thread(site.start)
        await site.until("/v1/conversations", lambda body: body["items"] == before["conversations"])
        await site.until("/v1/tasks", lambda body: body["items"] == before["tasks"])
        await site.until("/v1/utterances", lambda body: body["items"] == before["utterances"])
        reader = await asyncio.to_thread(site.new_key, "read")
        assert await asyncio.to_thread(lists, site, reader) == before
        findings, totals = await asyncio.to_thread(check, site.data_dir, "--settle", "10")
        assert (findings, totals["findings"]) == ([], 0)
        more = await converse(site.url, site.key(), talk.wire)
        await listed_once(site, more.conversation_id, more.heard)
        await asyncio.to_thread(site.down)
    finally:
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(site.make_sure)


@pytest.mark.long  # before each page, without a process: tests/contract/test_transfer.py
async def test_an_import_that_was_killed_goes_on(tmp_path: Path) -> None:
    first, second = DataDirectory(tmp_path / "first"), DataDirectory(tmp_path / "second")
    await fill(first, CARDS, 0)
    file, again = str(tmp_path / "site.export"), str(tmp_path / "again.export")
    where = ("--data-dir", str(second.path))
    taken = json.loads(
        await asyncio.to_thread(quickcomm, "export", file, "--json", "--data-dir", str(first.path), timeout=120)
    )
    for pages in (1, 2):
        process = await asyncio.create_subprocess_exec(command(), "import", file, *where)
        async with asyncio.timeout(60):
            while not (second.path / IMPORTING).exists() or written(second) < pages * 200:
                assert process.returncode is None
                await asyncio.sleep(0.005)
        process.kill()
        await process.wait()
        assert "quickcomm import" in await asyncio.to_thread(refused, "serve", "--port", "0", *where)
    done = await asyncio.to_thread(quickcomm, "import", file, "--json", *where, timeout=120)
    assert json.loads(done)["rows"]["dashboard_utterances"] == CARDS + 3
    assert "nothing to do" in await asyncio.to_thread(quickcomm, "import", file, *where, timeout=120)
    found = json.loads(await asyncio.to_thread(quickcomm, "export", again, "--json", *where, timeout=120))
    assert found["manifest"]["tables"] == taken["manifest"]["tables"]


def written(directory: DataDirectory) -> int:
    """Return the tasks that have been imported."""
    with closing(sqlite3.connect(f"{directory.database.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        return int(connection.execute("SELECT count(*) FROM dashboard_tasks").fetchone()[0])
