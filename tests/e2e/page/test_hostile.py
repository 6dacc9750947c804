"""Utterances that mean ill, on the page: they are read as they are, and nothing of them runs."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect
from tests.support.dashboard_site import found, heard, insight, running
from tests.support.hostile import TEXTS, UNPRINTABLE
from tests.support.page import PATIENCE_MS, WATCH_POLICY

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_what_was_said_is_shown_as_text_and_nothing_of_it_runs(browser: Browser, tmp_path: Path) -> None:
    texts = list((TEXTS | UNPRINTABLE).values())
    async with running(tmp_path) as site:
        context = await browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        await context.add_init_script(WATCH_POLICY)
        page = await context.new_page()
        complaints: list[str] = []
        elsewhere: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda asked: elsewhere.append(asked.url) if not asked.url.startswith(site.url) else None)
        await page.goto(f"{site.url}/#key={site.tokens['admin']}")
        await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
        for number, text in enumerate(texts):
            said = heard(16_000 * number, f"word{number} {text}", channel=text)
            named = insight("repair", text, summary=text[:80], department="engineering")
            await site.publish(said, found(said, named))
            card = page.locator(f'[data-testid="card"][data-utterance-id="{said.utterance_id}"]')
            words = re.escape(text.replace("\x00", "\ufffd").strip())
            await expect(card.get_by_test_id("card-words")).to_have_text(re.compile(rf"word{number}"))
            shown = await card.get_by_test_id("card-words").text_content()
            assert shown is not None
            assert re.search(words, shown.replace("\x00", "\ufffd")), (text, shown)
        await page.get_by_test_id("search").fill("word0")
        await expect(page.get_by_test_id("search-results")).to_contain_text("1 found")
        assert await page.locator("img:not([src='./favicon.svg']), script:not([src]), iframe").count() == 0
        assert not re.fullmatch(r"[12]", await page.title())
        assert elsewhere == []
        assert complaints == []
        await context.close()
