"""Pressure, silence and leaving: a client far ahead, a server that drains, and a client that never comes back."""

import secrets
import time

from tests.e2e.conftest import NewServer
from tests.support.server import Server
from tests.support.talk import RATE, Talk
from tests.support.wire import Wire, balanced, connected, converse, new_id, spans


async def test_a_client_far_ahead_is_held_back_and_never_failed(server: Server, talk: Talk) -> None:
    """Much more than the window, pushed as fast as the socket takes it."""
    times = 12
    wire = await converse(server.url, server.key(), talk.wire * times, (32_000,))
    ledger = wire.heard[-1]["ledger"]
    assert ledger["received"] == talk.samples * times
    assert balanced(ledger)
    once = spans((await converse(server.url, server.key(), talk.wire)).heard)
    assert len(wire.of("utterance")) >= times * len(once) - times
    assert wire.of("error") == []


async def test_acks_come_while_the_client_streams_in_real_time(server: Server) -> None:
    """Silence is accounted for as it passes, not only at the end."""
    async with connected(server.url, server.key(), new_id()) as wire:
        ready = await wire.until("ready")
        await wire.send(bytes(2 * 4 * RATE), 3_200)
        started = time.monotonic()
        assert await wire.until_acked(2 * RATE) <= 4 * RATE
        assert time.monotonic() - started < 3 * ready["ack_interval_ms"] / 1_000 + 2


async def test_sigterm_sends_clients_away_and_they_lose_nothing(new_server: NewServer, talk: Talk) -> None:
    server = new_server()
    undisturbed = await converse(server.url, server.key(), talk.wire)
    conversation, token = new_id(), secrets.token_urlsafe(32)
    _, start, end = spans(undisturbed.heard)[1]
    cut = (start + end) // 2
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(talk.wire[: 2 * cut], 3_200)
        await wire.until("utterance")
        server.terminate()
        reconnect = await wire.until("reconnect")
        assert reconnect["reason"]
        assert reconnect["after_ms"] >= 0
        assert await wire.until_closed() in {1001, 1012, 1013}
    assert server.wait() == 0
    server.start()
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=wire.last_seq) as again:
        offset = (await again.until("ready"))["next_offset"]
        await again.send(talk.wire[2 * offset :], 3_200)
        ended = await again.end()
    assert spans(wire.heard + again.heard) == spans(undisturbed.heard)
    assert ended["ledger"] == undisturbed.heard[-1]["ledger"]


async def test_a_radio_that_dies_in_mid_speech_is_still_heard(new_server: NewServer, talk: Talk) -> None:
    server = new_server(QUICKCOMM_AUDIO_INTERRUPTED_GRACE_S="1", QUICKCOMM_AUDIO_IDLE_LIMIT_S="4")
    undisturbed = spans((await converse(server.url, server.key(), talk.wire)).heard)
    conversation, token = new_id(), secrets.token_urlsafe(32)
    _, start, end = undisturbed[0]
    cut = end - (end - start) // 4
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(talk.wire[: 2 * cut], 3_200)
        await wire.hear_for(0.5)
    listed = await server.until(
        "/v1/utterances", lambda body: any(item["conversation_id"] == conversation for item in body["items"])
    )
    first = next(item for item in listed["items"] if item["conversation_id"] == conversation)
    assert first["start_offset"] == start
    assert first["end_offset"] <= cut
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=0) as wire:
        offset = (await wire.until("ready"))["next_offset"]
        assert (await wire.until("utterance"))["start_offset"] == start
        assert offset <= cut
        ended = await wire.end()
    assert balanced(ended["ledger"])


async def test_a_conversation_that_nobody_continues_ends_with_what_was_received(
    new_server: NewServer, talk: Talk
) -> None:
    server = new_server(QUICKCOMM_AUDIO_INTERRUPTED_GRACE_S="0.5", QUICKCOMM_AUDIO_IDLE_LIMIT_S="1.5")
    conversation, token = new_id(), secrets.token_urlsafe(32)
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(talk.wire[: 2 * 4 * RATE], 3_200)
        await wire.hear_for(1.0)
    path = f"/v1/conversations/{conversation}"
    await server.until(path, lambda body: body["state"] not in {"live", "interrupted"})
    ended = await replayed(server, conversation, token)
    ledger = ended.heard[-1]["ledger"]
    assert balanced(ledger)
    assert 0 < ledger["received"] <= 4 * RATE


async def replayed(server: Server, conversation: str, token: str) -> Wire:
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=0) as wire:
        await wire.until("ended")
        assert await wire.until_closed() == 1000
        return wire
