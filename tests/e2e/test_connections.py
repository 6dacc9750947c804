"""What networks and clients do to connections: nothing is lost, nothing is doubled, nobody else suffers."""

import asyncio
import random
import secrets
import sqlite3
from contextlib import closing
from typing import Final

import aiohttp
import pytest
from tests.e2e.conftest import NewServer
from tests.support.proxy import Link, proxied
from tests.support.resuming import Heard, assert_as_undisturbed, assert_listed_once, stream
from tests.support.server import Server
from tests.support.talk import RATE, Talk
from tests.support.wire import Wire, balanced, connected, converse, drop, new_id, spans

from quickcomm.client.audio_client import Disconnected, Event
from quickcomm.client.options import Patience
from quickcomm.contracts.audio_socket import Utterance

HASTY: Final = Patience(first=0.01, longest=0.05, connect=2.0, heartbeat=1.0, give_up_after=120.0)


@pytest.fixture(scope="module")
def kept() -> dict[str, Heard]:
    return {}


async def undisturbed(server: Server, talk: Talk, kept: dict[str, Heard]) -> Heard:
    if "heard" not in kept:
        kept["heard"] = await stream(server.url, server.key(), talk.wire)
    return kept["heard"]


async def test_resets_at_every_utterance(server: Server, talk: Talk, kept: dict[str, Heard]) -> None:
    async with proxied(server.port) as proxy:

        def reset(event: Event) -> None:
            if isinstance(event, Utterance):
                proxy.links[-1].reset()

        heard = await stream(proxy.url, server.key(), talk.wire, reset, HASTY)
        assert len(proxy.links) > 1
    assert_as_undisturbed(heard, await undisturbed(server, talk, kept))
    await assert_listed_once(server, heard)


async def test_a_connection_that_flaps(server: Server, talk: Talk, kept: dict[str, Heard]) -> None:
    """Cut with a reset after a few hundred milliseconds of sound, again and again, and once in a while for nothing."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    chance = random.Random(seed)  # noqa: S311 - a test
    ends: dict[Link, int] = {}

    def cut(link: Link) -> None:
        last = ends.setdefault(link, chance.randint(500, 20_000))
        if link.sent > last:
            link.reset()

    async with proxied(server.port, cut) as proxy:
        heard = await stream(proxy.url, server.key(), talk.wire, patience=HASTY)
        assert len(proxy.links) > 30
    assert_as_undisturbed(heard, await undisturbed(server, talk, kept))
    await assert_listed_once(server, heard)


async def test_the_client_leaves_a_half_open_connection(server: Server, talk: Talk, kept: dict[str, Heard]) -> None:
    """Nothing passes and nobody says so: the client's heartbeat finds out, and the server serves the newer one."""

    def freeze(link: Link) -> None:
        if link is proxy.links[0] and link.sent > talk.samples:
            link.freeze()

    async with proxied(server.port, freeze) as proxy:
        heard = await stream(proxy.url, server.key(), talk.wire, patience=HASTY)
        assert len(proxy.links) > 1
    assert any(isinstance(event, Disconnected) for event in heard.events)
    assert_as_undisturbed(heard, await undisturbed(server, talk, kept))


async def test_what_comes_late_out_of_a_half_open_connection_counts_no_more(
    server: Server, talk: Talk, kept: dict[str, Heard]
) -> None:
    conversation, token = new_id(), secrets.token_urlsafe(32)
    async with (
        proxied(server.port) as proxy,
        connected(proxy.url, server.key(), conversation, resume_token=token) as older,
    ):
        await older.until("ready")
        await older.send(talk.wire[: 2 * RATE], 3_200)
        proxy.links[0].freeze()
        await older.send(talk.wire[2 * RATE : 6 * RATE], 3_200)
        async with connected(server.url, server.key(), conversation, resume_token=token) as newer:
            offset = (await newer.until("ready"))["next_offset"]
            proxy.links[0].thaw()
            error = await older.until("error")
            assert (error["code"], error["retryable"]) == ("audio.superseded", False)
            assert await older.until_closed() == 1008
            await newer.send(talk.wire[2 * offset :], 3_200)
            ended = await newer.end()
    before = await undisturbed(server, talk, kept)
    assert spans(newer.heard) == before.places
    assert [event["seq"] for event in newer.durable] == list(range(1, len(newer.durable) + 1))
    assert balanced(ended["ledger"])
    assert ended["ledger"]["received"] == talk.samples


