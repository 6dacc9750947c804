"""A site whose dashboard is several processes with one PostgreSQL: every page shows everything, whichever it is on."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.e2e.conftest import NewSite
from tests.support.onlooker import Onlooker, onlooking
from tests.support.postgres import PostgresServer
from tests.support.resuming import assert_as_undisturbed, assert_listed_once, stream
from tests.support.server import EVENTUALLY_S, quickcomm
from tests.support.site import Site
from tests.support.talk import shift_talk

PAGES = 6


def dashboards(site: Site) -> dict[str, dict[str, Any]]:
    return {row["process"]: row for row in site.status() if row["module"] == "dashboard"}


async def started(new_site: NewSite, postgres: PostgresServer, count: int) -> Site:
    site = new_site("--deployment", "services", QUICKCOMM_DASHBOARD_DATABASE_URL=postgres.url(postgres.create()))
    await asyncio.to_thread(site.start)
    await asyncio.to_thread(quickcomm, "scale", f"dashboard={count}", "--data-dir", str(site.data_dir), timeout=240)
    assert len(await asyncio.to_thread(dashboards, site)) == count
    return site


@pytest.mark.long
async def test_every_page_has_every_card_and_every_edit_though_one_dashboard_is_killed(
    new_site: NewSite, postgres: PostgresServer
) -> None:
    site = await started(new_site, postgres, 3)
    key, talk = await asyncio.to_thread(site.key), shift_talk()
    async with AsyncExitStack() as stack:
        pages: list[Onlooker] = [await stack.enter_async_context(onlooking(site)) for _ in range(PAGES)]
        undisturbed = await stream(site.url, key, talk.wire)
        await everybody_has(pages, [each.utterance_id for each in undisturbed.utterances])
        victim = (await asyncio.to_thread(dashboards, site))["dashboard-2"]["pid"]
        async with asyncio.TaskGroup() as tasks:
            talking = [tasks.create_task(stream(site.url, key, talk.wire)) for _ in range(3)]
            await pages[0].until(lambda one: len(one.cards) > len(undisturbed.utterances))
            os.kill(victim, signal.SIGKILL)
        for task in talking:
            assert_as_undisturbed(task.result(), undisturbed)
            await assert_listed_once(site, task.result())
        ids = [each.utterance_id for task in talking for each in task.result().utterances]
        await everybody_has(pages, ids)
        task_id = next(card["tasks"][0]["task_id"] for card in pages[0].cards.values() if card["tasks"])
        done = await asyncio.to_thread(site.ask, "POST", f"/v1/tasks/{task_id}/complete", site.key("admin"))
        assert done.status == 200
        for page in pages:
            await page.until(lambda one: status_of(one, task_id) == "done")
        shown = [{name: card["change"] for name, card in page.cards.items()} for page in pages]
        assert all(one == shown[0] for one in shown)
        await asyncio.to_thread(site.wait_ready)
        where = ("--data-dir", str(site.data_dir))
        assert ids[0] in await asyncio.to_thread(quickcomm, "trace", ids[0], *where)
        assert "nothing is wrong" in await asyncio.to_thread(quickcomm, "check", "--settle", "1", *where)
    await asyncio.to_thread(site.down)
    refused = await asyncio.to_thread(
        quickcomm, "up", "--deployment", "monolith", "--port", "0", *where, statuses=(1,), errors=True
    )
    assert "kept by a dashboard of its own" in refused


def status_of(page: Onlooker, task_id: str) -> str:
    tasks = [task for card in page.cards.values() for task in card["tasks"] if task["task_id"] == task_id]
    return tasks[0]["status"] if tasks else ""


async def everybody_has(pages: list[Onlooker], ids: list[str]) -> None:
    async with asyncio.timeout(EVENTUALLY_S):
        for page in pages:
            await page.until(lambda one: all(one.classified(each) for each in ids))


@pytest.mark.long
async def test_a_dashboard_with_a_file_stays_one_and_says_what_to_do(new_site: NewSite) -> None:
    site = new_site("--deployment", "services")
    await asyncio.to_thread(site.start)
    said = await asyncio.to_thread(
        quickcomm, "scale", "dashboard=2", "--data-dir", str(site.data_dir), timeout=240, statuses=(1,), errors=True
    )
    assert "dashboard.database_url" in said
