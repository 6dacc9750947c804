"""A real server with a language model that hangs, fails, dies and comes back: nothing is lost, and all is made good."""

import asyncio
import contextlib
import json
import signal
from typing import Any

import pytest
from tests.e2e.conftest import NewServer
from tests.support.llm import FakeLlm, fake_llm
from tests.support.llm import said as said_in
from tests.support.server import EVENTUALLY_S, Server, quickcomm
from tests.support.talk import Talk
from tests.support.wire import converse

Json = dict[str, Any]
NOTHING_KEPT = "0.000000001"
"""The same is said in each round, and the cache would know it."""
SECRET = "a-key-that-nobody-may-see"


def status(server: Server) -> Json:
    """Of the one process. Exits with 1 while the model is away, which is no failure here."""
    [line] = quickcomm("status", "--json", "--data-dir", str(server.data_dir), statuses=(0, 1)).splitlines()
    told: Json = json.loads(line)
    return told


async def until_state(server: Server, state: str) -> Json:
    async with asyncio.timeout(EVENTUALLY_S):
        while (told := await asyncio.to_thread(status, server))["llm"]["state"] != state:
            pass
    return told


async def cards(server: Server, conversation: str, holds: Any) -> list[Json]:
    """The conversation's cards, once each of them is as it should be."""
    path = f"/v1/utterances?conversation={conversation}&limit=100"
    body = await server.until(
        path, lambda body: bool(body["items"]) and all(item["insights"] and holds(item) for item in body["items"])
    )
    items: list[Json] = body["items"]
    return items


def by_model(card: Json) -> bool:
    return all(one["source"] == "llm" and not one["degraded"] for one in card["insights"])


def by_stand_in(card: Json) -> bool:
    return all(one["source"] == "local" and one["degraded"] for one in card["insights"])


def revisions(items: list[Json]) -> set[int]:
    return {one["revision"] for item in items for one in item["insights"]}


async def break_it(fake: FakeLlm, fault: str) -> None:
    if fault == "dead":
        await fake.stop()
    fake.mode = fault


async def mend(fake: FakeLlm, fault: str) -> None:
    fake.mode = "answer"
    if fault == "dead":
        await fake.start()


@pytest.mark.long
async def test_a_model_that_fails_in_every_way_loses_nobody_anything(new_server: NewServer, talk: Talk) -> None:
    async with fake_llm() as fake:
        settings = {"QUICKCOMM_LLM_KEY": SECRET, "QUICKCOMM_ANSWERS_TTL_HOURS": NOTHING_KEPT}
        server = await asyncio.to_thread(lambda: new_server("--llm-url", fake.url, **settings))
        said = await converse(server.url, server.key(), talk.wire)
        items = await cards(server, said.conversation_id, by_model)
        assert len(items) == len(said.of("utterance"))
        assert {one["model"] for item in items for one in item["insights"]} == {"fake-1"}
        assert (await until_state(server, "up"))["healthy"]

        for fault in ("hang", "500", "garbage", "dead"):
            fake.mode = "answer"
            await break_it(fake, fault)
            said = await converse(server.url, server.key(), talk.wire, channel=fault)
            told = await until_state(server, "degraded")
            assert not told["healthy"]
            assert [alarm["code"] for alarm in told["alarms"]] == ["language_model"]
            assert told["llm"]["why"].endswith("answers come from the local classifier and will be renewed.")
            items = await cards(server, said.conversation_id, by_stand_in)
            assert len(items) == len(said.of("utterance")), f"{fault}: every utterance is classified"
            receipts = {item["utterance_id"]: item["latency_ms"]["total"] for item in items}

            await mend(fake, fault)
            items = await cards(server, said.conversation_id, by_model)
            assert revisions(items) == {2}
            assert {item["utterance_id"]: item["latency_ms"]["total"] for item in items} == receipts
            await until_state(server, "up")
        assert fake.headers[-1]["Authorization"] == f"Bearer {SECRET}"
        assert SECRET not in server.log
        texts = set(filter(None, map(said_in, fake.calls)))
        assert len(texts) >= talk.utterances
        assert [text for text in texts if text in server.log] == []


@pytest.mark.long
async def test_killed_while_renewing_nothing_is_lost_or_doubled(new_server: NewServer, talk: Talk) -> None:
    async with fake_llm() as fake:
        fake.mode = "401"
        server = await asyncio.to_thread(new_server, "--llm-url", fake.url)
        said = await converse(server.url, server.key(), talk.wire)
        await cards(server, said.conversation_id, by_stand_in)
        fake.calls.clear()
        fake.mode = "answer"
        async with asyncio.timeout(EVENTUALLY_S):
            while not fake.calls:  # noqa: ASYNC110 - the endpoint has no event for it
                await asyncio.sleep(0)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        items = await cards(server, said.conversation_id, by_model)
        assert len(items) == len(said.of("utterance"))
        assert revisions(items) == {2}


@pytest.mark.long
async def test_ctrl_c_while_the_model_hangs(new_server: NewServer, talk: Talk) -> None:
    async with fake_llm() as fake:
        server = await asyncio.to_thread(new_server, "--llm-url", fake.url)
        async with asyncio.timeout(EVENTUALLY_S):
            while not fake.probes:  # noqa: ASYNC110 - the endpoint has no event for it
                await asyncio.sleep(0.01)
        fake.mode = "hang"
        talking = asyncio.ensure_future(converse(server.url, server.key(), talk.wire))
        async with asyncio.timeout(EVENTUALLY_S):
            while not fake.calls:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        server.terminate(signal.SIGINT)
        assert await asyncio.to_thread(server.wait) == 0
        talking.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await talking
        fake.mode = "answer"
        await asyncio.to_thread(server.start)
        body = await server.until("/v1/utterances", lambda body: bool(body["items"]))
        for conversation in {item["conversation_id"] for item in body["items"]}:
            await cards(server, conversation, by_model)


def test_without_a_model_it_says_so(server: Server) -> None:
    told = status(server)
    assert told["llm"]["state"] == "off"
    assert told["llm"]["why"] == "No language model is connected; the local classifier answers."
    assert told["healthy"]


@pytest.mark.parametrize("url", ["localhost:8000", "nonsense", "ftp://x"])
def test_a_bad_address_is_told(tmp_path: Any, url: str) -> None:
    told = quickcomm("serve", "--llm-url", url, "--data-dir", str(tmp_path / "data"), statuses=(1,), errors=True)
    assert "--llm-url" in told
    assert "Traceback" not in told
