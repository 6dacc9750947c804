"""What `up` keeps in Valkey: it comes over from `serve`, waits while Valkey is away, and is nobody else's."""

import asyncio
import json
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.e2e.conftest import NewServer, NewSite
from tests.e2e.test_crash import listed_once
from tests.e2e.test_up import refused
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.site import Site
from tests.support.talk import Talk
from tests.support.valkey import Valkey
from tests.support.wire import Json, connected, converse, new_id, spans


@pytest.mark.long
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_conversation_begun_under_serve_goes_on_under_up(new_site: NewSite, talk: Talk, end: str) -> None:
    """Nothing is lost, nothing doubled, by its token; after that `serve` keeps its hands off."""
    site = new_site()
    server = Server(site.data_dir)
    await asyncio.to_thread(server.start)
    try:
        key = server.key()
        undisturbed = await converse(server.url, key, talk.wire)
        conversation, token = new_id(), secrets.token_urlsafe(32)
        _, start, stop = spans(undisturbed.heard)[-1]
        cut = (start + stop) // 2
        async with connected(server.url, key, conversation, resume_token=token) as wire:
            await wire.until("ready")
            await wire.send(talk.wire[: 2 * cut], 3_200)
            await wire.until("utterance")
            await asyncio.to_thread(server.stop if end == "stop" else server.kill)
            await wire.until_closed()
    finally:
        await asyncio.to_thread(server.stop)
    await asyncio.to_thread(site.start)
    acked = max([0, *(event["offset"] for event in wire.of("ack"))])
    async with connected(site.url, key, conversation, resume_token=token, after_seq=wire.last_seq) as again:
        offset = (await again.until("ready"))["next_offset"]
        assert acked <= offset <= cut
        await again.send(talk.wire[2 * offset :], 3_200)
        ended = await again.end()
    events = [*wire.heard, *again.heard]
    assert spans(events) == spans(undisturbed.heard)
    assert ended["ledger"] == undisturbed.heard[-1]["ledger"]
    durable = [event["seq"] for event in events if "seq" in event]
    assert durable == list(range(1, len(durable) + 1))
    answered = sorted(event["utterance_id"] for event in events if event["type"] == "insights")
    assert answered == sorted(event["utterance_id"] for event in events if event["type"] == "utterance")
    await listed_once(site, conversation, events)
    async with connected(site.url, key, undisturbed.conversation_id, resume_token=undisturbed.token) as old:
        await old.until("ended")
    assert [event["seq"] for event in old.durable] == [event["seq"] for event in undisturbed.durable]
    await asyncio.to_thread(site.down)
    said = refused("serve", "--port", str(free_port()), "--data-dir", str(site.data_dir))
    assert "quickcomm up" in said


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.long
async def test_while_valkey_is_away_nothing_is_acked_and_all_comes_when_it_is_back(
    new_site: NewSite, talk: Talk
) -> None:
    site = new_site()
    await asyncio.to_thread(site.start)
    key = site.key()
    undisturbed = await converse(site.url, key, talk.wire)
    assert site.get("/v1/channels", "read").status == 200  # who reads is known, and stays so while the keys are away
    store = site.process("valkey").pid
    _, first, _ = spans(undisturbed.heard)[1]
    async with connected(site.url, key, new_id()) as wire:
        await wire.until("ready")
        await wire.send(talk.wire[: 2 * first], 3_200)
        await wire.until("utterance")
        with frozen(store):
            await wire.send(talk.wire[2 * first :], 3_200)
            await until_alarmed(site)
            await wire.hear_for(0.5)
            assert all(event["offset"] <= first for event in wire.of("ack"))
            assert len(wire.of("utterance")) == 1
            assert site.process("valkey").pid == store
        ended = await wire.end()
        await listed_once(site, wire.conversation_id, wire.heard)
    assert spans(wire.heard) == spans(undisturbed.heard)
    assert ended["ledger"] == undisturbed.heard[-1]["ledger"]


async def until_alarmed(site: Site) -> None:
    """The page is told that the store is away."""
    headers = {"Authorization": f"Bearer {site.key('read')}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{site.url}/v1/live", headers=headers, max_msg_size=0) as live,
        asyncio.timeout(60),
    ):
        async for message in live:
            if "bus.unavailable" in codes(json.loads(message.data)):
                return
    raise AssertionError("The page was sent away before there was an alarm.")


def codes(event: Json) -> set[str]:
    found = event.get("health", event).get("alarms") or []
    return {alarm["code"] for alarm in found}


@pytest.mark.long
def test_a_store_of_another_site_is_refused(new_site: NewSite, tmp_path: Path) -> None:
    store = Valkey(tmp_path / "store")
    store.start()
    try:
        first = new_site("--redis-url", store.url)
        first.start()
        first.down()
        where = ("--data-dir", str(tmp_path / "other"), "--port", str(free_port()))
        said = refused("up", "--redis-url", store.url, *where)
        assert "another site" in said
        assert "--new-store" in said
        assert not (tmp_path / "other" / "run").exists()
        first.start()
    finally:
        first.make_sure()
        store.stop()


async def test_a_monolith_alone_on_a_valkey(new_server: NewServer, talk: Talk, tmp_path: Path) -> None:
    """`redis_url` as a setting of `serve`: as under `up`, without the edge."""
    store = Valkey(tmp_path / "store")
    store.start()
    try:
        server = new_server(QUICKCOMM_REDIS_URL=store.url)
        wire = await converse(server.url, server.key(), talk.wire)
        await listed_once(server, wire.conversation_id, wire.heard)
        await asyncio.to_thread(server.stop)
    finally:
        store.stop()
