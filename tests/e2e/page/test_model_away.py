"""What the page says of the language model: that there is none, that it is away, and cards that change in place."""

import asyncio

import pytest
from playwright.async_api import expect
from tests.e2e.conftest import NewServer
from tests.e2e.page.conftest import OpenScreen
from tests.support.llm import fake_llm
from tests.support.page import Hotel, Screen

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_without_a_model_the_page_says_so(manager: Screen) -> None:
    await expect(manager.get("local-classifier")).to_have_text("Local classifier")
    await manager.get("connection").click()
    await expect(manager.get("health-classifier")).to_have_text(
        "No language model is connected; the local classifier answers."
    )


async def test_a_card_made_while_the_model_was_away_changes_in_place(
    new_server: NewServer, open_screen: OpenScreen
) -> None:
    async with fake_llm() as fake:
        hotel = Hotel(await asyncio.to_thread(new_server, "--llm-url", fake.url))
        screen = await open_screen(hotel)
        await screen.sign_in()
        await expect(screen.get("local-classifier")).to_have_count(0)
        fake.mode = "401"
        [said] = await hotel.say("housekeeping", "two extra bath towels")
        card = screen.card(said)
        await expect(card.get_by_test_id("card-degraded")).to_have_count(1)
        await expect(card).to_have_attribute("data-revision", "1")
        alarm = screen.page.locator('[data-testid="alarm"][data-code="language_model"]')
        await expect(alarm).to_contain_text("without the language model: check them")
        await expect(screen.get("health-alarm")).to_have_count(1)
        await expect(screen.get("health-alarm")).to_contain_text("The language model cannot be used")
        assign = card.get_by_test_id("task")
        await assign.get_by_test_id("acknowledge").click()
        await expect(assign).to_have_attribute("data-status", "acknowledged")

        fake.mode = "answer"
        await expect(card).to_have_attribute("data-revision", "2")
        await expect(card.get_by_test_id("card-summary")).to_contain_text("Model: ")
        await expect(card.get_by_test_id("card-degraded")).to_have_count(0)
        await expect(screen.get("card")).to_have_count(1)
        await expect(assign).to_have_attribute("data-status", "acknowledged")
        await expect(alarm).to_have_count(0)
