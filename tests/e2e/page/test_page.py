"""The page in a real browser, before a real server, with real speech through the real socket."""

import asyncio
import gzip
import re
from pathlib import Path

import pytest
from playwright.async_api import Locator, WebSocketRoute, expect
from tests.e2e.page.conftest import OpenScreen
from tests.support.page import PATIENCE_MS, Hotel, Screen, talk_of
from tests.support.wire import connected, new_id

from quickcomm.dashboard.adapters.page import STATIC

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

STAGES = ("endpoint", "stt", "publish", "queue", "classify", "store", "push", "total")
TOWELS = "two extra bath towels"
SMOKE = "smoke coming from under the door"
SPILL = "coffee spill"
LUGGAGE = "pick up the luggage"


async def milliseconds(cell: Locator) -> float:
    """What a duration on the page says."""
    number, unit = (await cell.inner_text()).split()
    return float(number) * {"ms": 1, "s": 1_000}[unit]


async def test_the_link_signs_in_and_its_key_leaves_the_address(hotel: Hotel, open_screen: OpenScreen) -> None:
    screen = await open_screen(hotel)
    await screen.sign_in()
    await expect(screen.get("site")).to_have_text(hotel.site)
    await expect(screen.get("connection")).to_have_attribute("data-state", "live")
    key = await hotel.key("admin")
    assert screen.page.url == f"{hotel.server.url}/#/"
    kept = await screen.page.evaluate(
        "JSON.stringify([location.href, history.state, {...localStorage}, {...sessionStorage}, document.cookie])"
    )
    assert key not in kept
    await screen.page.reload()
    await expect(screen.get("site")).to_have_text(hotel.site)
    await expect(screen.get("empty")).to_contain_text("Nothing heard yet")
    await expect(screen.get("empty")).to_contain_text("quickcomm ingest")
    await expect(screen.get("card")).to_have_count(0)


async def test_a_wrong_key_is_told_so_and_a_right_one_comes_in(hotel: Hotel, open_screen: OpenScreen) -> None:
    screen = await open_screen(hotel)
    await screen.page.goto(f"{hotel.server.url}/#key=qc_this-is-no-key")
    await expect(screen.get("sign-in-error")).to_contain_text("not known")
    assert "this-is-no-key" not in screen.page.url
    await screen.get("sign-in-key").fill(await hotel.key("ingest"))
    await screen.get("sign-in-submit").click()
    await expect(screen.get("sign-in-error")).to_contain_text("may not see this page")
    await screen.get("sign-in-key").fill(await hotel.key("read"))
    await screen.get("sign-in-submit").click()
    await expect(screen.get("role")).to_have_text("View only")
    await screen.get("sign-out").click()
    await expect(screen.get("sign-in-key")).to_be_visible()
    await screen.page.reload()
    await expect(screen.get("sign-in-key")).to_be_visible()
    screen.forgive(r"status of 40[13]")


async def test_a_caption_appears_while_somebody_speaks(manager: Screen, hotel: Hotel) -> None:
    tile = manager.tile("housekeeping")
    async with hotel.on_air("housekeeping", SPILL):
        partial = tile.locator('[data-testid="caption"][data-final="false"]')
        await expect(partial).to_contain_text(re.compile("coffee spill", re.IGNORECASE))
        final = tile.locator('[data-testid="caption"][data-final="true"]')
        await expect(final).to_contain_text(re.compile("coffee spill on the carpet by the second floor", re.IGNORECASE))
        await expect(manager.get("card").first).to_be_visible()
        await expect(tile).to_have_attribute("data-state", "talking")
    await expect(tile).to_have_count(0)


async def test_captions_go_on_after_a_connection_that_broke_before_anything_was_said(
    hotel: Hotel, open_screen: OpenScreen
) -> None:
    screen = await open_screen(hotel)
    lines: list[WebSocketRoute] = []

    def connect(line: WebSocketRoute) -> None:
        line.connect_to_server()
        lines.append(line)

    await screen.page.route_web_socket(re.compile("/v1/live"), connect)
    await screen.sign_in()
    tile = screen.tile("housekeeping")
    async with connected(hotel.server.url, await hotel.key("ingest"), new_id("talk"), channel="housekeeping") as wire:
        await wire.until("ready")
        await expect(tile).to_have_attribute("data-state", "quiet")
        await lines[-1].close(code=1012)
        await expect(screen.get("connection")).to_have_attribute("data-state", "live")
        while len(lines) == 1:  # noqa: ASYNC110 - the page comes again by itself
            await asyncio.sleep(0.02)
        await expect(screen.get("connection")).to_have_attribute("data-state", "live")
        await wire.send(talk_of(SPILL), 3_200)
        await expect(tile.get_by_test_id("caption")).to_contain_text(re.compile("coffee spill", re.IGNORECASE))


