"""Utterances that come past the stream: on the page at once, stored once, and never before what was said before."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest_asyncio
import sqlalchemy as sa
from tests.support.dashboard_site import Site, events, found, heard, insight, running

from quickcomm.contracts.link import FIRST, Committed
from quickcomm.contracts.transcripts import UtteranceTranscribed


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(tmp_path) as made:
        yield made


def committed(message: UtteranceTranscribed, after: str = FIRST) -> Committed:
    return Committed(message=message, after=after)


async def directly(site: Site, *finals: Committed) -> None:
    await site.dashboard._service.committed(finals)


async def cards(site: Site) -> list[str]:
    return [card["utterance_id"] for card in (await site.get("/v1/utterances"))["items"]]


async def test_a_card_is_there_before_the_stream_brings_it_and_once_after_that(site: Site) -> None:
    first = heard(0, "Towels to 412")
    async with site.live() as live:
        await events(live, "hello")
        await directly(site, committed(first))
        card = (await events(live, "card"))["card"]
        assert (card["utterance_id"], card["insights"]) == (first.utterance_id, [])
        await site.publish(first, found(first, insight("request_item", "412")))
        card = (await events(live, "card"))["card"]
        assert [each["rooms"] for each in card["insights"]] == [["412"]]
        async with asyncio.timeout(10):
            latency = (await site.receipts.get()).latency
    assert latency.total is not None
    assert await cards(site) == [first.utterance_id]
    assert await counted(site) == (1, 1)


async def counted(site: Site) -> tuple[int, int]:
    """Utterances stored, and how many its conversation has by its own count."""

    def count(connection: sa.Connection) -> tuple[int, int]:
        stored = connection.execute(sa.text("SELECT count(*) FROM dashboard_utterances")).scalar_one()
        said = connection.execute(sa.text("SELECT utterances FROM dashboard_conversations")).scalar_one()
        return int(stored), int(said)

    return await site.database.read(count)


async def test_the_same_again_by_either_way_changes_nothing(site: Site) -> None:
    first = heard(0, "Towels to 412")
    await site.say(first, insight("request_item", "412"))
    before: Any = await site.get("/v1/utterances")
    async with asyncio.timeout(10):
        while before["items"][0]["latency_ms"]["total"] is None:  # the receipt is stored after it is told
            before = await site.get("/v1/utterances")
    await directly(site, committed(first), committed(first))
    await directly(site, committed(msgspec.structs.replace(first, text="Something else")))
    assert await site.get("/v1/utterances") == before
    assert await counted(site) == (1, 1)


async def test_nothing_overtakes_what_was_said_before_it(site: Site) -> None:
    """The second comes directly, the first is still in the stream: the second waits for the stream, too."""
    first, second, third = (heard(16_000 * number, f"Number {number}") for number in range(3))
    await directly(site, committed(second, first.utterance_id), committed(third, second.utterance_id))
    assert await cards(site) == []
    await site.publish(first)
    async with asyncio.timeout(10):
        while await cards(site) != [first.utterance_id]:
            pass
    await directly(site, committed(second, first.utterance_id), committed(third, second.utterance_id))
    assert await cards(site) == [each.utterance_id for each in (third, second, first)]


async def test_another_site_may_have_the_same_ids(site: Site) -> None:
    here, there = heard(0, "Here"), heard(0, "There", site="elsewhere")
    second = heard(16_000, "Here again")
    await directly(site, committed(there), committed(second, here.utterance_id))
    assert await cards(site) == []
    await directly(site, committed(here), committed(second, here.utterance_id))
    assert await cards(site) == [second.utterance_id, here.utterance_id]
