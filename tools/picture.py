"""Takes the README's picture of the page: `make picture`, or `python -m tools.picture --url LINK` from a running demo.

Without --url a demo is started, and left when the picture is taken. Needs Chromium (QUICKCOMM_CHROMIUM names it).
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from playwright.async_api import Page, async_playwright
from tests.support.page import chromium, launched

PICTURE: Final = Path(__file__).parents[1] / "docs/images/page.png"
SIZE: Final = {"width": 1440, "height": 900}
CARDS: Final = 16
SHIFT_MS: Final = 300_000.0


async def take(link: str, to: Path) -> None:
    """Open the page by its sign-in link, wait for a telling moment, save a PNG."""
    executable = chromium()
    if executable is None:
        sys.exit("There is no Chromium here. Install one, or name it in QUICKCOMM_CHROMIUM.")
    async with async_playwright() as playwright:
        browser = await launched(playwright, executable)
        page = await browser.new_page(viewport={"width": SIZE["width"], "height": SIZE["height"]})
        await page.goto(link)
        await _telling_moment(page)
        await page.screenshot(path=to)
        await browser.close()


async def _telling_moment(page: Page) -> None:
    """An emergency and some work are there, and somebody is being heard just now."""
    cards = page.get_by_test_id("card")
    await cards.nth(CARDS - 1).wait_for(state="attached", timeout=SHIFT_MS)
    await page.locator('[data-testid="card"][data-urgency="critical"]').first.wait_for(timeout=SHIFT_MS)
    talking = page.locator('[data-testid="channel-tile"][data-state="talking"] [data-testid="caption"]')
    await talking.filter(has_text=" ").first.wait_for(timeout=SHIFT_MS)


@contextlib.asynccontextmanager
async def demo() -> AsyncIterator[str]:
    """Run a demo; gives the link that it prints."""
    quickcomm = str(Path(sys.executable).with_name("quickcomm"))
    process = await asyncio.create_subprocess_exec(
        *(quickcomm, "demo", "--port", "0"), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None  # noqa: S101 - it was asked for
    first = (await process.stdout.readline()).decode()
    reading = asyncio.ensure_future(process.stdout.read())  # else the demo would wait for a reader
    try:
        yield first.split()[-1]
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()
        await reading


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="Sign-in link of a running demo [default: start one].")
    parser.add_argument("--to", type=Path, default=PICTURE)
    given = parser.parse_args()
    if given.url:
        await take(given.url, given.to)
    else:
        async with demo() as link:
            await take(link, given.to)
    sys.stdout.write(f"{given.to}\n")


if __name__ == "__main__":
    asyncio.run(main())
