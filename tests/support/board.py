"""A board in a browser before a real dashboard, and cards that arrive on it without speech."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from playwright.async_api import Browser, Locator, Page, ViewportSize, WebSocket, expect
from tests.support.dashboard_site import Site, found, heard, insight, running
from tests.support.page import PATIENCE_MS, WATCH_POLICY

from quickcomm.contracts.insight import Urgency

WATCH_SHIFTS: Final = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({ type: 'layout-shift', buffered: true });
"""
UNDER: Final = "([x, y]) => document.elementFromPoint(x, y)?.closest('[data-testid=card]')?.dataset.utteranceId"
FOCUSED: Final = "document.activeElement.closest('[data-testid=card]')?.dataset.utteranceId ?? 'no card'"
_STEP: Final = 16_000
_HALF_MS: Final = 5_500

Box = tuple[float, float, float, float]


class BoardScreen:
    """One page on a site of its own, with a clock that can be put forward. `errors`: complaints of its console."""

    def __init__(self, site: Site, page: Page) -> None:
        self.site = site
        self.page = page
        self.errors: list[str] = []
        self.actions: list[str] = []
        self._said = 0
        self._live: list[WebSocket] = []
        page.on("websocket", self._opened)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if line.type in {"error", "warning"} else None)
        page.on(
            "request",
            lambda asked: self.actions.append(asked.url.rsplit("/", 1)[-1]) if "/v1/tasks/" in asked.url else None,
        )

    def _opened(self, socket: WebSocket) -> None:
        self._live.append(socket)

    def get(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    def card(self, utterance_id: str) -> Locator:
        return self.page.locator(f'[data-testid="card"][data-utterance-id="{utterance_id}"]')

    async def arrive(self, *urgencies: Urgency, intent: str = "repair") -> list[str]:
        """Publish one utterance for each urgency, understood at once; return their ids."""
        ids = []
        for urgency in urgencies:
            self._said += 1
            said = heard(_STEP * self._said, f"Somebody look at {400 + self._said}, the tap there drips.")
            what = insight(intent, str(400 + self._said), summary=f"Fix the tap in {400 + self._said}")
            await self.site.publish(said, found(said, msgspec.structs.replace(what, urgency=urgency)))
            ids.append(said.utterance_id)
        return ids

    async def arrived(self, *urgencies: Urgency, intent: str = "repair") -> list[str]:
        ids = await self.arrive(*urgencies, intent=intent)
        for each in ids:
            await expect(self.card(each)).to_be_visible()
        return ids

    async def publish_two_tasks(self) -> str:
        self._said += 1
        said = heard(_STEP * self._said, "The tap drips in 501, and 502 needs towels.")
        both = (insight("repair", "501", summary="Fix the tap"), insight("request_item", "502", index=1))
        await self.site.publish(said, found(said, *both))
        await expect(self.card(said.utterance_id)).to_be_visible()
        return said.utterance_id

    async def box(self, utterance_id: str) -> Box:
        found_box = await self.card(utterance_id).bounding_box()
        assert found_box is not None
        return found_box["x"], found_box["y"], found_box["width"], found_box["height"]

    async def rest_on(self, target: Locator) -> tuple[float, float]:
        await target.hover()
        box = await target.bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    async def leave(self) -> None:
        await self.page.mouse.move(5, 5)

    async def card_under(self, point: Sequence[float]) -> str:
        return str(await self.page.evaluate(UNDER, list(point)))

    async def focused_card(self) -> str:
        return str(await self.page.evaluate(FOCUSED))

    async def let_linger(self) -> None:
        """Put the clock forward past the time for which a changed card keeps its place."""
        for _ in range(2):
            await self.page.clock.run_for(_HALF_MS)
            # A connection that is silent for long by this clock counts as dead: hear from it in between.
            await self._live[-1].wait_for_event("framereceived")

    async def shifted(self) -> float:
        return float(await self.page.evaluate("window.shifted"))

    async def tasks(self, status: str) -> list[str]:
        items = (await self.site.get("/v1/tasks", {"status": status}))["items"]
        return [str(item["utterance_id"]) for item in items]


@asynccontextmanager
async def board_screen(browser: Browser, path: Path) -> AsyncIterator[BoardScreen]:
    async with running(path) as site:
        context = await browser.new_context(viewport=ViewportSize(width=1440, height=900))
        context.set_default_timeout(PATIENCE_MS)
        await context.add_init_script(WATCH_POLICY)
        await context.add_init_script(WATCH_SHIFTS)
        page = await context.new_page()
        await page.clock.install()
        screen = BoardScreen(site, page)
        await page.goto(f"{site.url}/#key={site.tokens['admin']}")
        await expect(screen.get("connection")).to_have_attribute("data-state", "live")
        yield screen
        await context.close()
    assert screen.errors == []
