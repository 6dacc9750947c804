"""Resuming: a connection that breaks costs nothing, and nobody gets into a conversation without its token."""

import asyncio
import contextlib
import random
import secrets

import pytest
from tests.support.server import Server
from tests.support.talk import RATE, Talk
from tests.support.wire import Json, Wire, balanced, connected, converse, new_id, spans

TOKEN = secrets.token_urlsafe(32)


async def test_a_drop_in_mid_talk_changes_no_utterance(server: Server, talk: Talk) -> None:
    undisturbed = await converse(server.url, server.key(), talk.wire)
    conversation = new_id()
    events: list[Json] = []
    chance, offsets, sent = random.Random(5), [], 0  # noqa: S311 - a test
    last_seq = 0
    for attempt in range(5):
        async with connected(server.url, server.key(), conversation, resume_token=TOKEN, after_seq=last_seq) as wire:
            ready = await wire.until("ready")
            offset = ready["next_offset"]
            offsets.append(offset)
            assert max([0, *(e["offset"] for e in events if e["type"] == "ack")]) <= offset <= sent
            if attempt == 4:
                await wire.send(talk.wire[2 * offset :], 3_200)
                ended = await wire.end()
            else:
                sent = max(sent, int(talk.samples * (attempt + 1) / 5) + chance.randint(-4_000, 4_000))
                await wire.send(talk.wire[2 * offset : 2 * sent], 3_200)
                await wire.hear_for(1.5)
            events += wire.heard
            last_seq = max(last_seq, wire.last_seq)
    assert spans(events) == spans(undisturbed.heard)
    assert ended["ledger"] == undisturbed.heard[-1]["ledger"]
    durable = [event["seq"] for event in events if "seq" in event]
    assert durable == list(range(1, len(durable) + 1))
    assert any(offset > 0 for offset in offsets)


async def test_next_offset_is_on_one_grid(server: Server, talk: Talk) -> None:
    """Frames of 32 ms: 512 samples at 16 kHz."""
    for cut in (RATE + 1, 2 * RATE + 333, 5 * RATE + 511):
        conversation = new_id()
        async with connected(server.url, server.key(), conversation, resume_token=TOKEN) as wire:
            await wire.until("ready")
            await wire.send(talk.wire[: 2 * cut], 3_200)
            await wire.hear_for(1.5)
        async with connected(server.url, server.key(), conversation, resume_token=TOKEN) as wire:
            assert (await wire.until("ready"))["next_offset"] % 512 == 0


async def test_events_after_seq_are_sent_again_in_order(server: Server, talk: Talk) -> None:
    conversation = new_id()
    async with connected(server.url, server.key(), conversation, resume_token=TOKEN) as first:
        await first.until("ready")
        await first.send(talk.wire, 3_200)
        await first.until("insights")
        await first.until("insights")
    known = first.durable
    for after in (0, 1, known[-1]["seq"] - 1):
        async with connected(server.url, server.key(), conversation, resume_token=TOKEN, after_seq=after) as again:
            while again.last_seq < known[-1]["seq"]:
                assert await again.hear() is not None
        replayed = again.durable[: len(known) - after]
        assert [event["seq"] for event in replayed] == [event["seq"] for event in known[after:]]
        assert [identity(event) for event in replayed] == [identity(event) for event in known[after:]]


def identity(event: Json) -> tuple[object, ...]:
    return (event["type"], event["seq"], event["utterance_id"], event.get("text"))


async def test_the_token_holds_even_if_ready_was_lost(server: Server, talk: Talk) -> None:
    conversation = new_id()
    async with connected(server.url, server.key(), conversation, resume_token=TOKEN):
        pass  # gone before it has read anything
    wire = await converse(server.url, server.key(), talk.wire, conversation_id=conversation, resume_token=TOKEN)
    assert wire.heard[0]["next_offset"] == 0
    assert wire.heard[-1]["ledger"]["received"] == talk.samples