async def test_a_card_says_who_must_do_what_where_and_how_long_it_took(manager: Screen, hotel: Hotel) -> None:
    [said] = await hotel.say("housekeeping", TOWELS)
    card = manager.card(said)
    await expect(card.get_by_test_id("card-rooms")).to_have_text(re.compile(r"412$"))
    await expect(card.get_by_test_id("card-department")).to_have_text("Housekeeping")
    await expect(card.get_by_test_id("card-urgency")).to_have_text("Normal")
    await expect(card.get_by_test_id("card-summary")).to_have_text(re.compile("towels.*412"))
    await expect(card.get_by_test_id("card-channel")).to_have_text("Housekeeping")
    await expect(card.get_by_test_id("card-items")).to_contain_text("towels")
    await expect(card.get_by_test_id("card-words")).to_have_text(said.text)
    await expect(card.locator('mark[data-evidence="rooms"]')).to_have_text("412")
    marked = await card.locator('mark[data-evidence="items"]').all_inner_texts()
    assert "towels" in " ".join(marked)
    await expect(manager.page.get_by_test_id("section-normal").locator(card)).to_be_visible()
    await card.get_by_test_id("receipt").locator("summary").click()
    stages = card.get_by_test_id("receipt-stages")
    for stage in STAGES:
        await expect(stages.locator(f'[data-stage="{stage}"]')).to_be_visible()
    spent = [await milliseconds(stages.locator(f'[data-stage="{stage}"] td').first) for stage in STAGES]
    assert 0 < spent[-1] < PATIENCE_MS
    assert sum(spent[:-1]) == pytest.approx(spent[-1], rel=0.1, abs=20)
    await expect(stages.locator('[data-stage="painted"]')).to_be_visible()
    bars = [await stages.locator(f'[data-stage="{stage}"] .fall i').bounding_box() for stage in ("endpoint", "store")]
    assert bars[0] is not None
    assert bars[1] is not None
    assert bars[0]["x"] + bars[0]["width"] <= bars[1]["x"] + 1, "a stage begins where those before it end"


async def test_the_page_reports_what_it_has_painted(manager: Screen, hotel: Hotel) -> None:
    [said] = await hotel.say("housekeeping", TOWELS)
    await expect(manager.card(said)).to_be_visible()
    assert 0 <= await hotel.painted_ms(said.utterance_id) < PATIENCE_MS


async def test_an_emergency_is_on_top_and_read_out(manager: Screen, hotel: Hotel) -> None:
    [emergency] = await hotel.say("security", SMOKE)
    [ordinary] = await hotel.say("front-desk", LUGGAGE)
    await expect(manager.card(ordinary)).to_be_visible()
    await expect(manager.card(emergency)).to_have_attribute("data-urgency", "critical")
    assert (await manager.card_ids())[0] == emergency.utterance_id
    top, below = [await manager.card(each).bounding_box() for each in (emergency, ordinary)]
    assert top is not None
    assert below is not None
    assert top["y"] + top["height"] <= below["y"]
    await expect(manager.card(emergency).get_by_test_id("card-department")).to_have_text("Security")
    await expect(manager.card(emergency).locator('mark[data-evidence="urgency"]').first).to_contain_text("smoke")
    await expect(manager.get("announce")).to_contain_text("430")
    await expect(manager.page).to_have_title(re.compile("1 critical"))


