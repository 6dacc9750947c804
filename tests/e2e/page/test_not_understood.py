"""What was not understood: a card that asks to listen, in plain words, above the columns, without a task."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from tests.e2e.page.conftest import OpenScreen
from tests.support.dashboard_site import Site, found, heard, insight, running

from quickcomm.contracts.insight import Evidence
from quickcomm.contracts.transcripts import Status, UtteranceTranscribed

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    assert browser.is_connected()
    path: Path = tmp_path_factory.mktemp("listen")
    async with running(path) as shared:
        yield shared


def guess(start: int, text: str, status: Status, *, ago_s: float) -> UtteranceTranscribed:
    at_ns = time.time_ns() - int(ago_s * 1e9)
    return msgspec.structs.replace(
        heard(start, text), status=status, confidence=0.2, spoken_at_ns=at_ns, speech_ended_ns=at_ns
    )


async def test_a_card_asks_to_listen(site: Site, open_screen: OpenScreen) -> None:
    foreign = guess(0, "and the evil boy", "not_english", ago_s=5)
    nothing = guess(16_000, "", "unintelligible", ago_s=4)
    old = guess(32_000, "in that coffee", "low_confidence", ago_s=3_600)
    danger = guess(48_000, "mumble fire mumble", "low_confidence", ago_s=3)
    unclear = msgspec.structs.replace(insight("unclear", department="none", summary="Listen"), urgency="low")
    fire = msgspec.structs.replace(
        insight("emergency", department="security", summary="Listen now: “fire” was heard, not confirmed"),
        urgency="critical",
        evidence=Evidence(urgency=("fire",)),
    )
    for message in (foreign, nothing, old):
        await site.publish(message, found(message, unclear, opens=False))
    await site.publish(danger, found(danger, fire))
    screen = await open_screen(site)
    await screen.sign_in("admin")

    above = screen.get("section-unclassified")
    card = above.locator(f'[data-utterance-id="{foreign.utterance_id}"]')
    await expect(card.get_by_test_id("card-listen")).to_contain_text("Please listen")
    await expect(card.get_by_test_id("card-listen")).to_contain_text("another language")
    await expect(card.get_by_test_id("card-words")).to_contain_text("and the evil boy")
    await expect(card.get_by_test_id("task-status")).to_have_count(0)
    await expect(card.get_by_test_id("card-confidence")).to_have_count(0)
    without = above.locator(f'[data-utterance-id="{nothing.utterance_id}"]')
    await expect(without.get_by_test_id("card-listen")).to_contain_text("no words were understood")

    await expect(screen.get("section-information").get_by_test_id("card-listen")).to_contain_text("not heard clearly")

    critical = screen.get("section-critical").get_by_test_id("card")
    await expect(critical.get_by_test_id("card-summary")).to_contain_text("not confirmed")
    await expect(critical.get_by_test_id("card-listen")).to_contain_text("Please listen")
    await expect(screen.get("open-count")).to_have_text("1")