async def test_ready_is_lost_on_the_way(server: Server, talk: Talk, kept: dict[str, Heard]) -> None:
    """The upgrade arrives, and then nothing: the server knows the conversation, the client only its own token."""

    def lose(link: Link) -> None:
        if link is proxy.links[0] and link.heard:
            link.reset()

    async with proxied(server.port, lose) as proxy:
        heard = await stream(proxy.url, server.key(), talk.wire, patience=HASTY)
        assert len(proxy.links) == 2
    assert_as_undisturbed(heard, await undisturbed(server, talk, kept))


async def test_an_old_owner_publishes_nothing(new_server: NewServer, talk: Talk) -> None:
    """Another process has taken the conversation over in the store: the client comes back, and loses nothing."""
    server = new_server()
    before = await converse(server.url, server.key(), talk.wire)
    (_, _, first), (_, second, _), *_ = spans(before.heard)
    middle = (first + second) // 2
    conversation, token = new_id(), secrets.token_urlsafe(32)
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(talk.wire[: 2 * middle], 3_200)
        await wire.until("insights")
        with closing(sqlite3.connect(server.data_dir / "quickcomm.sqlite")) as database, database:
            database.execute(
                "UPDATE audio_conversations SET epoch = epoch + 1 WHERE conversation_id = ?", (conversation,)
            )
        await wire.send(talk.wire[2 * middle :], 3_200)
        error = await wire.until("error")
        assert (error["code"], error["retryable"]) == ("audio.fenced", True)
        assert await wire.until_closed() == 1012
        assert len(wire.of("utterance")) == 1
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=0) as wire:
        offset = (await wire.until("ready"))["next_offset"]
        assert offset <= middle
        await wire.send(talk.wire[2 * offset :], 3_200)
        ended = await wire.end()
    assert [event["seq"] for event in wire.durable] == list(range(1, len(wire.durable) + 1))
    assert spans(wire.heard) == spans(before.heard)
    assert ended["ledger"] == before.heard[-1]["ledger"]


