"""Operations on the page: a conversation is closed by a button, and a parked operation goes on by one."""

import asyncio
import os
import re
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect
from tests.e2e.page.conftest import OpenScreen
from tests.support.page import Hotel, Screen
from tests.support.site import Site

from quickcomm.contracts.audio_socket import Utterance

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

TOWELS = "two extra bath towels"
CRIB = "needs a baby crib"
AWAY = "status of 503"
"""What a browser says of a request that no service has answered."""


def conversation_of(said: Utterance) -> str:
    return said.utterance_id.rsplit(":", 2)[0]


async def shown(screen: Screen, said: Utterance) -> None:
    """Go to the conversation, once it is complete."""
    await expect(screen.card(said)).to_have_attribute("data-revision", "1")
    await screen.page.goto(f"{screen.page.url.split('#')[0]}#/conversation/{conversation_of(said)}")
    await expect(screen.card(said).get_by_test_id("task").first).to_be_visible()
    await expect(screen.get("conversation-state")).to_have_text("Ended")


def row(screen: Screen, status: str) -> Locator:
    return screen.page.locator(f'[data-testid="operation-row"][data-status="{status}"]')


async def states(screen: Screen) -> list[str]:
    script = "steps => steps.map((step) => `${step.dataset.step} ${step.dataset.state}`)"
    found: list[str] = await screen.get("operation-step").evaluate_all(script)
    return found


async def test_a_conversation_is_closed_and_its_tasks_are_handed_over(
    hotel: Hotel, manager: Screen, open_screen: OpenScreen
) -> None:
    await manager.get("nav-operations").click()
    await expect(manager.get("operations-none")).to_be_visible()
    await manager.get("nav-board").click()
    [said] = await hotel.say("housekeeping", TOWELS)
    await shown(manager, said)
    await manager.get("close-conversation").click()
    dialog = manager.get("close")
    await expect(dialog).to_contain_text("its 1 open task?")
    await dialog.get_by_test_id("close-tasks-hand-over").check()
    await dialog.get_by_test_id("close-confirm").click()  # without a name the browser does not let it go
    await expect(dialog).to_be_visible()
    await dialog.get_by_test_id("close-assignee").fill("night desk")
    await dialog.get_by_test_id("close-confirm").click()
    await expect(manager.get("conversation-closed")).to_contain_text("closed by Ada")
    await expect(dialog).to_have_count(0)
    await expect(manager.get("close-conversation")).to_have_count(0)
    await expect(manager.card(said).get_by_test_id("task-assignee")).to_contain_text("night desk")

    await manager.get("nav-operations").click()
    await expect(row(manager, "done")).to_contain_text("Close a conversation")
    await row(manager, "done").get_by_role("link", name="Close a conversation").click()
    await expect(manager.get("operation-known")).to_have_attribute("data-status", "done")
    assert await states(manager) == ["finish done", "summarize done", "archive done"]
    await expect(manager.get("operation-history")).to_contain_text("Ada started it")
    await manager.get("operation-known").get_by_role("link", name=conversation_of(said)).click()
    await expect(manager.get("conversation-closed")).to_be_visible()

    reader = await open_screen(hotel)
    await reader.sign_in("read")
    [other] = await hotel.say("lobby", CRIB)
    await shown(reader, other)
    await expect(reader.get("close-conversation")).to_have_count(0)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    assert browser.is_connected()
    services = Site(tmp_path_factory.mktemp("operations") / "data", "--deployment", "services")
    try:
        await asyncio.to_thread(services.start)
        yield services
    finally:
        await asyncio.to_thread(services.make_sure)


