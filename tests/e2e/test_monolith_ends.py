"""With all modules retired the monolith's process ends, and the site is services. Then all come back, under talk."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any, Final

import pytest
from tests.e2e.conftest import NewSite
from tests.e2e.test_audio_moves import Line, assert_whole, sessions, until_has
from tests.e2e.test_check import check
from tests.e2e.test_migrate import Operator
from tests.support.resuming import Heard, stream
from tests.support.server import EVENTUALLY_S, quickcomm
from tests.support.site import Site
from tests.support.talk import RATE, Talk

from quickcomm.contracts.routes import MONOLITH, SERVICE
from quickcomm.topology.adapters.processes import alive

SERVICES: Final = ("dashboard", "intelligence", "audio")
NO_MONOLITH: Final = {"up", "supervisor", "valkey", "edge", "traffic", *SERVICES}
ENGINE_MB: Final = 40
"""The least that its model and its working memory take."""
CLASSIFIES: Final = "classifier"
"""What intelligence adds to the row of its process."""


def resident_mb(pid: int) -> int:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmRSS")) // 1024


async def modules(site: Site) -> set[str]:
    return {row["module"] for row in await asyncio.to_thread(site.status)}


async def row_of(site: Site, module: str) -> dict[str, Any]:
    return next(row for row in await asyncio.to_thread(site.status) if row["module"] == module)


async def until_another(site: Site, module: str, pid: int) -> dict[str, Any]:
    """Return the row of the module once another process of it is well."""
    async with asyncio.timeout(3 * EVENTUALLY_S):
        while True:
            rows = [row for row in await asyncio.to_thread(site.status) if row["module"] == module]
            if rows and rows[0]["pid"] not in {None, pid} and rows[0]["healthy"]:
                return rows[0]
            await asyncio.sleep(0.2)


async def asked(site: Site, *words: str, status: int = 0, errors: bool = False) -> str:
    """Run a command about the site."""
    where = ("--data-dir", str(site.data_dir))
    return await asyncio.to_thread(quickcomm, *words, *where, timeout=300, statuses=(status,), errors=errors)


async def assert_does_without(site: Site, folder: Path) -> None:
    """What operators ask is answered where no monolith runs."""
    assert await modules(site) == NO_MONOLITH
    assert all(row["healthy"] and not row.get("alarms") for row in await asyncio.to_thread(site.status))
    made = await asked(site, "keys", "create", "--role", "read", "--name", "later")
    assert "later" in await asked(site, "keys", "list")
    assert (await asyncio.to_thread(site.ask, "GET", "/v1/conversations", made.strip())).status == 200
    ready = await asyncio.to_thread(site.ask, "GET", "/readyz")
    assert json.loads(ready.body)["status"] == "ready", "it has no alarm"
    assert "ended" in await asked(site, "ledger")
    assert await asked(site, "prompts", "list")
    assert "No dead letters" in await asked(site, "dead-letters", "list")
    assert "one side only" in await asked(site, "check", "--sides", status=2, errors=True)
    assert "nothing to restart" in await asked(site, "restart", "monolith", status=1, errors=True)
    await asked(site, "backup", str(folder / "backup.sqlite"), "--force")
    findings, _ = await asyncio.to_thread(check, site.data_dir)
    assert findings == []


async def leave(site: Site, operator: Operator, key: str, talk: Talk) -> Heard:
    """Retire all modules, the last one while somebody talks; return what that one was told."""
    monolith = await asyncio.to_thread(site.process, "monolith")
    for module in SERVICES[:2]:
        await operator.migrate("start", module)
        await operator.migrate("promote", module, "--force")
        await operator.migrate("step", module, "--force")
    assert "monolith has audio" in await asked(site, "scale", "monolith=0", status=1, errors=True)
    # Killed by hand, it begins with what it has left, and loads nothing else.
    assert CLASSIFIES not in await row_of(site, "monolith")
    os.kill(monolith.pid, signal.SIGKILL)
    again = await until_another(site, "monolith", monolith.pid)
    assert (CLASSIFIES in again, "stt_model" in again) == (False, True)
    assert "audio: shadow (version" in await operator.migrate("start", "audio")
    assert "samples are missing" in await operator.migrate("step", "audio", status=1)
    monolith, stays = await asyncio.to_thread(site.process, "monolith"), asyncio.Event()
    line = asyncio.create_task(stream(site.url, key, talk.wire, paced=True, stays=stays))
    await until_has(site, MONOLITH, 1)
    await operator.migrate("promote", "audio", "--force")
    await until_has(site, SERVICE, 1)
    assert "retired" in await operator.migrate("step", "audio", "--force")
    assert not alive(monolith)
    assert await modules(site) == NO_MONOLITH
    stays.set()
    return await line


@pytest.mark.long
async def test_all_is_retired_and_brought_back(new_site: NewSite, talk: Talk, tmp_path: Path) -> None:
    site = new_site("--deployment", "monolith")
    await asyncio.to_thread(site.start)
    operator, key = Operator(site), await asyncio.to_thread(site.key)
    undisturbed = await stream(site.url, key, talk.wire)
    assert "goes before audio" in await operator.migrate("start", "audio", status=1)
    heard = [await leave(site, operator, key, talk)]
    await assert_does_without(site, tmp_path)

    await asyncio.to_thread(site.down)
    site.launch()
    await asyncio.to_thread(site.wait_ready)
    await assert_does_without(site, tmp_path)
    await asyncio.to_thread(site.kill)  # `up` itself
    site.launch()
    await asyncio.to_thread(site.wait_ready)
    assert await modules(site) == NO_MONOLITH

    stays = asyncio.Event()
    talker = Line(site, key, talk, stays)
    await talker.until(1)
    assert "back before" in await operator.migrate("start", "dashboard", "--to", "monolith", status=1)
    assert "full" in await operator.migrate("start", "audio", "--to", "monolith")
    back = await row_of(site, "monolith")
    assert (CLASSIFIES in back, "stt_model" in back) == (False, True)
    assert "shadow" in await operator.migrate("rollback", "audio")
    await talker.until(2)
    for module in ("intelligence", "dashboard"):
        assert "full" in await operator.migrate("start", module, "--to", "monolith")
        assert "shadow" in await operator.migrate("rollback", module)
    for module in reversed(SERVICES):
        assert "off" in await operator.migrate("step", module)
    assert await sessions(site) == {MONOLITH: 1}
    stays.set()
    await assert_whole(site, [*heard, await stream(site.url, key, talk.wire)], undisturbed)
    await assert_whole(site, [await talker.heard], await stream(site.url, key, talk.wire * 3))
    findings, _ = await asyncio.to_thread(check, site.data_dir, "--settle", "10")
    assert findings == []
    assert await modules(site) == (NO_MONOLITH - set(SERVICES)) | {"monolith"}


@pytest.mark.long  # each call in turn: tests/contract/test_controller.py
async def test_who_ends_it_and_who_starts_it_may_be_killed(new_site: NewSite) -> None:
    """The controller after the last module was stopped; `up` with it; the monolith while a module comes back."""
    site = new_site("--deployment", "monolith")
    await asyncio.to_thread(site.start)
    operator = Operator(site)
    for module in SERVICES:
        await operator.migrate("start", module, "--force")
        await operator.migrate("promote", module, "--force")
    pid = (await asyncio.to_thread(site.process, "monolith")).pid
    before = resident_mb(pid)
    await operator.migrate("step", "audio", "--force")
    after = resident_mb(pid)
    assert before - after > ENGINE_MB, f"{before} MB with audio, {after} MB without"
    await operator.migrate("step", "dashboard", "--force")
    leaving = asyncio.create_task(operator.migrate("step", "intelligence", "--force", status=1))
    await until_stopped(site, "intelligence")
    controller = (await asyncio.to_thread(site.process, "traffic")).pid
    await asyncio.to_thread(site.kill)
    os.kill(controller, signal.SIGKILL)
    await asyncio.gather(leaving, return_exceptions=True)  # the command may have had its answer just before
    site.launch()
    await asyncio.to_thread(site.wait_ready)
    async with asyncio.timeout(3 * EVENTUALLY_S):
        while "monolith" in await modules(site):  # noqa: ASYNC110 - the controller tells nobody
            await asyncio.sleep(0.2)

    coming = asyncio.create_task(operator.migrate("start", "audio", "--to", "monolith"))
    pid = (await until_another(site, "monolith", 0))["pid"]
    os.kill(pid, signal.SIGKILL)
    await asyncio.gather(coming, return_exceptions=True)  # it says after ten seconds that it goes on by itself
    async with asyncio.timeout(3 * EVENTUALLY_S):
        while (found := await audio_in(operator))["change"] or found["mode"] != "full":  # noqa: ASYNC110
            await asyncio.sleep(0.2)  # the controller tells nobody
    again = await until_another(site, "monolith", pid)
    assert "stt_model" in again
    assert "shadow" in await operator.migrate("rollback", "audio")
    heard = await stream(site.url, await asyncio.to_thread(site.key), bytes(2 * RATE))
    assert heard.ended.ledger.received == RATE


async def audio_in(operator: Operator) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await operator.migrate("status", "--json"))["modules"][2]
    return found


async def until_stopped(site: Site, module: str) -> None:
    """Return once the running monolith has stopped the module, by its log."""
    log = site.layout.logs / "monolith-1.log"
    async with asyncio.timeout(3 * EVENTUALLY_S):
        while not any("part.stopped" in line and module in line for line in log.read_text().splitlines()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # it tells nobody
