"""Services of their own: what is said is on every page, through the end of each process."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from tests.e2e.page.conftest import OpenScreen
from tests.support.page import Hotel, Screen
from tests.support.server import quickcomm
from tests.support.site import Site

from quickcomm.dashboard.service.overview import UNDERSTANDS, away_code

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

TOWELS = "two extra bath towels"
CRIB = "needs a baby crib"
WATCH = "gold watch"
NOISE = "WebSocket connection to|Failed to load resource|ERR_"
"""What a browser complains about where a server is away."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    assert browser.is_connected()
    shared = Site(tmp_path_factory.mktemp("services") / "data", "--deployment", "services")
    try:
        await asyncio.to_thread(shared.start)
        yield shared
    finally:
        await asyncio.to_thread(shared.make_sure)


async def killed(site: Site, module: str) -> None:
    os.kill((await asyncio.to_thread(site.process, module)).pid, signal.SIGKILL)


async def complete(screen: Screen, hotel: Hotel, cards: int) -> None:
    """So many cards, each once, each understood: as REST has them."""
    await expect(screen.get("card")).to_have_count(cards)
    await expect(screen.page.locator('[data-testid="card"][data-revision="0"]')).to_have_count(0)
    assert sorted(await screen.card_ids()) == sorted(await hotel.utterance_ids())


async def test_from_the_socket_to_two_pages_and_through_the_end_of_the_dashboard(
    site: Site, open_screen: OpenScreen
) -> None:
    hotel = Hotel(site)
    one, two = await open_screen(hotel), await open_screen(hotel)
    for screen in (one, two):
        await screen.sign_in()
        await expect(screen.get("connection")).to_have_attribute("data-state", "live")
    [first] = await hotel.say("housekeeping", TOWELS)
    for screen in (one, two):
        await expect(screen.card(first)).to_have_attribute("data-revision", "1")
        await expect(screen.get("alarm")).to_have_count(0)
    task = one.card(first).get_by_test_id("task")
    await task.get_by_test_id("acknowledge").click()
    await expect(two.card(first).get_by_test_id("task")).to_have_attribute("data-status", "acknowledged")
    await one.page.mouse.move(0, 0)  # a mouse that rests on the column would keep new cards waiting
    # Somebody speaks on while the dashboard is dead: nobody who speaks notices.
    await killed(site, "dashboard")
    [second] = await hotel.say("housekeeping", CRIB)
    await asyncio.to_thread(site.wait_ready)
    for screen in (one, two):
        await expect(screen.get("connection")).to_have_attribute("data-state", "live")
        await expect(screen.card(second)).to_have_attribute("data-revision", "1")
        await complete(screen, hotel, 2)
        screen.forgive(NOISE)


async def test_captions_are_on_the_page_while_it_is_said(site: Site, open_screen: OpenScreen) -> None:
    hotel = Hotel(site)
    screen = await open_screen(hotel)
    await screen.sign_in()
    await expect(screen.get("connection")).to_have_attribute("data-state", "live")
    async with hotel.on_air("lobby", TOWELS):
        await expect(screen.tile("lobby").get_by_test_id("caption")).not_to_be_empty()


@pytest.mark.long
async def test_while_intelligence_is_away_the_page_says_so_and_is_whole_again_by_itself(
    site: Site, open_screen: OpenScreen
) -> None:
    hotel = Hotel(site)
    screen = await open_screen(hotel)
    await screen.sign_in()
    [first] = await hotel.say("housekeeping", TOWELS)
    await expect(screen.card(first)).to_have_attribute("data-revision", "1")
    reader = await hotel.key("read")
    understands = await asyncio.to_thread(site.process, UNDERSTANDS)
    os.kill(understands.pid, signal.SIGSTOP)  # it hangs: nobody answers, and nobody starts another one
    try:
        away = screen.page.locator(f'[data-testid="alarm"][data-code="{away_code(UNDERSTANDS)}"]')
        await expect(away).to_contain_text("New cards are not sorted")
        await expect(screen.get("health-alarm").first).to_contain_text("intelligence service is away")
        await expect(screen.get("connection")).to_have_attribute("data-state", "live")
        await expect(screen.card(first)).to_be_visible()
        await screen.get("nav-prompts").click()
        await expect(screen.get("prompts-error")).to_contain_text("intelligence service is away")
        answer = await asyncio.to_thread(site.ask, "GET", "/v1/usage", reader)
        assert (answer.status, answer.json()["code"]) == (503, "intelligence.away")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await asyncio.to_thread(site.ask, "GET", "/v1/reports/shift", reader)).status == 200
    finally:
        os.kill(understands.pid, signal.SIGCONT)
    await expect(away).to_have_count(0)
    await expect(screen.get("prompts-error")).to_have_count(0)
    await screen.page.goto(f"{site.url}/#/")
    [second] = await hotel.say("housekeeping", WATCH)
    await expect(screen.card(second)).to_have_attribute("data-revision", "1")
    await complete(screen, hotel, 2)
    screen.forgive(NOISE)


@pytest.mark.long
async def test_every_command_finds_the_process_that_knows(site: Site) -> None:
    hotel = Hotel(site)
    [said] = await hotel.say("housekeeping", TOWELS)
    where = ("--data-dir", str(site.data_dir))
    rows = {row["module"]: row for row in await asyncio.to_thread(site.status)}
    assert set(rows) == {"up", "supervisor", "valkey", "edge", "operations", "audio", "intelligence", "dashboard"}
    assert all(rows[module]["serving"] for module in ("audio", "intelligence", "dashboard"))
    assert rows["audio"]["sessions"] == 0
    assert rows["intelligence"]["llm"]["state"] == "off"
    assert [stage for stage in rows["dashboard"]["stages"] if stage["stage"] == "total"]
    ran = {command: await asyncio.to_thread(quickcomm, *command.split(), *where) for command in COMMANDS}
    assert "admin" in ran["keys list"]
    assert json.loads(ran["report --json"].splitlines()[0])["narrative"]
    assert said.utterance_id in await asyncio.to_thread(quickcomm, "trace", said.utterance_id, *where)
    assert said.utterance_id.split(":")[0] in ran["ledger"]


COMMANDS = ("keys list", "report --json", "ledger", "dead-letters list", "prompts list", "doctor")


async def test_the_dashboard_is_replaced_and_not_multiplied(site: Site) -> None:
    where = ("--data-dir", str(site.data_dir))
    before = await asyncio.to_thread(site.process, "dashboard")
    others = [await asyncio.to_thread(site.process, module) for module in ("audio", "intelligence")]
    await asyncio.to_thread(quickcomm, "restart", "dashboard", *where, timeout=120)
    assert await asyncio.to_thread(site.process, "dashboard") != before
    assert [await asyncio.to_thread(site.process, module) for module in ("audio", "intelligence")] == others
    said = await asyncio.to_thread(quickcomm, "scale", "dashboard=2", *where, statuses=(1,), errors=True)
    assert "1 at most: its database is a file" in said
