"""A thousand open tasks: the board comes at once, complete, and is the same after a reload and on the way back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from tests.e2e.page.conftest import OpenScreen
from tests.support.dashboard_site import Site, found, heard, insight, running
from tests.support.page import Screen
from tests.support.seed import Seed, seed

from quickcomm.dashboard.module import DashboardSettings
from quickcomm.dashboard.ports import Board

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

OPEN: Final = 1_000
DONE: Final = Board().done
SECTIONS: Final = ("critical", "high", "normal", "information", "done")
# Every count that the page ever showed.
WATCH: Final = """
window.counts = [];
new MutationObserver(() => {
  const shown = document.querySelector('[data-testid="open-count"]')?.textContent ?? '';
  if (shown !== '' && shown !== window.counts.at(-1)) window.counts.push(shown);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""

# Where it is laid out: a card that still slides when it is clicked comes back where it would have come to.
TOP_AT_CLICK: Final = """
addEventListener('click', ({ target }) => {
  for (const each of document.getAnimations()) if (each.effect.getComputedTiming().endTime < Infinity) each.finish();
  window.topAtClick = target.closest('[data-utterance-id]').getBoundingClientRect().top;
}, { capture: true, once: true });
"""

# Cards around it are drawn as they come into sight, and slide to their places: the end counts.
COMES_TO: Final = """
(name) => {
  const card = document.querySelector(`[data-testid="section-normal"] [data-utterance-id="${name}"]`);
  return card && Math.abs(card.getBoundingClientRect().top - window.topAtClick) < 3;
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def full(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    assert browser.is_connected()
    async with running(tmp_path_factory.mktemp("full")) as site:
        await seed(site.database, Seed(open=OPEN, done=250, information=600))
        yield site


async def board_of(screen: Screen) -> dict[str, list[str]]:
    """Return what each section says, its number first, and the cards that it has drawn, in order."""
    script = "all => all.map(one => one.dataset.utteranceId)"
    seen: dict[str, list[str]] = {}
    for name in SECTIONS:
        section = screen.get(f"section-{name}")
        count = await section.locator("h2 .count").inner_text()
        seen[name] = [count, *await section.get_by_test_id("card").evaluate_all(script)]
    return seen


async def test_a_full_board_comes_at_once_and_is_the_same_after_a_reload(full: Site, open_screen: OpenScreen) -> None:
    screen = await open_screen(full)
    await screen.page.add_init_script(WATCH)
    sockets: list[str] = []
    asked: list[str] = []
    screen.page.on("websocket", lambda socket: sockets.append(socket.url))
    screen.page.on("request", lambda request: asked.append(request.url.removeprefix(full.url)))
    await screen.sign_in("read")
    await expect(screen.get("open-count")).to_have_text(str(OPEN))
    assert await screen.page.evaluate("window.counts") == [str(OPEN)]
    assert len(sockets) == 1
    first = [path for path in asked if path.startswith("/v1/") and path != "/v1/migration"]
    assert first == ["/v1/session", "/v1/channels"]
    loaded = await board_of(screen)
    assert sum(int(loaded[name][0]) for name in ("critical", "high", "normal")) == OPEN
    await expect(screen.get("older")).to_contain_text("newest 200 cards")
    await screen.page.reload()
    await expect(screen.get("open-count")).to_have_text(str(OPEN))
    assert await board_of(screen) == loaded


@pytest.mark.long
async def test_a_page_that_was_there_shows_what_one_shows_that_loads(full: Site, open_screen: OpenScreen) -> None:
    there = await open_screen(full)
    await there.sign_in("admin")
    await expect(there.get("open-count")).to_have_text(str(OPEN))
    said = [heard(start, f"good morning {start}", conversation="later") for start in range(10**8, 10**8 + 60 * 16, 16)]
    for transcript in said:
        await full.publish(transcript, found(transcript, insight("chatter", summary="Good morning"), opens=False))
    # Said days ago, and done now: it stays where one can take it back.
    task = (await full.get("/v1/tasks", {"status": "open", "limit": "1"}))["items"][0]
    await full.post(f"/v1/tasks/{task['task_id']}/complete")
    await expect(there.get("open-count")).to_have_text(str(OPEN - 1))
    await expect(there.page.locator(f'[data-utterance-id="{said[-1].utterance_id}"]')).to_be_visible()
    # For some seconds it keeps its place, as *Done · Undo*.
    await expect(there.get("section-done").locator("h2 .count")).to_have_text(str(DONE))
    seen = await board_of(there)
    loads = await open_screen(full)
    await loads.sign_in("read")
    await expect(loads.get("open-count")).to_have_text(str(OPEN - 1))
    assert await board_of(loads) == seen
    await full.post(f"/v1/tasks/{task['task_id']}/reopen")
    await expect(there.get("open-count")).to_have_text(str(OPEN))


async def test_back_from_a_card_the_board_is_as_it_was_left(full: Site, open_screen: OpenScreen) -> None:
    screen = await open_screen(full)
    await screen.sign_in("read")
    await expect(screen.get("open-count")).to_have_text(str(OPEN))
    await screen.get("filter-status").select_option("open")
    card = screen.get("section-normal").get_by_test_id("card").nth(60)
    await screen.get("more-normal").click()
    try:
        await expect(card).to_be_attached()
    except AssertionError:  # on a slow machine the board may have moved between press and release
        await screen.get("more-normal").click()
    name = await card.get_attribute("data-utterance-id")
    link = card.locator("a.time")
    await link.scroll_into_view_if_needed()
    # Where it was when it was left: only the click itself knows, for the board may still move while it is drawn.
    await screen.page.evaluate(TOP_AT_CLICK)
    await link.click()
    try:
        await expect(screen.get("utterance")).to_be_visible()
    except AssertionError:  # on a slow machine the board may still have moved between press and release
        await link.click()
        await expect(screen.get("utterance")).to_be_visible()
    await screen.page.go_back()
    again = screen.page.locator(f'[data-testid="section-normal"] [data-utterance-id="{name}"]')
    await expect(again).to_be_in_viewport()
    await screen.page.wait_for_function(COMES_TO, arg=name)
    await expect(screen.get("filter-status")).to_have_value("open")


async def test_what_is_beyond_a_page_is_said_and_the_most_urgent_is_not(
    tmp_path: Path, open_screen: OpenScreen
) -> None:
    settings = DashboardSettings(board=Board(open=20, recent=5, done=5))
    async with running(tmp_path, settings) as site:
        await seed(site.database, Seed(open=60))
        screen = await open_screen(site)
        await screen.sign_in("read")
        await expect(screen.get("left-out")).to_contain_text("older open tasks are not shown")
        assert await screen.get("section-critical").locator("h2 .count").inner_text() == "10"
        shown = int(await screen.get("open-count").inner_text())
        await expect(screen.get("left-out")).to_contain_text(f"{60 - shown} older")
        await expect(screen.get("left-out")).not_to_contain_text("critical")
