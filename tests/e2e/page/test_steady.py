"""Nothing moves under a resting pointer or focus, and a second click closes nobody else's task."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect
from tests.support.board import BoardScreen, board_screen

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def screen(browser: Browser, tmp_path: Path) -> AsyncIterator[BoardScreen]:
    async with board_screen(browser, tmp_path) as shown:
        yield shown


@pytest.mark.parametrize("gap_ms", [120, 350, 800])
@pytest.mark.parametrize("first", ["complete", "acknowledge"])
async def test_a_second_click_acts_on_nothing_else(screen: BoardScreen, first: str, gap_ms: int) -> None:
    one, *others = await screen.arrived("normal", "normal", "normal")
    task = screen.card(one).get_by_test_id("task")
    before = [await screen.box(each) for each in (one, *others)]
    x, y = await screen.rest_on(task.get_by_test_id(first))
    await screen.page.mouse.click(x, y)
    await expect(task).to_have_attribute("data-status", "done" if first == "complete" else "acknowledged")
    await expect(task).to_have_attribute("aria-busy", "false")
    await screen.page.clock.run_for(gap_ms)
    await screen.page.mouse.click(x, y)
    assert screen.actions == [first]
    assert [await screen.box(each) for each in (one, *others)] == before
    assert len(await screen.tasks("open")) == 2


async def test_the_stub_of_a_closed_task_takes_the_closing_back_and_leaves_later(screen: BoardScreen) -> None:
    one, other = await screen.arrived("normal", "normal")
    card = screen.card(one)
    await card.get_by_test_id("complete").click()
    await expect(card).to_have_attribute("data-stub", "true")
    await expect(screen.get("section-normal").locator(card)).to_be_visible()
    await expect(card.get_by_test_id("card-summary")).to_be_visible()
    undo = card.get_by_role("button", name="Undo: Fix the tap in 401")
    await undo.click()
    await expect(card.get_by_test_id("task")).to_have_attribute("data-status", "open")
    assert await screen.tasks("open") == [other, one]
    await card.get_by_test_id("complete").click()
    await expect(undo).to_be_visible()
    await screen.leave()
    await screen.let_linger()
    await expect(screen.get("section-done").locator(card)).to_be_visible()
    await expect(card).to_have_attribute("data-stub", "false")
    await expect(card.get_by_role("button", name="Reopen: Fix the tap in 401")).to_be_visible()


async def test_a_close_from_elsewhere_changes_the_card_in_its_place_first(screen: BoardScreen) -> None:
    one, other = await screen.arrived("high", "high")
    before = await screen.box(one), await screen.box(other)
    task_id = await screen.card(one).get_by_test_id("task").get_attribute("data-task-id")
    await screen.site.post(f"/v1/tasks/{task_id}/complete")
    await expect(screen.card(one)).to_have_attribute("data-stub", "true")
    assert (await screen.box(one), await screen.box(other)) == before
    await expect(screen.get("section-high").locator("h2")).to_have_text("High 1")
    await screen.let_linger()
    await expect(screen.get("section-done").locator(screen.card(one))).to_be_visible()


async def test_who_was_quicker_is_said_and_what_they_did_stays(screen: BoardScreen) -> None:
    [one] = await screen.arrived("high")
    task = screen.card(one).get_by_test_id("task")

    async def overtaken(route: Route) -> None:
        await screen.site.post(f"/v1/tasks/{await task.get_attribute('data-task-id')}/complete")
        await route.continue_()

    await screen.page.route("**/v1/tasks/*/acknowledge", overtaken)
    await task.get_by_test_id("acknowledge").click()
    notice = screen.get("notice")
    await expect(notice).to_contain_text("the admin marked “Fix the tap in 401” as done at")
    await expect(notice).to_contain_text("before you. It stays that way.")
    await expect(task).to_have_attribute("data-status", "done")
    assert screen.actions == ["acknowledge"], "it is not tried again"
    assert (await screen.site.get("/v1/tasks", {"status": "done"}))["items"][0]["acknowledged_at"] is None
    await task.get_by_test_id("reopen").click()
    await expect(task).to_have_attribute("data-status", "open")
    screen.errors[:] = [error for error in screen.errors if "status of 409" not in error]


async def test_one_of_two_tasks_is_closed_and_the_card_stays(screen: BoardScreen) -> None:
    both = await screen.publish_two_tasks()
    await screen.arrived("normal")
    card = screen.card(both)
    tasks, before = card.get_by_test_id("task"), await screen.box(both)
    await tasks.first.get_by_test_id("complete").click()
    await expect(tasks.first.get_by_role("button", name="Undo: Fix the tap, 501")).to_be_visible()
    await expect(tasks.nth(1)).to_have_attribute("data-status", "open")
    assert await screen.box(both) == before
    await screen.let_linger()
    await screen.leave()
    await expect(tasks.first.get_by_role("button", name="Reopen: Fix the tap, 501")).to_be_visible()
    await expect(screen.get("section-normal").locator(card)).to_be_visible()


async def test_a_resting_pointer_keeps_its_card_until_somebody_asks_for_the_new_ones(screen: BoardScreen) -> None:
    [danger] = await screen.arrived("critical")
    first, second = await screen.arrived("normal", "normal")
    point = await screen.rest_on(screen.card(second).get_by_test_id("acknowledge"))
    before = await screen.box(second)
    fire, *waiting = await screen.arrive("critical", "normal", "normal")
    [elsewhere] = await screen.arrived("high")
    await expect(screen.get("new-critical")).to_contain_text("1 new critical")
    await expect(screen.get("new-critical")).to_have_attribute("data-critical", "1")
    await expect(screen.get("new-normal")).to_contain_text("2 new")
    for each in (fire, *waiting):
        await expect(screen.card(each)).to_have_count(0)
    assert await screen.card_under(point) == second
    assert await screen.box(second) == before
    await screen.get("new-normal").click()
    for each in waiting:
        await expect(screen.card(each)).to_be_visible()
    await expect(screen.card(fire)).to_have_count(0)
    await screen.leave()
    await expect(screen.card(fire)).to_be_visible()
    await expect(screen.get("new-critical")).to_have_count(0)
    shown = await screen.get("card").evaluate_all("cards => cards.map((card) => card.dataset.utteranceId)")
    assert shown == [danger, fire, elsewhere, first, second, *waiting]


async def test_a_card_that_gets_urgent_waits_as_well_but_is_told(screen: BoardScreen) -> None:
    first, second = await screen.arrived("critical", "critical")
    await screen.rest_on(screen.card(second).get_by_test_id("acknowledge"))
    before = await screen.box(second)
    task_id = await screen.card(first).get_by_test_id("task").get_attribute("data-task-id")
    await screen.site.post(f"/v1/tasks/{task_id}/acknowledge")
    await expect(screen.card(first).get_by_test_id("task")).to_have_attribute("data-status", "acknowledged")
    await screen.let_linger()
    assert await screen.box(second) == before
    await screen.leave()
    await expect(screen.get("card").first).to_have_attribute("data-utterance-id", second)


async def test_the_focus_stays_on_the_card_that_the_keyboard_acts_on(screen: BoardScreen) -> None:
    one, _ = await screen.arrived("high", "high")
    task = screen.card(one).get_by_test_id("task")
    press = screen.page.keyboard.press
    await task.get_by_role("button", name="Acknowledge: Fix the tap in 401").focus()
    await press("Enter")
    await expect(task).to_have_attribute("data-status", "acknowledged")
    await expect(task).to_have_attribute("aria-busy", "false")  # until it is answered, its buttons take nothing
    assert await screen.focused_card() == one
    await press("Tab")
    await expect(task.get_by_role("button", name="Done: Fix the tap in 401")).to_be_focused()
    await press("Enter")
    await expect(screen.card(one)).to_have_attribute("data-stub", "true")
    assert await screen.focused_card() == one
    await screen.let_linger()
    await screen.arrive("high")
    await expect(screen.get("new-high")).to_be_visible()
    await press("Tab")
    await expect(task.get_by_role("button", name="Undo: Fix the tap in 401")).to_be_focused()
    await press("Enter")
    await expect(task).to_have_attribute("data-status", "acknowledged")
    await expect(task).to_have_attribute("aria-busy", "false")
    assert await screen.focused_card() == one
    assert await screen.tasks("acknowledged") == [one]


async def test_a_burst_of_cards_shifts_nothing_and_says_what_came_below(screen: BoardScreen) -> None:
    await screen.arrived("high", "normal", "low")
    for _ in range(4):
        ids = await screen.arrive("critical", "high", "normal", "normal")
        chatter = await screen.arrive("low", "low", intent="chatter")
        for each in (*ids, *chatter):
            await expect(screen.card(each)).to_have_count(1)
    await expect(screen.get("below-normal")).to_contain_text("new below")
    assert await screen.page.evaluate("PerformanceObserver.supportedEntryTypes.includes('layout-shift')")
    assert await screen.shifted() <= 0.1
    await screen.get("below-normal").click()
    await screen.page.evaluate(SCROLLED)


SCROLLED = """() => new Promise((done) => {
  if (window.scrollY > 0) done();
  window.addEventListener('scroll', done, { once: true });
})"""
CLICK_ON_ARRIVAL = """([x, y]) => new Promise((done) => new MutationObserver(() => {
  const button = document.elementFromPoint(x, y)?.closest('[data-testid=acknowledge]');
  if (!button) return;
  button.dispatchEvent(new MouseEvent('click', { bubbles: true, detail: 1, clientX: x, clientY: y }));
  done(button.closest('[data-testid=card]').dataset.utteranceId);
}).observe(document.body, { childList: true, subtree: true }))"""


async def test_a_click_on_a_button_that_has_just_come_under_the_pointer_does_not_count(screen: BoardScreen) -> None:
    first, second = await screen.arrived("normal", "normal")
    (_, above, _, _), (_, below, _, _) = await screen.box(first), await screen.box(second)
    x, y_of_second = await screen.rest_on(screen.card(second).get_by_test_id("acknowledge"))
    y = y_of_second + below - above
    await screen.page.mouse.move(x, y)
    clicked = screen.page.evaluate(CLICK_ON_ARRIVAL, [x, y])
    async with asyncio.TaskGroup() as tasks:
        hit = tasks.create_task(clicked)
        [third] = await screen.arrived("normal")
    assert hit.result() == third
    assert screen.actions == []
    await screen.page.clock.run_for(400)
    await screen.page.mouse.click(x, y)
    await expect(screen.card(third).get_by_test_id("task")).to_have_attribute("data-status", "acknowledged")