def hang(site: Site, pid: int) -> None:
    """Stop a process at a moment at which it does not keep others from writing to the database."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(site.page_database, timeout=1)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
            else:
                return


def spoil(site: Site, key: str, *, mend: bool = False) -> None:
    """Have intelligence remember that a step was taken back, so that it refuses it; or forget that again."""
    with closing(sqlite3.connect(site.page_database, timeout=30)) as database, database:
        if mend:
            database.execute("DELETE FROM saga_keys WHERE key = ?", (key,))
        else:
            database.execute("INSERT INTO saga_keys (key, undone, reply, at_ns) VALUES (?, 1, x'', 0)", (key,))


@pytest.mark.long
async def test_a_parked_operation_is_an_alarm_and_goes_on_by_a_button(site: Site, open_screen: OpenScreen) -> None:
    hotel = Hotel(site)
    manager, reader = await open_screen(hotel), await open_screen(hotel)
    await manager.sign_in()
    await reader.sign_in("read")
    [said] = await hotel.say("housekeeping", TOWELS)
    await shown(manager, said)

    understands = await asyncio.to_thread(site.process, "intelligence")
    await asyncio.to_thread(hang, site, understands.pid)  # its step is tried again and again
    try:
        await manager.get("close-conversation").click()
        await manager.get("close").get_by_test_id("close-confirm").click()
        progress = manager.get("closing")
        await expect(progress).to_contain_text("Write the last summary")
        await progress.get_by_role("link").click()
        await expect(manager.get("operation-known")).to_have_attribute("data-status", "running")
        assert await states(manager) == ["finish done", "summarize now", "archive to come"]
        operation_id = manager.page.url.rsplit("/", 1)[1]
        await asyncio.to_thread(spoil, site, f"{operation_id}:summarize")
    finally:
        os.kill(understands.pid, signal.SIGCONT)

    await expect(manager.get("operation-parked")).to_contain_text("This step was taken back")
    assert await states(manager) == ["finish done", "summarize failed", "archive to come"]
    await expect(manager.page.locator('[data-code="operations.parked"]').first).to_be_attached()
    alarm = reader.page.locator('[data-testid="alarm"][data-code="operations.parked"]')
    await expect(alarm).to_contain_text("waits until an administrator")
    await alarm.get_by_test_id("alarm-link").click()
    await reader.get("operations-parked").get_by_role("link", name="Close a conversation").click()
    await expect(reader.get("operation-parked")).to_contain_text("your key may only look")
    await expect(reader.get("operation-resume")).to_have_count(0)

    await manager.get("operation-compensate").click()
    await expect(manager.get("decide")).to_contain_text("Stays: “End the conversation”")
    await manager.get("decide-cancel").click()
    await asyncio.to_thread(spoil, site, f"{operation_id}:summarize", mend=True)
    await manager.get("operation-resume").click()
    await manager.get("decide-confirm").click()
    for screen in (manager, reader):
        await expect(screen.get("operation-known")).to_have_attribute("data-status", "done")
        assert await states(screen) == ["finish done", "summarize done", "archive done"]
        await expect(screen.get("operation-history")).to_contain_text("Ada had it go on")
    await expect(alarm).to_have_count(0)
    for screen in (manager, reader):
        screen.forgive(AWAY)


@pytest.mark.long
async def test_while_no_executor_answers_the_view_says_so_and_goes_on_by_itself(
    site: Site, open_screen: OpenScreen
) -> None:
    hotel = Hotel(site)
    manager = await open_screen(hotel)
    await manager.sign_in()
    await manager.get("nav-operations").click()
    await expect(manager.get("operations-none")).to_be_visible()
    executor = await asyncio.to_thread(site.process, "operations")
    os.kill(executor.pid, signal.SIGSTOP)
    try:
        await expect(manager.get("operations-error")).to_contain_text("operations service is away")
    finally:
        os.kill(executor.pid, signal.SIGCONT)
    await expect(manager.get("operations-error")).to_have_count(0)
    manager.forgive(AWAY)


async def test_an_operation_that_is_not_there_is_told(hotel: Hotel, manager: Screen) -> None:
    await manager.page.goto(f"{hotel.server.url}/#/operation/nothing")
    await expect(manager.get("operation-error")).to_contain_text(re.compile("There is no operation"))
    manager.forgive("status of 404")
