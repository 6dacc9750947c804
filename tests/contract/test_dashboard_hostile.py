"""Transcripts and insights that mean ill: kept as they are, given back as they are, and never anything but text."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.support.dashboard_site import Site, events, heard, insight, running
from tests.support.hostile import TEXTS, UNPRINTABLE

EVERYTHING = TEXTS | UNPRINTABLE


@pytest.fixture
async def site(tmp_path: Path, store: Path | str) -> AsyncIterator[Site]:
    async with running(tmp_path, store=store) as site:
        yield site


@pytest.mark.parametrize("name", EVERYTHING)
async def test_what_was_said_is_only_text(site: Site, name: str) -> None:
    text = EVERYTHING[name]
    spoken = heard(0, f"swordfish {text}", channel=text)
    async with site.live() as live:
        await events(live, "hello")
        await site.say(spoken, insight("repair", text, summary=text[:80], department=text))
        card = (await events(live, "card"))["card"]
        while not card["insights"]:
            card = (await events(live, "card"))["card"]
    await site.say(heard(16_000, "another one"), insight("repair", "5"))
    assert card["text"] == f"swordfish {text}"
    assert card["insights"][0]["rooms"] == [text]
    for query in ({"query": "swordfish"}, {"query": "swordfish", "channel": text}, {"query": "sword"}):
        if "\x00" in query.get("channel", ""):
            continue  # refused as what is no text
        [found] = (await site.get("/v1/utterances", query))["items"]
        assert found["text"] == card["text"]
    await site.get("/v1/utterances", {"query": text.replace("\x00", "")})
    [mine] = [task for task in (await site.get("/v1/tasks"))["items"] if task["rooms"] == [text]]
    assert mine["summary"] == text[:80]
    await site.post(f"/v1/tasks/{quote(mine['task_id'])}/complete")
    assert len((await site.get("/v1/utterances"))["items"]) == 2


@pytest.mark.parametrize("name", TEXTS)
async def test_ids_in_addresses_are_only_text(site: Site, name: str) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    encoded = quote(TEXTS[name], safe="")
    for path in (f"/v1/utterances/{encoded}", f"/v1/conversations/{encoded}"):
        async with site.http.get(site.url + path, headers=site.headers()) as answer:
            assert answer.status == 404
            assert answer.content_type == "application/problem+json"
    await site.post(f"/v1/tasks/{encoded}/complete", expect=404)
    assert len((await site.get("/v1/utterances"))["items"]) == 1
