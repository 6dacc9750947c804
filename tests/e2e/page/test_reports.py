"""Summaries, the shift report and the costs of the model, in a real browser before a real server."""

import pytest
from playwright.async_api import expect
from tests.support.page import Hotel, Screen

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

TOWELS = "two extra bath towels"
SMOKE = "smoke coming from under the door"


async def test_a_conversation_has_a_summary_by_itself(manager: Screen, hotel: Hotel) -> None:
    (heard,) = await hotel.say("housekeeping", TOWELS)
    conversation = heard.utterance_id.partition(":")[0]
    await manager.page.goto(f"{hotel.server.url}/#/conversation/{conversation}")
    await expect(manager.get("summary")).to_contain_text("towels")
    await expect(manager.get("summary")).to_have_attribute("data-source", "local")
    await expect(manager.get("summary")).to_contain_text("without a language model")
    await manager.get("nav-conversations").click()
    await expect(manager.get("conversation-row")).to_contain_text("towels")


async def test_the_shift_report_says_what_came_in_and_what_is_open(manager: Screen, hotel: Hotel) -> None:
    (towels,) = await hotel.say("housekeeping", TOWELS)
    (smoke,) = await hotel.say("security", SMOKE)
    await expect(manager.card(towels)).to_be_visible()
    await expect(manager.card(smoke)).to_be_visible()
    await manager.get("nav-shift").click()
    await expect(manager.get("shift-utterances")).to_have_text("2")
    await expect(manager.get("shift-requests")).to_have_text("2")
    await expect(manager.get("shift-open")).to_have_text("2")
    await expect(manager.get("shift-emergencies")).to_have_text("1")
    await expect(manager.get("shift-emergency")).to_contain_text("not seen yet")
    await expect(manager.get("narrative")).to_contain_text("2 utterances with 2 requests")
    await expect(manager.get("narrative")).to_have_attribute("data-source", "local")
    await expect(manager.get("count-row").filter(has_text="Housekeeping")).to_have_count(1)
    await manager.get("shift-emergency").get_by_role("link").click()
    await manager.card(smoke).get_by_role("button", name="Acknowledge").click()
    await expect(manager.card(smoke)).to_contain_text("Acknowledged")
    await manager.page.go_back()
    await expect(manager.get("shift-emergency")).to_contain_text("acknowledged")
    await expect(manager.get("shift-emergency")).not_to_contain_text("not seen yet")
    await manager.get("shift-hours").select_option("24")
    assert manager.page.url.endswith("#/shift?since=24")
    await expect(manager.get("narrative")).to_contain_text("In 1 d")


async def test_a_printed_report_has_the_report_and_nothing_around_it(manager: Screen, hotel: Hotel) -> None:
    await manager.page.goto(f"{hotel.server.url}/#/shift")
    await expect(manager.get("narrative")).to_contain_text("no requests")
    await manager.page.emulate_media(media="print")
    await expect(manager.get("narrative")).to_be_visible()
    await expect(manager.get("connection")).to_be_hidden()
    await expect(manager.get("shift-hours")).to_be_hidden()


async def test_without_a_model_the_page_says_that_nothing_is_paid(manager: Screen) -> None:
    await manager.get("nav-model").click()
    await expect(manager.get("cap-state")).to_have_attribute("data-state", "off")
    await expect(manager.get("usage-tokens")).to_have_text("0")


async def test_on_a_telephone_nothing_is_wider_than_the_screen(manager: Screen, hotel: Hotel) -> None:
    await hotel.say("housekeeping", TOWELS)
    await manager.page.set_viewport_size({"width": 390, "height": 800})
    await manager.get("nav-shift").click()
    await expect(manager.get("shift-open-tasks")).to_be_visible()
    assert await manager.page.evaluate("document.documentElement.scrollWidth") <= 390
