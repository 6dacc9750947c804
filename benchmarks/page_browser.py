"""A real Chromium in front of a real server, and the scripts that watch a page from inside, for `benchmarks.page`."""

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from playwright.async_api import Browser, Page, ViewportSize, async_playwright
from tests.support.page import chromium, launched

from benchmarks.board import WORK, Phrase, fill_board
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.operate.child import server
from quickcomm.operate.demo import new_key

VIEWPORT: Final = ViewportSize(width=1440, height=900)
_PAINTED: Final = re.compile(r'^quickcomm_stage_seconds_count\{stage="painted"\} (\S+)$', re.MULTILINE)

WATCH_SHIFTS: Final = """
window.__shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (entry.hadRecentInput) continue;
    const nodes = entry.sources.map((source) => source.node?.nodeType === 1 ? source.node : source.node?.parentElement);
    const moved = nodes.map((node) => node?.closest("[data-testid]")?.dataset.testid ?? "?");
    window.__shifts.push({ at_ms: entry.startTime, value: entry.value, moved });
  }
}).observe({ type: "layout-shift", buffered: true });
"""
"""Keeps every layout shift that no input of the user explains."""

WATCH_ALARMS: Final = """
window.__late = {};
const lookForAlarms = () => {
  for (const row of document.querySelectorAll("[data-testid=alarm], [data-testid=alarms] > *")) {
    const code = row.dataset.code ?? "", text = row.textContent.trim();
    if (!code.startsWith("budget") && !/\\b(late|behind)\\b/i.test(text)) continue;
    window.__late[code || text] ??= { code, text, at_ms: performance.now() };
  }
};
new MutationObserver(lookForAlarms).observe(document, { subtree: true, childList: true, characterData: true });
"""
"""Keeps every alarm about lateness that was shown at any time, by its code."""

WATCH_LOAD: Final = """
performance.setResourceTimingBufferSize(10000);
window.__load = { open: 0, open_at: 0, open_changes: 0, first_card_at: null, cards: "", cards_at: 0, cards_changes: 0 };
const lookAtBoard = () => {
  const now = performance.now(), load = window.__load;
  const text = document.querySelector("[data-testid=open-count]")?.textContent ?? "";
  const open = Number(text.replace(/\\D/g, ""));
  if (open !== load.open) Object.assign(load, { open, open_at: now, open_changes: load.open_changes + 1 });
  const ids = [...document.querySelectorAll("[data-testid=card]")].map((card) => card.dataset.utteranceId);
  if (ids.length > 0) load.first_card_at ??= now;
  const cards = ids.join(" ");
  if (cards !== load.cards) Object.assign(load, { cards, cards_at: now, cards_changes: load.cards_changes + 1 });
};
let looking = false;
new MutationObserver(() => {
  if (looking) return;
  looking = true;
  requestAnimationFrame(() => { looking = false; lookAtBoard(); });
}).observe(document, { subtree: true, childList: true, characterData: true });
"""
"""Notes, once a frame, when the number of open tasks and the cards in the document last changed."""

REST_A_POINTER: Final = """
([name, x, y]) => {
  const seen = { samples: 0, other_card: 0, no_card: 0 };
  (window.__pointers ??= {})[name] = seen;
  let last = null, now = null;
  window.setInterval(() => {
    const card = document.elementFromPoint(x, y)?.closest("[data-testid=card]");
    const id = card?.dataset.utteranceId ?? null;
    seen.samples += 1;
    if (id === null && now !== null) seen.no_card += 1;
    if (id !== null && last !== null && id !== last) seen.other_card += 1;
    last = id ?? last;
    now = id;
  }, 100);
}
"""
"""Looks every 100 ms which card lies at a point: how often it was another one, and how often none any more."""

WATCH_CLICKS: Final = """
window.__presses = [];
window.addEventListener("pointerdown", (event) => {
  const what = event.target.closest("[data-testid]")?.dataset.testid ?? "nothing";
  const card = event.target.closest("[data-testid=card]")?.dataset.utteranceId ?? null;
  window.__presses.push({ at_ms: event.timeStamp, what, card });
}, true);
"""
"""Keeps what each press of the mouse met, by its test id, the card that it belongs to, and when it came."""

FIRST_BUTTON: Final = """
([section, id]) => {
  for (const button of document.querySelectorAll(`[data-testid=section-${section}] [data-testid=${id}]`)) {
    const { left, right, top, bottom } = button.getBoundingClientRect();
    const x = (left + right) / 2, y = (top + bottom) / 2;
    if (y > 0 && y < innerHeight && button.contains(document.elementFromPoint(x, y))) return [x, y];
  }
  return null;
}
"""
"""The middle of the first such button of a section that is in sight; null if there is none."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A server of its own and the browser in front of it. `cards`: how many are stored before it starts."""

    url: str
    data: Path
    key: str
    cards: int
    browser: Browser
    client: aiohttp.ClientSession

    @contextlib.asynccontextmanager
    async def page(self, *scripts: str, follow: Callable[[Page], None] | None = None) -> AsyncIterator[Page]:
        """Open a page with cookies of its own, signed in as admin and live.

        `scripts` run before those of the page; `follow` is called with the page before it loads.
        """
        context = await self.browser.new_context(viewport=VIEWPORT)
        try:
            for script in scripts:
                await context.add_init_script(script)
            page = await context.new_page()
            if follow is not None:
                follow(page)
            await page.goto(f"{self.url}/#key={self.key}")
            await page.wait_for_selector('[data-testid="connection"][data-state="live"]')
            yield page
        finally:
            await context.close()

    async def done(self) -> set[str]:
        """Return the ids of all closed tasks."""
        found: set[str] = set()
        cursor: str | None = ""
        while cursor is not None:
            query = {"status": "done", "limit": "200", **({"cursor": cursor} if cursor else {})}
            async with self.client.get(f"{self.url}/v1/tasks", params=query) as answer:
                answer.raise_for_status()
                page: dict[str, Any] = msgspec.json.decode(await answer.read())
            found |= {str(task["task_id"]) for task in page["items"]}
            cursor = page["next_cursor"]
        return found

    async def painted(self) -> int | None:
        """Return how many paint times the server has counted; None where it has no such figure."""
        async with self.client.get(f"{self.url}/metrics") as answer:
            answer.raise_for_status()
            found = _PAINTED.search(await answer.text())
        return int(float(found[1])) if found else None


@contextlib.asynccontextmanager
async def site(
    browser: Browser, folder: Path, open_tasks: int = 0, work: Sequence[Phrase] = WORK
) -> AsyncIterator[Site]:
    """Start a server on a new data directory with that many open tasks."""
    data = folder / "data"
    cards = await fill_board(DataDirectory(data), open_tasks, work) if open_tasks else 0
    async with server(data, 0, folder / "server.log") as url:
        key = await new_key(data, "admin")
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as client:
            yield Site(url=url, data=data, key=key, cards=cards, browser=browser, client=client)


@contextlib.asynccontextmanager
async def browsers() -> AsyncIterator[Browser]:
    """Start this machine's Chromium. Raises `RuntimeError` if there is none."""
    executable = chromium()
    if executable is None:
        raise RuntimeError("No Chromium or Chrome found. Install one, or name it in QUICKCOMM_CHROMIUM.")
    async with async_playwright() as playwright:
        browser = await launched(playwright, executable)
        try:
            yield browser
        finally:
            await browser.close()
