"""Whatever comes over the socket, the answer is an error with a code and a close, and what was acked stays."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.support.deployment import MOVES
from tests.support.examples import examples
from tests.support.server import Server, quickcomm
from tests.support.talk import RATE, Talk
from tests.support.wire import Wire, balanced, connected, converse, new_id, spans, texts

Bad = Callable[[Wire], Awaitable[None]]


def text(message: str) -> Bad:
    async def send(wire: Wire) -> None:
        await wire.socket.send_str(message)

    return send


def binary(message: bytes) -> Bad:
    async def send(wire: Wire) -> None:
        await wire.socket.send_bytes(message)

    return send


BAD: dict[str, tuple[Bad, set[int]]] = {
    "more than ten seconds": (binary(bytes(20 * RATE + 2)), {1009}),
    "a megabyte": (binary(bytes(1024 * 1024)), {1009}),
    "skip without samples": (text('{"type":"skip"}'), {1003, 1007, 1008}),
    "skip back": (text('{"type":"skip","samples":-1}'), {1003, 1007, 1008}),
    "skip nothing": (text('{"type":"skip","samples":"many"}'), {1003, 1007, 1008}),
    "skip half a sample": (text('{"type":"skip","samples":1.5}'), {1003, 1007, 1008}),
    "skip beyond all": (text('{"type":"skip","samples":1e400}'), {1003, 1007, 1008}),
    "skip an age": (text('{"type":"skip","samples":99999999999999999999}'), {1003, 1007, 1008}),
}
NOT_FOR_US = (
    "hello",
    "[1,2]",
    "{}",
    "",
    '{"type":7}',
    '{"type":"dance"}',
    '{"type":"KeepAlive"}',
    '{"event":"dtmf","dtmf":"2","duration":"1600"}',
    '{"callSid":"x","sampleRate":8000,"mixType":"stereo"}',
    json.dumps({"type": "audio", "data": "A" * 100_000}),
    "[" * 50_000,
    '{"type":"end","x":' + "[" * 2_000,
)


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_told_and_what_was_acked_stays(server: Server, talk: Talk, name: str) -> None:
    send, codes = BAD[name]
    conversation, token = new_id(), "b" * 32
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(bytes(2 * 3 * RATE), 3_200)
        acked = await wire.until_acked(1)
        await send(wire)
        error = await wire.until("error")
        assert error["code"]
        assert error["code"] != "internal"
        assert error["message"]
        assert "Traceback" not in error["message"]
        assert error["retryable"] is False
        assert await wire.until_closed() in codes
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        offset = (await wire.until("ready"))["next_offset"]
        assert offset >= acked - 512
        await wire.send(talk.wire[: 2 * 4_000], 3_200)
        ended = await wire.end()
    assert balanced(ended["ledger"])
    assert ended["ledger"]["received"] == offset + 4_000


async def test_texts_that_are_not_for_the_server_are_ignored_and_counted(server: Server, talk: Talk) -> None:
    before = await asyncio.to_thread(ignored, server)
    plain = await converse(server.url, server.key(), talk.wire)
    async with connected(server.url, server.key(), new_id()) as wire:
        await wire.until("ready")
        third = len(talk.wire) // 6 * 2
        for part in range(3):
            for message in NOT_FOR_US:
                await wire.socket.send_str(message)
            await wire.send(talk.wire[part * third : (part + 1) * third if part < 2 else None], 3_200)
        ended = await wire.end()
    assert ended["ledger"] == plain.heard[-1]["ledger"]
    assert texts(wire.heard) == texts(plain.heard)
    if not MOVES:  # else some were counted in a process that is gone
        assert await asyncio.to_thread(ignored, server) - before == 3 * len(NOT_FOR_US)


def ignored(server: Server) -> float:
    lines = server.get("/metrics", "read").body.decode().splitlines()
    name = 'quickcomm_ingest_ignored_total{ingest="native",reason="unknown"'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("sizes", [(3_001,), (1, 2, 3, 5_003), (10 * 2 * RATE,)])
async def test_messages_may_have_any_length(server: Server, talk: Talk, sizes: tuple[int, ...]) -> None:
    """As a pipe cuts them: in the middle of a sample, or after ten seconds."""
    plain = await converse(server.url, server.key(), talk.wire)
    cut = await converse(server.url, server.key(), talk.wire, sizes)
    assert cut.heard[-1]["ledger"] == plain.heard[-1]["ledger"]
    assert spans(cut.heard) == spans(plain.heard)
    assert texts(cut.heard) == texts(plain.heard)


async def test_a_cut_sample_is_not_completed_across_a_gap(server: Server) -> None:
    async with connected(server.url, server.key(), new_id()) as wire:
        await wire.until("ready")
        await wire.send(bytes(2 * RATE + 1))
        await wire.say(type="skip", samples=RATE)
        await wire.send(bytes(2 * RATE))
        ended = await wire.end()
    assert ended["ledger"] == {"received": 3 * RATE, "speech": 0, "silence": 2 * RATE, "gap": RATE}


async def test_a_message_of_monstrous_size_costs_only_its_connection(server: Server) -> None:
    """It need not be read to the end, so that the client may not hear why."""
    conversation, token = new_id(), "m" * 32
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        with contextlib.suppress(ConnectionError):
            await wire.socket.send_bytes(bytes(16 * 1024 * 1024))
        assert await wire.until_closed() in {1006, 1009}
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.end()


@pytest.mark.parametrize(
    "query",
    [
        {"encoding": "opus"},
        {"encoding": ""},
        {"sample_rate": "44100"},
        {"sample_rate": "16000.0"},
        {"sample_rate": "much"},
        {"channels": "0"},
        {"channels": "3"},
        {"channels": "-1"},
        {"after_seq": "-1"},
        {"after_seq": "x"},
        {"resume_token": "short"},
        {"channel": "x" * 5_000},
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused(server: Server, query: dict[str, str]) -> None:
    assert await refusal(server.url, server.key(), new_id(), query) in {400, 414, 422, 1003, 1007, 1008}


@pytest.mark.parametrize("conversation", ["a b", "ä", "x" * 129, "a:b", "a%2Fb", "a%00b", "%2e%2e%2f"])
async def test_a_bad_conversation_id_is_refused(server: Server, conversation: str) -> None:
    assert await refusal(server.url, server.key(), conversation, {}) in {400, 404, 1007, 1008}


async def test_without_a_key_nobody_gets_in(server: Server) -> None:
    assert await refusal(server.url, None, new_id(), {}) in {401, 1008}
    assert await refusal(server.url, "nonsense", new_id(), {}) in {401, 1008}
    assert await refusal(server.url, None, new_id(), {"key": "nonsense"}) in {401, 1008}


async def test_a_key_that_is_revoked_ends_its_streams_and_no_others(server: Server) -> None:
    key = server.new_key("ingest")
    async with (
        connected(server.url, key.key, new_id()) as revoked,
        connected(server.url, server.key(), new_id()) as other,
    ):
        await revoked.until("ready")
        await other.until("ready")
        await asyncio.to_thread(quickcomm, "keys", "revoke", key.id, "--data-dir", str(server.data_dir))
        assert (await revoked.until("error"))["code"] == "audio.key_revoked"
        assert await revoked.until_closed() == 1008
        assert balanced((await other.end())["ledger"])


async def test_a_key_that_only_reads_may_not_speak(server: Server) -> None:
    assert await refusal(server.url, server.key("read"), new_id(), {}) in {403, 1008}


async def refusal(url: str, key: str | None, conversation: str, query: dict[str, str]) -> int | None:
    """The HTTP status that the upgrade is answered with, or the code of the close that follows an error."""
    try:
        async with connected(url, key, conversation, **query) as wire:
            error = await wire.until("error")
            assert error["code"] not in {"", "internal"}
            return await wire.until_closed()
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def test_http_refusals_are_problem_documents(server: Server) -> None:
    answer = server.ask("GET", f"/v1/conversations/{new_id()}/audio")
    assert answer.status in {400, 401, 426}
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert b"Traceback" not in answer.body


queries = st.dictionaries(
    st.sampled_from(["channel", "encoding", "sample_rate", "channels", "resume_token", "after_seq", "x"]),
    st.text(max_size=60)
    | st.integers().map(str)
    | st.sampled_from(["linear16", "mulaw", "8000", "16000", "1", "2", "t" * 32, "t" * 300, "\u0661", "1e3", "0x10"]),
    max_size=4,
)


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=queries)
async def test_no_query_is_an_internal_error(server: Server, query: dict[str, str]) -> None:
    """It is understood, and then `ready` says so, or it is refused with a code."""
    async with connected(server.url, server.key(), new_id(), **query) as wire:
        first = await wire.hear()
        assert first is not None
        if first["type"] == "ready":
            assert first["next_offset"] == 0
            assert query.get("resume_token") in {None, "", first["resume_token"]}
            await wire.end()
            return
        assert (first["type"], first["code"]) == ("error", "audio.invalid_request")
        assert await wire.until_closed() == 1008


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    message=json_values
    | st.fixed_dictionaries({"type": st.sampled_from(["skip", "x", "ready"]), "samples": json_values})
)
async def test_no_message_is_an_internal_error(server: Server, message: object) -> None:
    async with connected(server.url, server.key(), new_id()) as wire:
        await wire.until("ready")
        await wire.socket.send_str(json.dumps(message))
        await wire.say(type="end")
        await wire.until_closed()
    assert wire.heard[-1]["type"] in {"error", "ended"}
    assert wire.close_code in {1000, 1003, 1007, 1008, 1009}
    assert all(event["code"] != "internal" for event in wire.of("error"))
