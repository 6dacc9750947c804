"""A browser for all tests of the page, and a hotel of its own for each."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ViewportSize, async_playwright, expect
from tests.support.page import PATIENCE_MS, Hotel, Place, Screen, chromium, launched, screen
from tests.support.server import Server

OpenScreen = Callable[[Place], Awaitable[Screen]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    executable = chromium()
    if executable is None:
        pytest.skip("needs a browser: no Chromium or Chrome is on the PATH (or named by QUICKCOMM_CHROMIUM)")
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        running = await launched(playwright, executable)
        yield running
        await running.close()


# The browser comes first, so that no server is started for tests that are skipped.
@pytest.fixture
def hotel(browser: Browser, server: Server) -> Hotel:
    assert browser.is_connected()
    return Hotel(server)


@pytest_asyncio.fixture(loop_scope="session")
async def open_screen(browser: Browser) -> AsyncIterator[OpenScreen]:
    """Opens browsers; at the end none of them may have complained about anything."""
    opened: list[Screen] = []
    async with AsyncExitStack() as stack:

        async def another(hotel: Place) -> Screen:
            viewport = ViewportSize(width=1280, height=900)
            opened.append(await stack.enter_async_context(screen(browser, hotel, viewport)))
            return opened[-1]

        yield another
    assert [error for each in opened for error in each.errors] == []


@pytest_asyncio.fixture(loop_scope="session")
async def manager(hotel: Hotel, open_screen: OpenScreen) -> Screen:
    """A page that is signed in with an admin key and live."""
    signed_in = await open_screen(hotel)
    await signed_in.sign_in()
    await expect(signed_in.get("connection")).to_have_attribute("data-state", "live")
    return signed_in
