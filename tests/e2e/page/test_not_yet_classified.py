"""Intelligence is away: what is said is on the page at once, says that it is not classified, and is made good later."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, expect
from tests.e2e.page.conftest import OpenScreen
from tests.support.page import Hotel
from tests.support.site import Site

from quickcomm.contracts.audio_socket import Utterance

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

NOISE = "WebSocket connection to|Failed to load resource|ERR_"


@pytest.fixture(scope="module")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    assert browser.is_connected()
    shared = Site(tmp_path_factory.mktemp("unclassified") / "data", "--deployment", "services")
    try:
        shared.start()
        yield shared
    finally:
        shared.make_sure()


async def test_cards_say_that_they_are_not_yet_classified_until_they_are(site: Site, open_screen: OpenScreen) -> None:
    rows = await asyncio.to_thread(site.status)
    found = [row["pid"] for row in rows if row["module"] == "intelligence"]
    hotel = Hotel(site)
    screen = await open_screen(hotel)
    await screen.sign_in()
    await expect(screen.get("connection")).to_have_attribute("data-state", "live")
    alarm = screen.page.locator('[data-testid="alarm"][data-code="intelligence.away"]')
    said: list[Utterance] = []
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.TaskGroup() as tasks:
            first = asyncio.Event()
            speaking = tasks.create_task(hotel.say("housekeeping", "two extra bath towels", first=first))
            await first.wait()
            card = screen.get("card")
            await expect(card).to_have_count(1)
            await expect(card).to_have_attribute("data-revision", "0")
            await expect(alarm).to_contain_text("New cards are not sorted")
            await expect(screen.get("health-alarm").first).to_contain_text("intelligence service is away")
            await expect(card.get_by_test_id("card-unclassified")).to_contain_text("Not yet classified")
            await expect(screen.get("section-unclassified")).to_contain_text("please read")
            await expect(card.get_by_test_id("card-words")).to_contain_text("towels")
            await screen.get("connection").click()
            await expect(screen.get("health-classifier")).to_contain_text("intelligence service is away")
            for pid in found:
                os.kill(pid, signal.SIGCONT)
            said = await speaking
    finally:
        for pid in found:
            os.kill(pid, signal.SIGCONT)
    await expect(screen.card(said[0])).to_have_attribute("data-revision", "1")
    await expect(screen.get("card-unclassified")).to_have_count(0)
    await expect(alarm).to_have_count(0)
    screen.forgive(NOISE)