async def test_what_one_does_all_see_at_once_and_a_read_key_only_sees(
    manager: Screen, hotel: Hotel, open_screen: OpenScreen
) -> None:
    watcher = await open_screen(hotel)
    await watcher.sign_in("read")
    [said] = await hotel.say("housekeeping", TOWELS)
    mine, theirs = manager.card(said), watcher.card(said)
    await expect(theirs.get_by_test_id("task")).to_have_attribute("data-status", "open")
    await mine.get_by_test_id("acknowledge").click()
    await expect(theirs.get_by_test_id("task")).to_have_attribute("data-status", "acknowledged")
    await mine.get_by_test_id("assign").click()
    await mine.get_by_test_id("assign-name").fill("<b>Marco</b>")
    await mine.get_by_test_id("assign-save").click()
    await expect(theirs.get_by_test_id("task-assignee")).to_have_text("<b>Marco</b>")
    await mine.get_by_test_id("complete").click()
    await expect(theirs).to_have_attribute("data-section", "done")
    await expect(mine).to_have_attribute("data-section", "done")
    await expect(theirs.get_by_test_id("task")).to_have_attribute("data-status", "done")
    await expect(theirs.get_by_role("button")).to_have_count(0)
    await expect(mine.get_by_test_id("reopen")).to_be_visible()


async def test_search_finds_what_was_said(manager: Screen, hotel: Hotel) -> None:
    [towels] = await hotel.say("housekeeping", TOWELS)
    [luggage] = await hotel.say("front-desk", LUGGAGE)
    await expect(manager.card(luggage)).to_be_visible()
    await manager.page.keyboard.press("/")
    await manager.page.keyboard.type("luggage")
    results = manager.get("search-results")
    await expect(results).to_contain_text("1 found for “luggage”")
    await expect(manager.card(luggage)).to_be_visible()
    await expect(manager.card(towels)).to_have_count(0)
    await manager.get("search").fill("zeppelin")
    await expect(manager.get("list-empty")).to_be_visible()
    await manager.get("search-close").click()
    await expect(manager.card(towels)).to_be_visible()


async def test_a_conversation_has_its_utterances_and_a_ledger_that_balances(manager: Screen, hotel: Hotel) -> None:
    said = await hotel.say("housekeeping", TOWELS, "305 is clean", SPILL)
    assert len(said) == 3
    await manager.get("nav-conversations").click()
    await manager.get("conversation-row").get_by_role("link", name="Housekeeping").click()
    await expect(manager.get("conversation-state")).to_have_text("Ended")
    await expect(manager.get("ledger")).to_have_attribute("data-balanced", "true")
    await expect(manager.get("ledger").locator('[data-part="gap"]')).to_contain_text("0")
    await expect(manager.get("conversation").get_by_test_id("card")).to_have_count(3)
    assert await manager.card_ids() == [each.utterance_id for each in said]


async def test_a_channel_with_markup_for_a_name_is_only_text(manager: Screen, hotel: Hotel) -> None:
    name = "<img src=x onerror=alert(1)>"
    async with hotel.on_air(name, TOWELS):
        await expect(manager.get("channel-tile").filter(has_text=name)).to_be_visible()
        card = manager.get("card").filter(has_text=name).first
        await expect(card.get_by_test_id("card-channel")).to_have_text(name)
    await expect(manager.get("filter-channel").locator("option", has_text=name)).to_have_count(1)
    await manager.get("nav-conversations").click()
    await expect(manager.get("conversation-row")).to_contain_text(name)
    assert await manager.page.locator("img:not([src='./favicon.svg'])").count() == 0


async def test_the_policy_lets_no_text_become_markup(manager: Screen) -> None:
    """Were there a mistake in the page one day, the browser would still refuse."""
    assign = "try { document.body.innerHTML = '<b>hello</b>'; 'taken' } catch (error) { error.name }"
    assert await manager.page.evaluate(assign) == "TypeError"
    await expect(manager.get("board").or_(manager.get("empty"))).to_be_visible()
    assert manager.errors
    manager.forgive("TrustedHTML|policy: require-trusted-types-for")


def built(pattern: str) -> Path:
    [file] = (STATIC / "assets").glob(pattern)
    return file


async def test_the_page_is_small_and_needs_nothing_from_elsewhere() -> None:
    assert len(gzip.compress(built("*.js").read_bytes())) <= 150_000
    index = (STATIC / "index.html").read_text()
    assert not re.search(r"(?:src|href)=.(?:https?:)?//", index)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=", index)
