"""`kill -9` while somebody speaks and somebody looks: the page comes back by itself, complete, with nothing doubled."""

import asyncio

import pytest
from playwright.async_api import expect
from tests.e2e.conftest import NewServer
from tests.e2e.page.conftest import OpenScreen
from tests.support.page import Hotel, Screen

from quickcomm.contracts.audio_socket import Utterance

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_the_server_is_killed_and_comes_back(new_server: NewServer, open_screen: OpenScreen) -> None:
    hotel = Hotel(await asyncio.to_thread(new_server))
    screen = await open_screen(hotel)
    await screen.sign_in()
    [before] = await hotel.say("housekeeping", "two extra bath towels")
    task = screen.card(before).get_by_test_id("task")
    await task.get_by_test_id("acknowledge").click()
    await expect(task.get_by_test_id("acknowledge")).to_have_count(0)
    await expect(task).to_have_attribute("aria-busy", "false")
    await screen.page.mouse.move(0, 0)  # a mouse that rests on the column would keep new cards waiting
    said = [before, *await killed_while_speaking(hotel, screen)]
    await expect(screen.get("connection")).to_have_attribute("data-state", "live")
    await expect(screen.get("connection-lost")).to_have_count(0)
    for utterance in said:
        await expect(screen.card(utterance)).to_have_count(1)
        await expect(screen.card(utterance)).not_to_have_attribute("data-revision", "0")
    assert len(said) == 4
    assert sorted(await screen.card_ids()) == sorted(await hotel.utterance_ids())
    await expect(task).to_have_attribute("data-status", "acknowledged")
    screen.forgive("WebSocket connection to|ERR_CONNECTION_REFUSED|Failed to load resource")


async def killed_while_speaking(hotel: Hotel, screen: Screen) -> list[Utterance]:
    """The first utterance comes before, the next one is spoken while there is no server."""
    heard = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        speaking = tasks.create_task(
            hotel.say(
                "front-desk",
                "pick up the luggage",
                "in 915 is very upset",
                "taxi to the airport",
                paced=True,
                first=heard,
            )
        )
        await heard.wait()
        await expect(screen.get("card")).to_have_count(2)
        await asyncio.to_thread(hotel.server.kill)
        if not hotel.server.comes_back:  # else the page may be live again before it has anything to say
            await expect(screen.get("connection-lost")).to_be_visible()
        await asyncio.to_thread(hotel.server.start)
    return speaking.result()
