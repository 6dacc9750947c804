"""One transmission through several receivers is one card that names them, and each is still found."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect
from tests.support.dashboard_site import found, heard, insight, running
from tests.support.page import PATIENCE_MS

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_a_copy_is_on_the_first_card_and_in_a_search(browser: Browser, tmp_path: Path) -> None:
    text = "two towels to 412 please"
    async with running(tmp_path) as site:
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        await page.goto(f"{site.url}/#key={site.tokens['admin']}")
        cards = page.get_by_test_id("card")
        for line, channel, later in (("a", "housekeeping", 0), ("b", "security", 4_800), ("c", "housekeeping", 1_600)):
            said = heard(16_000 + later, text, conversation=line, channel=channel)
            await site.publish(said, found(said, insight("request_item", "412")))
        await expect(page.get_by_test_id("card-copies")).to_have_text("Also heard by another receiver and on Security")
        await expect(cards).to_have_count(1)
        await expect(page.get_by_test_id("open-count")).to_have_text("1")
        await page.get_by_test_id("search").fill("towels")
        await expect(cards).to_have_count(3)
        await expect(page.get_by_test_id("card-copy-of")).to_have_count(2)
        await page.close()