@pytest.mark.long
async def test_a_client_far_ahead_is_made_to_wait(new_server: NewServer, talk: Talk) -> None:
    """Somebody holds the database, so that nothing can be acked: the server stops reading, and goes on afterwards."""
    server = new_server(QUICKCOMM_AUDIO_MAX_UNACKED_MB="8")
    seconds = 1_500  # 48 MB: more than a window and all buffers on the way hold
    async with connected(server.url, server.key(), new_id()) as wire:
        window_s = (await wire.until("ready"))["max_unacked_ms"] / 1_000
        await wire.send(bytes(3 * 2 * RATE), 3_200)
        await wire.until("ack")
        with closing(sqlite3.connect(server.data_dir / "quickcomm.sqlite", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            acked = len(wire.of("ack"))
            sending = asyncio.create_task(wire.send(bytes(seconds * 2 * RATE), 2 * RATE))
            while not await unmoved(wire) and not sending.done():
                pass
            assert not sending.done(), "The server has read everything, though it could ack nothing."
            assert server.get("/healthz").status == 200
            assert len(wire.of("ack")) == acked
            database.execute("ROLLBACK")
        async with asyncio.TaskGroup() as tasks:
            hearing = tasks.create_task(wire.until_acked((seconds - int(window_s)) * RATE))
            await sending
            await hearing
        await wire.send(talk.wire, 3_200)
        ended = await wire.end()
    assert ended["ledger"]["received"] == (seconds + 3) * RATE + talk.samples
    assert balanced(ended["ledger"])
    assert len(wire.of("utterance")) >= talk.utterances - 1


async def unmoved(wire: Wire) -> bool:
    """Whether nothing has gone out for a second: the way is full. Taken too early, it only makes the test weaker."""
    transport = wire.socket._response.connection
    assert transport is not None
    assert transport.transport is not None
    assert isinstance(transport.transport, asyncio.WriteTransport)
    before = transport.transport.get_write_buffer_size()
    await asyncio.sleep(1.0)
    return 0 < before == transport.transport.get_write_buffer_size()


async def test_a_client_that_falls_silent_in_mid_speech(new_server: NewServer, talk: Talk) -> None:
    """After the grace what it said is published, connected or not; gone for longer, the conversation ends."""
    server = new_server(QUICKCOMM_AUDIO_INTERRUPTED_GRACE_S="1", QUICKCOMM_AUDIO_IDLE_LIMIT_S="2")
    before = await converse(server.url, server.key(), talk.wire)
    _, start, end = spans(before.heard)[0]
    conversation = new_id()
    async with connected(server.url, server.key(), conversation) as wire:
        await wire.until("ready")
        await wire.send(talk.wire[: 2 * (start + 3 * (end - start) // 4)], 3_200)
        utterance = await wire.until("utterance")
        assert utterance["text"]
        assert utterance["start_offset"] == start
    ended = await server.until(f"/v1/conversations/{conversation}", lambda found: found["state"] == "expired")
    assert all(balanced(ledger) for ledger in ended["ledgers"])


async def test_slower_than_real_time_changes_nothing(server: Server, talk: Talk, kept: dict[str, Heard]) -> None:
    """One frame and a bit at a time, waiting for the server between any two seconds."""
    async with connected(server.url, server.key(), new_id()) as wire:
        await wire.until("ready")
        sent = 0
        while sent < talk.samples:
            step = min(RATE // 2, talk.samples - sent)
            await wire.send(talk.wire[2 * sent : 2 * (sent + step)], 1_026)
            sent += step
            # A round trip through the server and its other sockets: it has had time for what it got.
            assert (await asyncio.to_thread(server.get, "/readyz")).status == 200
        ended = await wire.end()
    before = await undisturbed(server, talk, kept)
    assert spans(wire.heard) == before.places
    assert ended["ledger"]["received"] == talk.samples


async def test_a_client_that_never_reads(server: Server, talk: Talk, kept: dict[str, Heard]) -> None:
    conversation, token = new_id(), secrets.token_urlsafe(32)
    async with connected(server.url, server.key(), conversation, resume_token=token) as deaf:
        connection = deaf.socket._response.connection
        assert connection is not None
        assert isinstance(connection.transport, asyncio.ReadTransport)
        connection.transport.pause_reading()
        await deaf.send(talk.wire, 3_200)
        await deaf.say(type="end")
        await server.until(f"/v1/conversations/{conversation}", lambda found: found["state"] == "ended")
        drop(deaf)
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=0) as wire:
        ended = await wire.until("ended")
    before = await undisturbed(server, talk, kept)
    assert spans(wire.heard) == before.places
    assert ended["ledger"]["received"] == talk.samples


async def test_a_hundred_megabytes_announced(server: Server) -> None:
    """The length alone is enough to be sent away; nothing of it need come."""
    conversation, token = new_id(), "h" * 32
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        connection = wire.socket._response.connection
        assert connection is not None
        assert isinstance(connection.transport, asyncio.WriteTransport)
        header = bytes([0x82, 0xFF]) + (100 * 1024 * 1024).to_bytes(8, "big") + bytes(4)
        connection.transport.write(header)
        assert await wire.until_closed() == 1009
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.end()


@pytest.mark.parametrize("query", [{"sample_rate": 8_000}, {"encoding": "mulaw"}, {"channels": 2}], ids=str)
async def test_another_format_in_mid_conversation_is_refused(
    server: Server, talk: Talk, query: dict[str, object]
) -> None:
    conversation, token = new_id(), "f" * 32
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(talk.wire[: 4 * RATE], 3_200)
        async with connected(server.url, server.key(), conversation, resume_token=token, **query) as other:
            error = await other.until("error")
            assert (error["code"], error["retryable"]) == ("audio.invalid_request", False)
            assert await other.until_closed() == 1008
        ended = await wire.end()
    assert ended["ledger"]["received"] == 2 * RATE


async def test_ten_connections_fight_for_one_conversation(server: Server, talk: Talk, kept: dict[str, Heard]) -> None:
    """They all connect at once: one has it in the end, the others are told, and nothing is doubled."""
    conversation, token = new_id(), secrets.token_urlsafe(32)

    async def fight() -> bool:
        async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
            offset = (await wire.until("ready"))["next_offset"]
            try:
                await wire.send(talk.wire[2 * offset :], 3_200)
                await wire.say(type="end")
            except (ConnectionError, aiohttp.ClientError):
                pass
            await wire.until_closed()
            assert [event["code"] for event in wire.of("error")] in ([], ["audio.superseded"])
            return bool(wire.of("ended"))

    async with asyncio.TaskGroup() as tasks:
        fighting = [tasks.create_task(fight()) for _ in range(10)]
    assert any(task.result() for task in fighting)
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=0) as wire:
        ended = await wire.until("ended")
    before = await undisturbed(server, talk, kept)
    assert spans(wire.heard) == before.places
    assert ended["ledger"]["received"] == talk.samples
