"""`WS /v1/live`: what is said is on the page while it is said, and never without a key."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.server import Server
from tests.support.talk import Talk
from tests.support.wire import converse, new_id

Json = dict[str, Any]
VALUES: st.SearchStrategy[Any] = (
    st.none() | st.integers() | st.floats() | st.text(max_size=10) | st.lists(st.text(max_size=5), max_size=3)
)


async def test_cards_come_as_they_are_made(server: Server, talk: Talk) -> None:
    conversation = new_id("live")
    said: dict[str, list[Json]] = {}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{server.url}/v1/live", headers={"Authorization": f"Bearer {server.key('read')}"}, max_msg_size=0
        ) as live,
        asyncio.TaskGroup() as tasks,
    ):
        talking = tasks.create_task(
            converse(server.url, server.key(), talk.wire, conversation_id=conversation, channel="live")
        )
        async with asyncio.timeout(60):
            while not talking.done() or not complete(said, talking.result().of("utterance")):
                message = await live.receive()
                assert message.type is aiohttp.WSMsgType.TEXT, message
                event = json.loads(message.data)
                assert isinstance(event["type"], str)
                for card in cards_in(event, conversation):
                    said.setdefault(card["utterance_id"], []).append(card)
    for utterance in talking.result().of("utterance"):
        last = said[utterance["utterance_id"]][-1]
        assert last["text"] == utterance["text"]
        assert last["channel"] == "live"


def complete(said: dict[str, list[Json]], utterances: list[Json]) -> bool:
    return all(any(card["insights"] for card in said.get(each["utterance_id"], [])) for each in utterances)


def cards_in(event: object, conversation: str) -> list[Json]:
    """Cards wherever they stand in a message: alone, or several at once after connecting."""
    if isinstance(event, dict):
        if event.get("conversation_id") == conversation and "insights" in event and "text" in event:
            return [event]
        return [card for value in event.values() for card in cards_in(value, conversation)]
    if isinstance(event, list):
        return [card for value in event for card in cards_in(value, conversation)]
    return []


@pytest.mark.parametrize("key", [None, "nonsense", "ingest"])
async def test_nobody_looks_without_a_key_that_reads(server: Server, key: str | None) -> None:
    secret = server.key("ingest") if key == "ingest" else key
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{server.url}/v1/live", headers=headers)
    assert caught.value.status in {401, 403}


async def test_rubbish_from_a_page_does_no_harm(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.key('read')}"}
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{server.url}/v1/live", headers=headers) as live:
            deep = '{"type":"watch","x":' + "[" * 7_000 + "]" * 7_000 + "}"
            for rubbish in ("no JSON", "[]", "{}", '{"type":"painted"}', '{"type":"dance"}', deep):
                await live.send_str(rubbish)
            await live.send_bytes(bytes(100))
        async with session.ws_connect(f"{server.url}/v1/live", headers=headers) as live:
            message = await asyncio.wait_for(live.receive(), 10)
            assert message.type is aiohttp.WSMsgType.TEXT
    assert server.get("/readyz").status == 200


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.lists(
        st.text(max_size=100)
        | st.binary(max_size=100)
        | st.fixed_dictionaries(
            {"type": st.sampled_from(["watch", "painted"])},
            optional={"channels": VALUES, "utterance_id": VALUES, "revision": VALUES, "painted_ms": VALUES},
        ).map(json.dumps),
        min_size=1,
        max_size=25,
    )
)
async def test_a_page_may_say_anything(server: Server, messages: list[str | bytes]) -> None:
    """Each message is understood, or answered with an error; after too many of those the page must go."""
    headers = {"Authorization": f"Bearer {server.key('read')}"}
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/v1/live", headers=headers) as live:
        for message in messages:
            if isinstance(message, str):
                await live.send_str(message)
            else:
                await live.send_bytes(message)
        await live.send_str("no message")
        while (heard := await asyncio.wait_for(live.receive(), 30)).type is aiohttp.WSMsgType.TEXT:
            event = json.loads(heard.data)
            if event["type"] == "error":
                assert event["code"] == "live.malformed"
                break
        else:
            # Who is still sending when the server closes may lose the code with the connection.
            assert len(messages) >= 19
            assert live.close_code in {1006, 1008}
    assert server.get("/healthz").status == 200
