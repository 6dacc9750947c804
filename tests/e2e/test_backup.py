"""Real services are backed up while they run, and restored in place."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.e2e.test_check import check
from tests.e2e.test_crash import listed_once
from tests.e2e.test_up import refused
from tests.support.server import Key, Server, quickcomm
from tests.support.site import Site
from tests.support.talk import Talk
from tests.support.wire import converse

LISTS = ("utterances", "tasks", "conversations")


def lists(server: Server, key: Key) -> dict[str, object]:
    answers = {name: server.ask("GET", f"/v1/{name}", key.key) for name in LISTS}
    assert {answer.status for answer in answers.values()} == {200}
    return {name: answer.json()["items"] for name, answer in answers.items()}


def told(command: str, server: Server) -> list[object]:
    """What a command of the operator lists."""
    text = quickcomm(*command.split(), "--json", "--data-dir", str(server.data_dir))
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.long  # each way, without processes: tests/contract/test_backup.py
async def test_services_are_restored_in_place(tmp_path: Path, talk: Talk) -> None:
    site = Site(tmp_path / "data", "--deployment", "services")
    file = str(tmp_path / "site.backup")
    where = ("--data-dir", str(site.data_dir))
    try:
        await asyncio.to_thread(site.start)
        wire = await converse(site.url, site.key(), talk.wire)
        await listed_once(site, wire.conversation_id, wire.heard)
        await site.until("/v1/conversations", lambda body: all(item.get("summary") for item in body["items"]))
        reader = await asyncio.to_thread(site.new_key, "read")
        before = await asyncio.to_thread(lists, site, reader)
        commands = [await asyncio.to_thread(told, command, site) for command in ("ledger", "keys list")]
        said = await asyncio.to_thread(quickcomm, "backup", file, *where)
        assert "complete and checked" in said
        assert f"quickcomm down --data-dir {site.data_dir}" in await asyncio.to_thread(refused, "restore", file, *where)
        await converse(site.url, site.key(), talk.wire)  # said after the backup
        await asyncio.to_thread(site.down)
        assert "before-restore" in await asyncio.to_thread(quickcomm, "restore", file, *where)
        await asyncio.to_thread(site.start)
        await site.until("/v1/tasks", lambda body: body["items"] == before["tasks"])
        await site.until("/v1/conversations", lambda body: body["items"] == before["conversations"])
        after = [await asyncio.to_thread(told, command, site) for command in ("ledger", "keys list")]
        assert after[0] == commands[0]
        assert [key for key in commands[1] if key not in after[1]] == []
        assert await asyncio.to_thread(lists, site, reader) == before
        await asyncio.to_thread(site.down)
    finally:
        await asyncio.to_thread(site.make_sure)


def stage(site: Site, module: str) -> str:
    [status] = told("migrate status", site)
    assert isinstance(status, dict)
    return str(next(each["mode"] for each in status["modules"] if each["name"] == module))


@pytest.mark.long  # each way, without processes: tests/contract/test_backup.py
async def test_a_site_is_restored_whose_modules_have_moved(tmp_path: Path, talk: Talk) -> None:
    """Cards and prompts are those of the services; afterwards all is with the monolith, and may move again."""
    site = Site(tmp_path / "data", "--deployment", "monolith")
    file, where = str(tmp_path / "site.backup"), ("--data-dir", str(tmp_path / "data"))
    prompt = tmp_path / "mine.toml"

    async def operate(*words: str) -> str:
        return await asyncio.to_thread(quickcomm, *words, *where, timeout=240)

    try:
        await asyncio.to_thread(site.start)
        await converse(site.url, site.key(), talk.wire)
        for module in ("dashboard", "intelligence"):
            await operate("migrate", "start", module)
            await operate("migrate", "promote", module, "--force")
            await operate("migrate", "step", module, "--force")
            assert await asyncio.to_thread(stage, site, module) == "retired"
        wire = await converse(site.url, site.key(), talk.wire)
        await listed_once(site, wire.conversation_id, wire.heard)
        source = await operate("prompts", "show", "live")
        prompt.write_text(source.replace('name = "', 'name = "mine of ', 1))
        await operate("prompts", "deploy", str(prompt), "--force")
        reader = await asyncio.to_thread(site.new_key, "read")
        before = await asyncio.to_thread(lists, site, reader)
        prompts = await asyncio.to_thread(told, "prompts list", site)
        await operate("backup", file)
        await asyncio.to_thread(site.down)
        await operate("restore", file)
        await asyncio.to_thread(site.start)
        after = await asyncio.to_thread(lists, site, reader)
        assert (after["utterances"], after["tasks"]) == (before["utterances"], before["tasks"])
        assert await asyncio.to_thread(told, "prompts list", site) == prompts
        findings, totals = await asyncio.to_thread(check, site.data_dir, "--settle", "10")
        assert (findings, totals["findings"]) == ([], 0)
        await operate("migrate", "start", "dashboard")
        assert await asyncio.to_thread(stage, site, "dashboard") == "shadow"
        assert "restored" in await operate("migrate", "history")
        await asyncio.to_thread(site.down)
    finally:
        await asyncio.to_thread(site.make_sure)
