"""`kill -9` in the middle of speech: the same utterances as without it, nothing lost, nothing doubled."""

import json
import secrets

from tests.e2e.conftest import NewServer
from tests.support.server import Server
from tests.support.talk import RATE, Talk
from tests.support.wire import Json, balanced, connected, converse, new_id, spans


def middles(events: list[Json]) -> list[int]:
    """Offsets in the middle of the second utterance and of the last one."""
    found = spans(events)
    return [(start + end) // 2 for _, start, end in (found[1], found[-1])]


async def test_killed_twice_in_mid_speech(new_server: NewServer, talk: Talk) -> None:
    server = new_server()
    undisturbed = await converse(server.url, server.key(), talk.wire)
    conversation, token = new_id(), secrets.token_urlsafe(32)
    events: list[Json] = []
    last_seq, acked = 0, 0
    for cut in middles(undisturbed.heard):
        async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=last_seq) as wire:
            offset = (await wire.until("ready"))["next_offset"]
            assert acked <= offset <= cut
            await wire.send(talk.wire[2 * offset : 2 * cut], 3_200)
            # What is said before the cut comes; then it dies with half an utterance in hand.
            await wire.until("utterance")
            server.kill()
            await wire.until_closed()
            events += wire.heard
            last_seq = max(last_seq, wire.last_seq)
            acked = max([acked, *(event["offset"] for event in wire.of("ack"))])
        server.start()
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=last_seq) as wire:
        offset = (await wire.until("ready"))["next_offset"]
        assert offset >= acked
        await wire.send(talk.wire[2 * offset :], 3_200)
        ended = await wire.end()
        events += wire.heard
    assert spans(events) == spans(undisturbed.heard)
    durable = [event["seq"] for event in events if "seq" in event]
    assert durable == list(range(1, len(durable) + 1))
    answered = {event["utterance_id"] for event in events if event["type"] == "insights"}
    assert answered == {event["utterance_id"] for event in events if event["type"] == "utterance"}
    assert ended["ledger"] == undisturbed.heard[-1]["ledger"]
    await listed_once(server, conversation, events)


async def listed_once(server: Server, conversation: str, events: list[Json]) -> None:
    """The page has each utterance once, too."""
    path = f"/v1/utterances?conversation={conversation}&limit=100"
    said = {event["utterance_id"] for event in events if event["type"] == "utterance"}
    await server.until(path, lambda body: said <= {item["utterance_id"] for item in body["items"]})
    body = server.get(path, "read").body.decode()
    for event in events:
        if event["type"] == "utterance":
            assert body.count(f'"utterance_id":{json.dumps(event["utterance_id"])},"conversation_id"') == 1


async def test_what_was_acked_survives_a_kill_without_its_client(new_server: NewServer, talk: Talk) -> None:
    """The client never comes back: after the grace, what it said is published all the same."""
    server = new_server(QUICKCOMM_AUDIO_INTERRUPTED_GRACE_S="1", QUICKCOMM_AUDIO_IDLE_LIMIT_S="3")
    conversation, token = new_id(), secrets.token_urlsafe(32)
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(talk.wire[: 2 * 12 * RATE], 3_200)
        await wire.until("utterance")
        server.kill()
        known = wire.durable
    server.start()
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=0) as wire:
        while wire.last_seq < known[-1]["seq"]:
            assert await wire.hear() is not None
        assert [event["seq"] for event in wire.durable[: len(known)]] == [event["seq"] for event in known]
        ended = await wire.end()
    assert balanced(ended["ledger"])


async def test_an_ended_conversation_survives_a_kill(new_server: NewServer, talk: Talk) -> None:
    server = new_server()
    token = secrets.token_urlsafe(32)
    first = await converse(server.url, server.key(), talk.wire, resume_token=token)
    server.kill()
    server.start()
    async with connected(server.url, server.key(), first.conversation_id, resume_token=token, after_seq=0) as again:
        ended = await again.until("ended")
        assert await again.until_closed() == 1000
    assert ended["ledger"] == first.heard[-1]["ledger"]
    assert [event["seq"] for event in again.durable] == [event["seq"] for event in first.durable]
