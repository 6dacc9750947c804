"""A real server that pays for a model: what it costs, when it is too much, and what it writes beside the cards."""

import asyncio
import json
from typing import Any

import pytest
from tests.e2e.conftest import NewServer
from tests.support.llm import TOKENS, fake_llm
from tests.support.server import Server, quickcomm
from tests.support.talk import Talk
from tests.support.wire import converse

Json = dict[str, Any]
CAP = 3 * 52
"""Three calls: one finds out at the start whether the model is there."""
PRICES = {"QUICKCOMM_USAGE_PROMPT_PRICE": "1", "QUICKCOMM_USAGE_COMPLETION_PRICE": "10"}


async def sources(server: Server, conversation: str) -> set[str]:
    """Who classified it, once all of it is."""
    path = f"/v1/utterances?conversation={conversation}&limit=100"
    body = await server.until(
        path, lambda body: bool(body["items"]) and all(card["insights"] for card in body["items"])
    )
    return {insight["source"] for card in body["items"] for insight in card["insights"]}


@pytest.mark.long
async def test_a_model_is_paid_for_and_writes_summaries_and_reports(new_server: NewServer, talk: Talk) -> None:
    async with fake_llm() as fake:
        server = await asyncio.to_thread(new_server, "--llm-url", fake.url, **PRICES)
        said = await converse(server.url, server.key(), talk.wire)
        assert await sources(server, said.conversation_id) == {"llm"}
        body = await server.until(
            f"/v1/conversations/{said.conversation_id}", lambda body: (body["summary"] or {}).get("source") == "llm"
        )
        assert body["summary"]["text"] == "They talked about their work."
        report = (await asyncio.to_thread(server.get, "/v1/reports/shift", "read")).json()
        assert report["utterances"] == len(said.of("utterance"))
        assert report["narrative"] == {"text": "A quiet shift.", "source": "llm"}
        usage = (await asyncio.to_thread(server.get, "/v1/usage", "read")).json()
    [spent] = [each for each in usage["conversations"] if each["conversation_id"] == said.conversation_id]
    assert usage["state"] == "none"
    assert usage["today"]["prompt_tokens"] == usage["today"]["calls"] * TOKENS["prompt_tokens"]
    assert usage["today"]["cost"] == round(usage["today"]["calls"] * (40 * 1 + 12 * 10) / 1e6, 9)
    assert 1 < spent["calls"] < usage["today"]["calls"]


@pytest.mark.long
async def test_a_cap_falls_back_and_holds_after_a_kill(new_server: NewServer, talk: Talk) -> None:
    async with fake_llm() as fake:
        server = await asyncio.to_thread(new_server, "--llm-url", fake.url, QUICKCOMM_USAGE_DAILY_TOKENS=str(CAP))
        said = await converse(server.url, server.key(), talk.wire)
        assert "llm" in await sources(server, said.conversation_id)
        # Asking writes down what was counted.
        await server.until("/v1/usage", lambda body: body["state"] == "reached")
        calls = len(fake.calls)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        usage = (await asyncio.to_thread(server.get, "/v1/usage", "read")).json()
        assert (usage["state"], usage["cap"]["tokens"]) == ("reached", CAP)
        again = await converse(server.url, server.key(), talk.wire)
        assert len(again.of("insights")) == len(again.of("utterance"))
        body = await server.until(
            f"/v1/conversations/{again.conversation_id}", lambda body: body["summary"] is not None
        )
        assert body["summary"]["source"] == "local"
        assert [call for call in fake.calls[calls:] if "response_format" in call] == []


async def test_the_shift_on_the_command_line(new_server: NewServer, talk: Talk) -> None:
    server = await asyncio.to_thread(new_server)
    said = await converse(server.url, server.key(), talk.wire)
    await sources(server, said.conversation_id)
    place = ("--data-dir", str(server.data_dir))
    report = json.loads(await asyncio.to_thread(quickcomm, "report", "--json", *place))
    assert report["utterances"] == len(said.of("utterance"))
    printed = await asyncio.to_thread(quickcomm, "report", "--since", "1", *place)
    assert printed.startswith(f"In 1 h, {report['utterances']} utterance")
    for one in report["open"]:
        assert one["task"]["summary"] in printed
    refused = await asyncio.to_thread(quickcomm, "report", "--since", "-1", *place, statuses=(2,), errors=True)
    assert "range" in refused
