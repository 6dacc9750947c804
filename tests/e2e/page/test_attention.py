"""A critical card calls for attention on every view, by sound and outside of the page, until somebody has it."""

import re
import time
from pathlib import Path

import msgspec
import pytest
from playwright.async_api import Browser, expect
from tests.e2e.page.conftest import OpenScreen
from tests.support.dashboard_site import found, heard, insight, running
from tests.support.loudspeaker import loudspeaker
from tests.support.page import PATIENCE_MS, WATCH_POLICY, Hotel, Screen

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

SMOKE = "smoke coming from under the door"
BLOCKED = "AudioContext was not allowed to start"
"""What Chromium says where a page was not clicked yet."""


async def signed_in(screen: Screen, role: str = "admin") -> None:
    await screen.sign_in(role)
    await expect(screen.get("connection")).to_have_attribute("data-state", "live")


async def test_on_another_view_it_is_seen_heard_and_told_until_another_page_acknowledges_it(
    hotel: Hotel, open_screen: OpenScreen
) -> None:
    away, other = await open_screen(hotel), await open_screen(hotel)
    speaker = await loudspeaker(away.page)
    for screen in (away, other):
        await signed_in(screen)
        await expect(screen.get("critical-bar")).to_have_count(0)
    assert (await speaker.sounds(), await speaker.asked()) == (0, 0), "nothing is asked for before a click"
    await speaker.enable()
    assert (await speaker.sounds(), await speaker.asked()) == (1, 1)
    await away.get("nav-shift").click()
    await expect(away.get("shift")).to_be_visible()
    [emergency] = await hotel.say("security", SMOKE)
    bar = away.get("critical-bar")
    await expect(bar).to_have_attribute("data-utterance-id", emergency.utterance_id)
    await expect(bar).to_contain_text(re.compile(r"1 critical, not yet acknowledged:.*430.*Security · \d\d:\d\d"))
    await expect(away.page).to_have_title(re.compile("1 critical, not acknowledged"))
    await expect(away.page.locator('link[rel="icon"]')).to_have_attribute("href", "./favicon-critical.svg")
    await speaker.until_sounds(2)
    [told] = await speaker.told()
    assert re.fullmatch(r"Critical: .*430.* \| .*Security · \d\d:\d\d", told)
    await bar.get_by_test_id("critical-show").click()
    await expect(away.get("card")).to_have_attribute("data-utterance-id", emergency.utterance_id)
    await expect(bar).to_be_visible()
    await other.card(emergency).get_by_test_id("acknowledge").click()
    for screen in (away, other):
        await expect(screen.get("critical-bar")).to_have_count(0)
        await expect(screen.page).to_have_title(re.compile(r"^\(1 critical\) QuickComm"))
    await expect(away.page.locator('link[rel="icon"]')).to_have_attribute("href", "./favicon.svg")


async def test_of_several_the_oldest_comes_first_and_a_double_click_takes_one(
    manager: Screen, hotel: Hotel, open_screen: OpenScreen
) -> None:
    reader = await open_screen(hotel)
    await signed_in(reader, "read")
    [first] = await hotel.say("security", SMOKE)
    [second] = await hotel.say("engineering", SMOKE)
    bar = manager.get("critical-bar")
    await expect(bar).to_have_attribute("data-count", "2")
    await expect(bar).to_have_attribute("data-utterance-id", first.utterance_id)
    await expect(reader.get("critical-bar")).to_have_attribute("data-count", "2")
    await expect(reader.get("critical-acknowledge")).to_have_count(0)
    await bar.get_by_test_id("critical-acknowledge").dblclick()
    await expect(bar).to_have_attribute("data-utterance-id", second.utterance_id)
    await expect(manager.card(first).get_by_test_id("task")).to_have_attribute("data-status", "acknowledged")
    await expect(manager.card(first).get_by_test_id("task")).to_have_attribute("aria-busy", "false")
    await expect(manager.card(second).get_by_test_id("task")).to_have_attribute("data-status", "open")
    await expect(reader.get("critical-bar")).to_have_attribute("data-count", "1")
    await bar.get_by_test_id("critical-acknowledge").click()
    for screen in (manager, reader):
        await expect(screen.get("critical-bar")).to_have_count(0)


async def test_after_a_reload_what_is_still_open_is_told_once_and_not_once_a_card(
    hotel: Hotel, open_screen: OpenScreen
) -> None:
    screen = await open_screen(hotel)
    speaker = await loudspeaker(screen.page)
    await signed_in(screen)
    await speaker.enable()
    await hotel.say("security", SMOKE)
    await hotel.say("engineering", SMOKE)
    await screen.get("nav-shift").click()
    await screen.page.reload()
    await expect(screen.get("critical-bar")).to_have_attribute("data-count", "2")
    await expect(screen.get("sound")).not_to_have_attribute("data-state", "off")
    assert len(await speaker.told()) == 1
    # The browser may keep silent until there is a click; then it sounds again when something new comes.
    await screen.get("shift").click()
    await expect(screen.get("sound")).to_have_attribute("data-state", "on")
    before = await speaker.sounds()
    await hotel.say("front-desk", SMOKE)
    await expect(screen.get("critical-bar")).to_have_attribute("data-count", "3")
    await speaker.until_sounds(before + 1)
    assert len(await speaker.told()) == 2
    screen.forgive(BLOCKED)


async def test_muted_it_is_silent_and_stays_so_and_what_the_browser_refuses_is_said(
    hotel: Hotel, open_screen: OpenScreen
) -> None:
    screen = await open_screen(hotel)
    await screen.page.add_init_script("window.answer = 'denied'")
    speaker = await loudspeaker(screen.page)
    await signed_in(screen)
    await speaker.enable()
    await expect(screen.get("notice")).to_contain_text("refuses notifications")
    await expect(screen.get("health-notifications")).to_contain_text("refuses notifications")
    await screen.get("sound").click()
    await expect(screen.get("sound")).to_contain_text("Sound is off")
    await screen.page.reload()
    await expect(screen.get("sound")).to_have_attribute("data-state", "off")
    await screen.get("nav-shift").click()
    await hotel.say("security", SMOKE)
    await expect(screen.get("critical-bar")).to_be_visible()
    assert await speaker.sounds() == 0
    assert await speaker.told() == []


async def test_a_critical_card_without_a_task_can_be_marked_as_seen(browser: Browser, tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        context = await browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        await context.add_init_script(WATCH_POLICY)
        page = await context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        await page.goto(f"{site.url}/#key={site.tokens['read']}")
        await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
        said = msgspec.structs.replace(heard(0, "there was smoke in 430, it is over"), spoken_at_ns=time.time_ns())
        danger = msgspec.structs.replace(insight("task_done", "430", summary="Smoke is over"), urgency="critical")
        await site.publish(said, found(said, danger, opens=False))
        bar = page.get_by_test_id("critical-bar")
        await expect(bar).to_contain_text("1 critical, not yet seen: Smoke is over · Room 430 · Housekeeping")
        await bar.get_by_test_id("critical-seen").click()
        await expect(bar).to_have_count(0)
        await page.reload()
        await expect(page.get_by_test_id("card")).to_have_attribute("data-section", "critical")
        await expect(bar).to_have_count(0)
        assert complaints == []
        await context.close()
