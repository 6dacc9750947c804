"""A real site whose dashboard moves: an administrator steers it on the page, and no board loses a card."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect
from tests.e2e.page.conftest import OpenScreen
from tests.support.page import Hotel, Screen
from tests.support.server import quickcomm
from tests.support.site import Site

from quickcomm.contracts.audio_socket import Utterance
from quickcomm.kernel.keys import OPERATORS

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

TOWELS = "two extra bath towels"
CRIB = "needs a baby crib"
WATCH = "gold watch"
GATES = {
    "QUICKCOMM_TRAFFIC_ANSWERS": "1000000",  # more than there are: no gate passes
    "QUICKCOMM_TRAFFIC_BAKE_S": "10000000",  # so long that no step is skipped, however little is said
    "QUICKCOMM_TRAFFIC_SILENT_S": "600",
    "QUICKCOMM_TRAFFIC_QUEUE_AGE_S": "600",
    "QUICKCOMM_TRAFFIC_OLDEST_UNANSWERED_S": "600",
}
REFUSED = "status of 409"
"""What a browser says of a request that was refused."""
LATE = "status of 503"
"""Of a request that a controller on its way out has not answered."""
MOVED = "WebSocket connection to"
"""And of a connection that is taken from one side to the other."""


@pytest_asyncio.fixture(loop_scope="session")
async def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    assert browser.is_connected()
    monolith = Site(tmp_path_factory.mktemp("migration") / "data", "--deployment", "monolith", **GATES)
    try:
        await asyncio.to_thread(monolith.start)
        yield monolith
    finally:
        await asyncio.to_thread(monolith.make_sure)


class Board:
    """Another browser, at the board: it is live, has every card, and says nothing about a migration but its link."""

    def __init__(self, screen: Screen, hotel: Hotel) -> None:
        self.screen = screen
        self._hotel = hotel
        self._said = 0

    async def hears(self, words: str) -> Utterance:
        """Return what was said, as the client got it."""
        [said] = await self._hotel.say("housekeeping", words)
        self._said += 1
        await expect(self.screen.card(said)).to_have_attribute("data-revision", "1")
        await self.is_whole()
        return said

    async def served(self, said: Utterance, **sides: str) -> None:
        """Look at the receipt of a card: which side served which stages; without any, no stage says so."""
        receipt = self.screen.card(said).get_by_test_id("receipt")
        await receipt.locator("summary").click()
        await expect(receipt.locator('[data-stage="total"]')).to_be_visible()
        if not sides:
            await expect(receipt.get_by_test_id("receipt-side")).to_have_count(0)
        for stage, side in sides.items():
            row = receipt.locator(f'[data-stage="{stage}"]')
            await expect(row.get_by_test_id("receipt-side")).to_have_text(side)
        await receipt.locator("summary").click()
        # A mouse that rests on the board holds it still, and so does a page that is scrolled.
        await self.screen.page.evaluate("window.scrollTo(0, 0)")
        await self.screen.page.mouse.move(0, 0)

    async def is_whole(self) -> None:
        await expect(self.screen.get("connection")).to_have_attribute("data-state", "live")
        await expect(self.screen.get("card")).to_have_count(self._said)
        assert sorted(await self.screen.card_ids()) == sorted(await self._hotel.utterance_ids())
        await expect(self.screen.get("notice")).to_have_count(0)
        await expect(self.screen.get("alarm")).to_have_count(0)


def dashboard(screen: Screen) -> Locator:
    return screen.page.locator('[data-testid="module"][data-module="dashboard"]')


async def at(screen: Screen, stage: str) -> None:
    await expect(dashboard(screen)).to_have_attribute("data-stage", stage)
    await expect(dashboard(screen).get_by_test_id("module-change")).to_have_count(0)


async def asked(screen: Screen, action: str, why: str = "") -> Locator:
    """Press the button of a module, and return the dialog that asks once more."""
    await dashboard(screen).get_by_test_id(f"move-{action}").click()
    dialog = screen.get("move")
    await expect(dialog).to_be_visible()
    await dialog.get_by_test_id("move-why").fill(why)
    return dialog


async def confirmed(dialog: Locator) -> None:
    await dialog.get_by_test_id("move-confirm").click()
    await expect(dialog).to_have_count(0)


async def forced(dialog: Locator) -> None:
    """Go on in spite of the gate, once it has refused and said what is missing."""
    await expect(dialog.get_by_test_id("move-force")).to_have_count(0)
    await dialog.get_by_test_id("move-confirm").click()
    refusal = dialog.get_by_test_id("move-refused")
    await expect(refusal).to_contain_text("The gate has not passed yet")
    await expect(refusal).to_contain_text("errors: ")
    await expect(refusal).not_to_contain_text("--force")
    await expect(dialog).to_contain_text(re.compile("This skips: .*errors"))
    await dialog.get_by_test_id("move-force").check()
    await confirmed(dialog)


def entry(screen: Screen, action: str) -> Locator:
    return screen.page.locator(f'[data-testid="audit-entry"][data-action="{action}"]').first


async def started(site: Site) -> None:
    await asyncio.to_thread(quickcomm, "migrate", "start", "dashboard", "--data-dir", str(site.data_dir), timeout=120)


@pytest.mark.long
async def test_a_module_is_moved_by_buttons_and_no_board_loses_a_card(site: Site, open_screen: OpenScreen) -> None:
    hotel = Hotel(site, OPERATORS)
    admin, watching, reader = [await open_screen(hotel) for _ in range(3)]
    await watching.sign_in()
    board = Board(watching, hotel)
    await board.served(await board.hears(TOWELS))
    await expect(watching.get("nav-migration")).to_have_count(0)
    await started(site)

    await admin.sign_in()
    await admin.get("nav-migration").click()
    await at(admin, "shadow")
    await expect(dashboard(admin).get_by_test_id("module-serves")).to_contain_text(
        "The monolith serves all page sessions"
    )
    await expect(admin.get("follower")).to_have_count(3)
    await expect(entry(admin, "start")).to_contain_text("off → shadow")
    await expect(dashboard(admin).get_by_test_id("gate")).to_have_attribute("data-outcome", "wait")
    await reader.sign_in("read")
    await reader.get("nav-migration").click()
    await at(reader, "shadow")
    await expect(reader.page.locator('[data-testid^="move"]')).to_have_count(0)

    await forced(await asked(admin, "step", "to see it"))
    await at(admin, "canary 1 %")
    await at(reader, "canary 1 %")
    await expect(entry(admin, "step")).to_contain_text("Ada")
    await expect(entry(admin, "step").locator(".forced")).to_contain_text("forced")
    await entry(admin, "step").get_by_test_id("audit-evidence").locator("summary").click()
    await expect(entry(admin, "step").locator('[data-figure="errors"]')).to_have_attribute("data-outcome", "wait")
    await board.hears(CRIB)

    await forced(await asked(admin, "promote"))
    await at(admin, "full")
    await expect(dashboard(admin).get_by_test_id("module-serves")).to_contain_text("the service decides")
    await board.served(await board.hears(WATCH), stt="monolith", classify="monolith", store="service", push="service")

    await confirmed(await asked(admin, "rollback", "pages were slow"))
    await at(admin, "shadow")
    await at(reader, "shadow")
    await expect(entry(admin, "rollback")).to_contain_text("pages were slow")
    shares = dashboard(admin).get_by_test_id("share-graph").get_by_role("img")
    await expect(shares).to_have_attribute("aria-label", re.compile("100 % from .*; taken back at "))
    await expect(dashboard(admin).get_by_test_id("both-graph").get_by_role("img").first).to_be_visible()
    await board.hears(TOWELS)
    await confirmed(await asked(admin, "step"))  # on the way back no gate is asked
    await at(admin, "off")
    await board.hears(CRIB)
    await expect(watching.get("nav-migration")).to_be_visible()
    admin.forgive(REFUSED)
    for screen in (admin, watching, reader):
        screen.forgive(MOVED)


@pytest.mark.long
async def test_the_view_says_so_where_nothing_moves_and_where_the_controller_is_gone(
    site: Site, open_screen: OpenScreen
) -> None:
    screen, tenant = await open_screen(Hotel(site, OPERATORS)), await open_screen(Hotel(site))
    await screen.sign_in()
    await screen.page.goto(f"{site.url}/#/migration")
    await expect(screen.get("migration-none")).to_contain_text("quickcomm migrate start dashboard")
    await started(site)
    await at(screen, "shadow")
    await expect(screen.get("migration-error")).to_have_count(0)
    dialog = await asked(screen, "pause")
    await screen.page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await confirmed(await asked(screen, "pause"))
    await expect(dashboard(screen)).to_contain_text("Paused")
    await expect(dashboard(screen).get_by_test_id("move-step")).to_have_count(0)
    await tenant.sign_in()
    await tenant.get("nav-migration").click()
    await at(tenant, "shadow")
    await expect(tenant.page.locator('[data-testid^="move"], [data-testid="kill-switch"]')).to_have_count(0)
    await screen.get("kill-switch").click()
    dialog = screen.get("move")
    await expect(dialog).to_contain_text("The monolith serves everything again at once")
    await dialog.get_by_test_id("move-why").fill("smoke")
    await confirmed(dialog)
    await at(screen, "off")
    await expect(entry(screen, "kill")).to_contain_text("smoke")
    await expect(dashboard(screen)).to_contain_text("Paused")
    await expect(screen.page.locator('[data-testid="module"][data-module="audio"]')).not_to_contain_text("Paused")
    await expect(screen.get("kill-switch")).to_have_count(0)
    await asyncio.to_thread(quickcomm, "scale", "traffic=0", "--data-dir", str(site.data_dir), timeout=120)
    await expect(screen.get("migration-error")).to_contain_text("The controller does not answer")
    await at(screen, "off")
    screen.forgive(LATE)
    tenant.forgive(LATE)