async def test_the_server_chooses_a_token_where_the_client_does_not(server: Server) -> None:
    conversation = new_id()
    async with connected(server.url, server.key(), conversation) as wire:
        token = (await wire.until("ready"))["resume_token"]
    assert len(token) >= 22  # 128 bit, however they are written
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        assert (await wire.until("ready"))["resume_token"] == token
        await wire.end()


@pytest.mark.parametrize("token", [{}, {"resume_token": "x" * 43}, {"resume_token": ""}], ids=str)
async def test_nobody_gets_in_without_the_token(server: Server, talk: Talk, token: dict[str, str]) -> None:
    conversation = new_id()
    async with connected(server.url, server.key(), conversation, resume_token=TOKEN) as owner:
        await owner.until("ready")
        await owner.send(talk.wire[: 2 * RATE], 3_200)
        async with connected(server.url, server.key(), conversation, **token) as thief:
            error = await thief.until("error")
            assert error["code"]
            assert error["retryable"] is False
            assert await thief.until_closed() == 1008
        await owner.send(talk.wire[2 * RATE :], 3_200)
        ended = await owner.end()
    assert ended["ledger"]["received"] == talk.samples


async def test_an_ended_conversation_replays_and_says_ended(server: Server, talk: Talk) -> None:
    first = await converse(server.url, server.key(), talk.wire, resume_token=TOKEN)
    async with connected(server.url, server.key(), first.conversation_id, resume_token=TOKEN, after_seq=1) as again:
        ended = await again.until("ended")
        assert await again.until_closed() == 1000
    assert ended["ledger"] == first.heard[-1]["ledger"]
    assert [event["seq"] for event in again.durable] == [event["seq"] for event in first.durable[1:]]


async def test_the_newer_of_two_connections_has_the_conversation(server: Server, talk: Talk) -> None:
    """A client whose network failed comes back before the server has noticed; its old messages count no more."""
    sound = talk.wire * 3
    undisturbed = await converse(server.url, server.key(), sound)
    conversation = new_id()
    async with connected(server.url, server.key(), conversation, resume_token=TOKEN) as older:
        await older.until("ready")
        async with asyncio.TaskGroup() as tasks:
            flooding = tasks.create_task(flood(older, sound))
            await older.until("ack")
            older.follows = False  # its network has failed
            async with connected(server.url, server.key(), conversation, resume_token=TOKEN) as newer:
                offset = (await newer.until("ready"))["next_offset"]
                closing = tasks.create_task(older.until_closed())
                await newer.send(sound[2 * offset :], 3_200)
                ended = await newer.end()
            flooding.cancel()
        assert closing.result() is not None
    assert ended["ledger"] == undisturbed.heard[-1]["ledger"]
    assert not [event for event in older.of("error") if event["code"] == "internal"]
    everything = {event["utterance_id"]: event for event in [*older.of("utterance"), *newer.of("utterance")]}
    assert spans(everything.values()) == spans(undisturbed.heard)


async def flood(wire: Wire, sound: bytes) -> None:
    """Send on, at ten times real time, until the server has had enough."""
    with contextlib.suppress(ConnectionError):
        for at in range(0, len(sound), 3_200):
            await wire.send(sound[at : at + 3_200])
            await asyncio.sleep(0.01)  # a pace, not a wait


async def test_the_last_ack_is_never_taken_back(server: Server, talk: Talk) -> None:
    conversation = new_id()
    async with connected(server.url, server.key(), conversation, resume_token=TOKEN) as wire:
        await wire.until("ready")
        await wire.send(talk.wire, 3_200)
        acked = await wire.until_acked(talk.samples // 2)
    async with connected(server.url, server.key(), conversation, resume_token=TOKEN) as wire:
        offset = (await wire.until("ready"))["next_offset"]
        assert offset >= acked - 512  # the grid
        await wire.send(talk.wire[2 * offset :], 3_200)
        ended = await wire.end()
    assert balanced(ended["ledger"])
    assert ended["ledger"]["received"] == talk.samples
