"""The dashboard moves from the monolith to a service and back while people talk, look and edit."""

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack, aclosing
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.e2e.conftest import NewSite
from tests.support.moving import Moving
from tests.support.onlooker import Onlooker, onlooking
from tests.support.resuming import assert_as_undisturbed, assert_listed_once, stream
from tests.support.server import EVENTUALLY_S, quickcomm
from tests.support.site import Site
from tests.support.talk import shift_talk

from quickcomm.contracts.commands import StartModule, StopModule
from quickcomm.contracts.evidence import Measured, MeasureDashboard
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.routes import ModuleRoute
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.messaging.bus.redis_address import for_user
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import Names
from quickcomm.kernel.runtime.admin_socket import ask
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.operate.up import store
from quickcomm.operate.up.access import UP

PAGES = 6
HALF = 5_000
WHOLE = 10_000
STEPS = (
    ModuleRoute(mode="canary", weight=100),
    ModuleRoute(mode="canary", weight=HALF),
    ModuleRoute(mode="full", weight=WHOLE, decides="service"),
    ModuleRoute(mode="canary", weight=HALF, decides="monolith"),
    ModuleRoute(mode="full", weight=WHOLE, decides="service"),
)


class Editor:
    """Edits what a page has, by the versions that it has; `answered`: what became of each task, by its version."""

    def __init__(self, site: Site, page: Onlooker, key: str) -> None:
        self._site = site
        self._page = page
        self._key = key
        self._chance = random.Random(key)  # noqa: S311 - to be repeated, not to be secret
        self.answered: dict[tuple[str, int], dict[str, Any]] = {}
        self.statuses: set[int] = set()

    async def edit(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        async with aiohttp.ClientSession(self._site.url, headers=headers) as session:
            while True:
                await asyncio.sleep(0.05)
                tasks = [task for card in list(self._page.cards.values()) for task in card["tasks"]]
                if not tasks:
                    continue
                task, action = self._chance.choice(tasks), self._chance.choice(["acknowledge", "complete", "reopen"])
                path, seen = f"/v1/tasks/{task['task_id']}/{action}", {"If-Match": f'"{task["version"]}"'}
                async with session.post(path, headers=seen) as answer:
                    self.statuses.add(answer.status)
                    if answer.status == 200:
                        after = await answer.json()
                        if after["version"] > task["version"]:
                            known = self.answered.setdefault((after["task_id"], after["version"]), after)
                            assert known == after  # sent again, it is answered again


@pytest.mark.long
async def test_nobody_notices_that_the_dashboard_moves_and_comes_back(new_site: NewSite) -> None:
    site = new_site("--deployment", "monolith")
    await asyncio.to_thread(site.start)
    where = ("--data-dir", str(site.data_dir))
    key, talk = await asyncio.to_thread(site.key), shift_talk()
    keys = [(await asyncio.to_thread(site.new_key, "admin")).key for _ in range(PAGES)]
    async with AsyncExitStack() as stack, aclosing(Moving(site)) as moving:
        pages = [await stack.enter_async_context(onlooking(site, each)) for each in keys]
        undisturbed = await stream(site.url, key, talk.wire)
        await everybody_has(pages, [each.utterance_id for each in undisturbed.utterances])
        await asyncio.to_thread(quickcomm, "scale", "dashboard=1", *where, timeout=240)
        await moving.to(dashboard=ModuleRoute(mode="shadow"))
        monolith = pages[0].side
        assert {page.side for page in pages} == {monolith}
        editors = [Editor(site, page, each) for page, each in zip(pages, keys, strict=True)]
        async with asyncio.TaskGroup() as tasks:
            editing = [tasks.create_task(each.edit()) for each in editors]
            heard = [undisturbed]
            for step in STEPS:
                await moving.to(dashboard=step)
                heard += await asyncio.gather(*(stream(site.url, key, talk.wire) for _ in range(2)))
                if step.weight == WHOLE:
                    for page in pages:
                        await page.until(lambda one: one.side != monolith)
            for task in editing:
                task.cancel()
        for one in heard:
            assert_as_undisturbed(one, undisturbed)
            await assert_listed_once(site, one)
        await both_read_alike(site)
        await everybody_has(pages, [each.utterance_id for one in heard for each in one.utterances])
        await nothing_is_lost(pages, editors)
        assert all(each.statuses <= {200, 409} for each in editors)
    assert "nothing is wrong" in await asyncio.to_thread(quickcomm, "check", "--settle", "1", *where)
    assert "nothing is wrong" in await asyncio.to_thread(quickcomm, "check", "--sides", "--settle", "1", *where)


@pytest.mark.long  # by the command line: test_migrate.py
async def test_a_dashboard_is_retired_and_comes_back_with_all_that_happened_meanwhile(new_site: NewSite) -> None:
    site = new_site("--deployment", "monolith")
    await asyncio.to_thread(site.start)
    where = ("--data-dir", str(site.data_dir))
    key, talk = await asyncio.to_thread(site.key), shift_talk()
    monolith, service = DataDirectory(site.data_dir).socket, DataDirectory(site.data_dir).dashboard.socket
    before = await stream(site.url, key, talk.wire)
    await asyncio.to_thread(quickcomm, "scale", "dashboard=1", *where, timeout=240)
    async with onlooking(site) as page, aclosing(Moving(site)) as moving:
        await everybody_has([page], [each.utterance_id for each in before.utterances])
        await moving.to(dashboard=ModuleRoute(mode="full", weight=WHOLE, decides="service"))
        await ask(monolith, StopModule(name="dashboard"))
        await moving.to(dashboard=ModuleRoute(mode="retired", weight=WHOLE, decides="service"))
        assert await groups(site) == {"dashboard@service", "decisions"}
        meanwhile = await stream(site.url, key, talk.wire)
        await everybody_has([page], [each.utterance_id for each in meanwhile.utterances])
        os.kill(site.process("monolith").pid, signal.SIGKILL)  # it stays as it is, though its process is another one
        await asyncio.to_thread(site.wait_ready)
        assert await groups(site) == {"dashboard@service", "decisions"}
        task_id = next(task_id for task_id in tasks_of(page))
        done = await asyncio.to_thread(site.ask, "POST", f"/v1/tasks/{task_id}/complete", site.key("admin"))
        assert done.status == 200
        await ask(monolith, StartModule(name="dashboard"))
        await until_alike(site)
        await moving.to(dashboard=ModuleRoute(mode="shadow"))
        await ask(service, StopModule(name="dashboard"))
        await moving.to(dashboard=ModuleRoute(mode="off"))
        await asyncio.to_thread(quickcomm, "scale", "dashboard=0", *where, timeout=240)
        assert await groups(site) == {"dashboard", "decisions"}
        after = await stream(site.url, key, talk.wire)
        await everybody_has([page], [each.utterance_id for each in (*before.utterances, *after.utterances)])
        assert tasks_of(page)[task_id]["status"] == "done"
    for one in (before, meanwhile, after):
        await assert_listed_once(site, one)
    await asyncio.to_thread(quickcomm, "scale", "dashboard=1", *where, timeout=240)
    await until_alike(site)
    assert "nothing is wrong" in await asyncio.to_thread(quickcomm, "check", "--settle", "1", *where)


async def both_read_alike(site: Site) -> None:
    """What people read is read on the other side as well, and is the same there."""
    directory, path = DataDirectory(site.data_dir).dashboard, "/v1/utterances?limit=50"
    before, now = await measured(directory), await measured(directory)
    async with asyncio.timeout(EVENTUALLY_S):
        while now.compared < before.compared + 3:
            await asyncio.to_thread(site.get, path, "read")
            now = await measured(directory)
    assert now.answered > before.answered
    assert now.errors == before.errors
    assert now.alike - before.alike == now.compared - before.compared, now.different


async def measured(directory: DataDirectory) -> Measured:
    [row] = await ask(directory.socket, MeasureDashboard())
    return msgspec.convert(row, Measured)


async def groups(site: Site) -> set[str]:
    """The groups of dashboards that the store keeps messages for."""
    found: set[str] = set()
    async with aclosing(Link(for_user(store.url(site.layout), UP))) as link:
        for part in [part for name in (TRANSCRIPTS, INSIGHTS) for part in Names().parts(name)]:
            rows = await link.call("XINFO", "GROUPS", part)
            found |= {name for row in rows if (name := row[b"name"].decode()).startswith(("dashboard", "decisions"))}
    return found


async def until_alike(site: Site) -> None:
    """Both sides have the same, what was copied and what has come since."""
    async with asyncio.timeout(EVENTUALLY_S):
        while True:
            said = await asyncio.to_thread(
                quickcomm, "check", "--sides", "--settle", "0.2", "--data-dir", str(site.data_dir), statuses=(0, 1, 2)
            )
            if "nothing is wrong" in said:
                return


async def nothing_is_lost(pages: list[Onlooker], editors: list[Editor]) -> None:
    """Each version of a task has one outcome, and every page has the newest one."""
    answered: dict[tuple[str, int], dict[str, Any]] = {}
    for editor in editors:
        assert not answered.keys() & editor.answered.keys(), "two persons had the same version"
        answered |= editor.answered
    assert len(answered) > PAGES
    newest = {name: max(version for each, version in answered if each == name) for name, _ in answered}
    for page in pages:
        await page.until(
            lambda one: all(task["version"] >= newest.get(task["task_id"], 0) for task in tasks_of(one).values())
        )
    for page in pages:
        for name, task in tasks_of(page).items():
            if (made := answered.get((name, task["version"]))) is not None:
                assert task["status"] == made["status"]


def tasks_of(page: Onlooker) -> dict[str, dict[str, Any]]:
    return {task["task_id"]: task for card in page.cards.values() for task in card["tasks"]}


async def everybody_has(pages: list[Onlooker], ids: list[str]) -> None:
    for page in pages:
        await page.until(lambda one: all(one.classified(each) for each in ids))
