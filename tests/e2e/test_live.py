"""`WS /v1/live`: what is said is on the page while it is said, and never without a key."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import WSCloseCode
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.e2e.conftest import NewServer
from tests.support.deployment import DEPLOYMENT
from tests.support.examples import examples
from tests.support.onlooker import onlooking
from tests.support.server import Server
from tests.support.talk import Talk
from tests.support.wire import converse, new_id

VALUES: st.SearchStrategy[Any] = (
    st.none() | st.integers() | st.floats() | st.text(max_size=10) | st.lists(st.text(max_size=5), max_size=3)
)


async def test_cards_come_as_they_are_made(server: Server, talk: Talk) -> None:
    conversation = new_id("live")
    async with onlooking(server) as page:
        wire = await converse(server.url, server.key(), talk.wire, conversation_id=conversation, channel="live")
        said = wire.of("utterance")
        await page.until(lambda one: all(one.classified(each["utterance_id"]) for each in said))
    for utterance in said:
        card = page.cards[utterance["utterance_id"]]
        assert (card["text"], card["channel"]) == (utterance["text"], "live")


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
    while (code := await closed_with(server, messages)) == WSCloseCode.SERVICE_RESTART:
        pass  # the page was sent to the other side meanwhile
    if code is not None:
        # Who is still sending when the server closes may lose the code with the connection.
        assert len(messages) >= 19
        assert code in {1006, 1008}
    assert server.get("/healthz").status == 200


async def closed_with(server: Server, messages: list[str | bytes]) -> int | None:
    """Say all that as a page; return the code with which it is closed, None where the last message is answered."""
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
                return None
        return live.close_code


@pytest.mark.skipif(DEPLOYMENT != "serve", reason="ends the one process")
async def test_a_page_is_told_that_the_server_leaves(new_server: NewServer) -> None:
    """1001, and not a broken connection: the page waits for it instead of telling of a fault."""
    server = new_server()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/v1/live?key={server.key('read')}") as live,
    ):
        assert (await live.receive_json())["type"] == "hello"
        server.terminate()
        async with asyncio.timeout(30):
            while (await live.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        assert live.close_code == 1001
    server.wait()
