"""A channel that is behind says so on the page, and an emergency on it is seen before its card comes."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from tests.support.board import BoardScreen, board_screen
from tests.support.dashboard_site import START_NS, found, heard, insight

from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.conversations import ConversationChanged, Ledger

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

FIRE = "There is a fire in the laundry, send security."
LIVE = ConversationChanged(
    site="main",
    conversation_id="shift-1",
    channel="housekeeping",
    state="live",
    sample_rate=16_000,
    speakers=1,
    ledgers=(Ledger(),),
    at_ns=START_NS,
)


@pytest_asyncio.fixture(loop_scope="session")
async def screen(browser: Browser, tmp_path: Path) -> AsyncIterator[BoardScreen]:
    async with board_screen(browser, tmp_path) as shown:
        yield shown


def behind(behind_ms: int, site: str = "main") -> Behind:
    return Behind(site=site, conversation_id="shift-1", channel="housekeeping", behind_ms=behind_ms)


async def test_the_tile_of_a_channel_says_how_far_it_is_behind(screen: BoardScreen) -> None:
    captions = screen.site.captions
    await screen.site.publish(LIVE)
    tile = screen.get("channel-tile")
    await expect(tile).to_be_visible()
    captions.behind(behind(7_200))
    await expect(tile.get_by_test_id("channel-behind")).to_have_text("7 s behind")
    captions.behind(behind(30_000, site="elsewhere"))
    captions.behind(behind(4_000))
    await expect(tile.get_by_test_id("channel-behind")).to_have_text("4 s behind")
    captions.behind(behind(0))
    await expect(tile.get_by_test_id("channel-behind")).to_have_count(0)


async def test_a_card_that_waited_for_its_text_says_how_long(screen: BoardScreen) -> None:
    said = heard(480_000, "Four towels to 412.")
    late = msgspec.structs.replace(said, latency=msgspec.structs.replace(said.latency, stt=6_400.0))
    understood = found(late, insight("request_item", "412"))
    await screen.site.publish(late, msgspec.structs.replace(understood, latency=late.latency))
    await expect(screen.card(late.utterance_id).get_by_test_id("card-behind")).to_have_text("6 s behind")
    [timely] = await screen.arrived("normal")
    await expect(screen.card(timely).get_by_test_id("card-behind")).to_have_count(0)


async def test_an_emergency_that_is_not_confirmed_is_shown_as_such_until_its_card_is(screen: BoardScreen) -> None:
    said = heard(96_000, FIRE)
    ahead = Caption(
        site="main",
        conversation_id=said.conversation_id,
        channel=said.channel,
        speaker=0,
        start_offset=said.start_offset,
        text=FIRE,
        utterance_id=said.utterance_id,
        emergency=True,
    )
    await screen.site.publish(LIVE)
    screen.site.captions.caption(ahead)
    bar = screen.get("critical-bar")
    await expect(bar).to_have_attribute("data-unconfirmed", "true")
    await expect(bar.get_by_test_id("critical-words")).to_contain_text("Not confirmed, Housekeeping")
    await expect(bar.get_by_test_id("critical-words")).to_contain_text(FIRE)
    await expect(screen.get("announce")).to_contain_text("not confirmed")
    await expect(screen.get("caption")).to_contain_text("There is a fire")
    danger = msgspec.structs.replace(
        insight("emergency", department="security", summary="Fire in the laundry"), urgency="critical"
    )
    await screen.site.publish(said, found(said, danger))
    await expect(bar).to_have_attribute("data-unconfirmed", "false")
    await expect(bar.get_by_test_id("critical-words")).to_contain_text("Fire in the laundry")
    await expect(bar).to_have_attribute("data-count", "1")
