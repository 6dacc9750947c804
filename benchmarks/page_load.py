"""How long until the board of the page is complete: `python -m benchmarks.page_load [--open N] [--loads N] [DATABASE]`.

A dashboard alone on loopback, on a new SQLite file or on an empty PostgreSQL database, with so many open tasks;
a Chromium that loads the page again and again. Milliseconds from the start of the navigation; needs Chromium.
"""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Final

from playwright.async_api import Page, async_playwright, expect
from tests.support.board import Seed, seed
from tests.support.dashboard_site import Site, running
from tests.support.page import chromium, launched

PATIENCE_MS: Final = 60_000
# The open count of the page, each time that it changes.
WATCH: Final = """
window.counts = [];
new MutationObserver(() => {
  const shown = document.querySelector('[data-testid="open-count"]')?.textContent ?? '';
  if (shown !== (window.counts.at(-1)?.shown ?? '')) window.counts.push({ shown, at: performance.now() });
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


async def load(page: Page, url: str, expected: int) -> tuple[float, int, int]:
    """Return when the count was right (ms), how often it changed until then, and how many requests that took."""
    await page.goto(url)
    count = page.get_by_test_id("open-count")
    await expect(count).to_have_text(str(expected), timeout=PATIENCE_MS)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    await page.reload()
    await expect(count).to_have_text(str(expected), timeout=PATIENCE_MS)
    counts = await page.evaluate("window.counts")
    return counts[-1]["at"], len(counts), len([each for each in requests if "/v1/" in each])


async def replay(site: Site) -> tuple[float, float, int]:
    """Return when hello and the last card came (ms), and the bytes; as a client that only reads."""
    loop = asyncio.get_running_loop()
    began, size = loop.time(), 0
    async with site.live(max_msg_size=0) as socket:
        hello = await socket.receive_str()
        greeted = loop.time()
        while '"health"' not in (text := await socket.receive_str())[:40] and '"replayed"' not in text[:40]:
            size += len(text)
    assert hello
    return (greeted - began) * 1000, (loop.time() - began) * 1000, size


async def measure(site: Site, loads: int, expected: int) -> None:
    executable = chromium()
    assert executable, "needs a Chromium on the PATH, or named by QUICKCOMM_CHROMIUM"
    for name, values in zip(
        ("hello", "all cards", "bytes"), zip(*[await replay(site) for _ in range(loads)], strict=True), strict=True
    ):
        print(f"{name:28}{statistics.median(values):>10.0f}   {[round(each) for each in values]}")
    async with async_playwright() as playwright:
        browser = await launched(playwright, executable)
        rows = []
        for _ in range(loads):
            context = await browser.new_context(viewport={"width": 1440, "height": 900})
            page = await context.new_page()
            await page.add_init_script(WATCH)
            rows.append(await load(page, await site.link(), expected))
            await context.close()
        await browser.close()
    for name, row in zip(
        ("board complete, ms", "changes of the count", "requests of /v1"), zip(*rows, strict=True), strict=True
    ):
        print(f"{name:28}{statistics.median(row):>10.0f}   {[round(each) for each in row]}")


async def run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), store=arguments.database) as site:
            await seed(site.database, Seed(open=arguments.open, done=300, information=700))
            await measure(site, arguments.loads, arguments.open)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", nargs="?", help="`postgresql://…`; a new file where it is left out")
    parser.add_argument("--open", type=int, default=1_000)
    parser.add_argument("--loads", type=int, default=7)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
