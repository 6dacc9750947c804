"""Alarms on the page: none without a reason, one line at a time, in a place of its own."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.async_api import Browser, Page, WebSocketRoute, expect
from tests.e2e.page.conftest import OpenScreen
from tests.support.dashboard_site import found, heard, insight, running
from tests.support.deployment import one_side
from tests.support.page import PATIENCE_MS, Hotel, Screen
from tests.support.server import EVENTUALLY_S, Server

from quickcomm.dashboard.service.lateness import CODE, ENOUGH

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

TOWELS = "two extra bath towels"
SPILL = "coffee spill"
CRIB = "needs a baby crib"
SMOKE = "smoke coming from under the door"
PAINTED = 'quickcomm_stage_seconds_count{stage="painted"}'
LATE_MS = 4_000
IN_HAND = '[data-testid="task"][data-status="acknowledged"][aria-busy="false"]'
BEHIND = {"code": CODE, "message": "Running behind: cards come about 3 s late.", "since": ""}
NO_MODEL = {"code": "language_model", "message": "Understanding (classify): It does not answer.", "since": ""}
DEAF = {"code": "audio.away", "message": "The audio service is away.", "since": ""}


async def painted(server: Server) -> int:
    """How many reports of painting the server has counted since it started."""
    answer = await asyncio.to_thread(server.get, "/metrics", "read")
    lines = [line for line in answer.body.decode().splitlines() if line.startswith(PAINTED)]
    return int(float(lines[0].split()[-1]))


@one_side("it reads the figures of one process, and pages report to both sides")
@pytest.mark.long
async def test_pages_that_open_on_a_quiet_site_count_no_paint_and_raise_no_alarm(
    hotel: Hotel, open_screen: OpenScreen
) -> None:
    said = await hotel.say("housekeeping", TOWELS, SPILL, CRIB)
    before = await painted(hotel.server)
    screens = [await open_screen(hotel) for _ in range(3)]
    for screen in screens:
        await screen.sign_in()
        await expect(screen.get("card")).to_have_count(len(said))
        await screen.page.reload()
        await expect(screen.get("card")).to_have_count(len(said))
    assert await painted(hotel.server) == before
    # A live one is reported after whatever a page had to report of its start, on the same connection.
    [live] = await hotel.say("housekeeping", TOWELS)
    for screen in screens:
        await expect(screen.card(live)).to_have_attribute("data-revision", "1")
    async with asyncio.timeout(EVENTUALLY_S):
        while (now := await painted(hotel.server)) < before + len(screens):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
    assert now == before + len(screens)
    for screen in screens:
        await expect(screen.get("alarm")).to_have_count(0)
        await expect(screen.get("connection")).to_have_attribute("data-worried", "false")


async def test_cards_that_come_late_are_one_line_and_the_pill_agrees(browser: Browser, tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        await page.goto(f"{site.url}/#key={site.tokens['admin']}")
        await expect(page.get_by_test_id("all-well")).to_be_visible()
        for number in range(ENOUGH):
            ended = time.time_ns() - LATE_MS * 1_000_000
            said = msgspec.structs.replace(heard(16_000 * number, "towels"), speech_ended_ns=ended)
            answer = msgspec.structs.replace(found(said, insight()), speech_ended_ns=ended)
            await site.publish(said, answer)
        alarm = page.get_by_test_id("alarm")
        await expect(alarm).to_have_attribute("data-code", CODE)
        await expect(alarm).to_contain_text("Running behind: cards come about 3 s late. Listen to the radio")
        await expect(page.get_by_test_id("connection")).to_contain_text("degraded")
        await expect(page.get_by_test_id("health-alarm")).to_have_count(1)
        await page.close()


class Wrong:
    """Other alarms in what a real server says."""

    def __init__(self) -> None:
        self.alarms: list[dict[str, str]] = []

    async def into(self, page: Page) -> None:
        await page.route_web_socket(lambda url: "/v1/live" in url, self._between)

    def _between(self, client: WebSocketRoute) -> None:
        server = client.connect_to_server()
        client.on_message(server.send)

        def down(message: str | bytes) -> None:
            event: dict[str, Any] = json.loads(message)
            if "health" in event:
                event["health"]["alarms"] = self.alarms
            client.send(json.dumps(event))

        server.on_message(down)


async def places(screen: Screen) -> list[Any]:
    """Where the board, its filters and each card are, once nothing slides any more."""
    await screen.page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")
    script = """() => ['#main', '[data-testid="filters"]', '[data-testid="card"]'].flatMap((each) =>
      [...document.querySelectorAll(each)].map((one) => { const { x, y, width, height } = one.getBoundingClientRect();
      return [x, y, width, height]; }))"""
    found_at: list[Any] = await screen.page.evaluate(script)
    return found_at


@pytest.mark.parametrize("width", [390, *(pytest.param(width, marks=pytest.mark.long) for width in (1280, 1920))])
async def test_alarms_and_a_critical_come_and_go_and_move_nothing(
    hotel: Hotel, open_screen: OpenScreen, width: int
) -> None:
    wrong = Wrong()
    screen = await open_screen(hotel)
    await screen.page.set_viewport_size({"width": width, "height": 900})
    await wrong.into(screen.page)
    await screen.sign_in()
    await hotel.say("security", SMOKE)
    await screen.get("critical-acknowledge").click()
    await screen.page.mouse.move(2, 2)  # on the board it would hold newcomers back
    await hotel.say("housekeeping", TOWELS, SPILL)
    await expect(screen.get("card")).to_have_count(3)
    await expect(screen.get("channel-tile")).to_have_count(0)
    await expect(screen.page.locator(IN_HAND)).to_have_count(1)
    calm = await places(screen)

    wrong.alarms = [BEHIND]
    alarm = screen.get("alarm")
    await expect(alarm).to_have_attribute("data-code", CODE)
    assert await places(screen) == calm
    wrong.alarms = [NO_MODEL, BEHIND, DEAF]
    await expect(alarm).to_have_attribute("data-code", "audio.away")
    await expect(screen.get("alarm")).to_have_count(1)
    await expect(screen.get("alarm-more")).to_have_text("and 2 more")
    assert await places(screen) == calm
    await screen.get("alarm-more").click()
    await expect(screen.get("health-alarm")).to_have_count(3)
    await expect(screen.get("health-alarm").last).to_be_visible()
    await expect(screen.get("health-alarm").last).to_contain_text("Understanding (classify)")
    await screen.page.keyboard.press("Escape")
    await reopened(screen, hotel)
    await expect(screen.get("critical-bar")).to_be_visible()
    await expect(screen.get("alarm")).to_be_visible()
    assert (await places(screen))[0][:3] == calm[0][:3], "the card itself has grown, the board has not moved"
    await screen.get("critical-acknowledge").click()
    wrong.alarms = []
    await expect(alarm).to_have_count(0)
    await expect(screen.get("critical-bar")).to_have_count(0)
    await expect(screen.page.locator(IN_HAND)).to_have_count(1)
    assert await places(screen) == calm
    screen.forgive("already in CLOSING")  # said by what stands between, where the page is sent to the other side


async def reopened(screen: Screen, hotel: Hotel) -> None:
    """The critical task is open again: as REST says it, without a card that moves."""
    task = screen.page.locator('[data-testid="task"][data-status="acknowledged"]')
    path = f"/v1/tasks/{await task.get_attribute('data-task-id')}/reopen"
    answer = await asyncio.to_thread(hotel.server.ask, "POST", path, await hotel.key("admin"))
    assert answer.status == 200, answer
