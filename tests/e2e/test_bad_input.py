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
from tests.support.examples import examples
from tests.support.server import Server, quickcomm
from tests.support.talk import RATE, Talk
from tests.support.wire import Wire, balanced, connected, new_id

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
    "half a sample": (binary(b"abc"), {1003, 1007, 1008}),
    "more than a second": (binary(bytes(2 * RATE + 2)), {1007, 1008, 1009}),
    "a megabyte": (binary(bytes(1024 * 1024)), {1009}),
    "no JSON": (text("hello"), {1003, 1007}),
    "JSON, but no object": (text("[1,2]"), {1003, 1007, 1008}),
    "no type": (text("{}"), {1003, 1007, 1008}),
    "unknown type": (text('{"type":"dance"}'), {1003, 1007, 1008}),
    "skip without samples": (text('{"type":"skip"}'), {1003, 1007, 1008}),
    "skip back": (text('{"type":"skip","samples":-1}'), {1003, 1007, 1008}),
    "skip nothing": (text('{"type":"skip","samples":"many"}'), {1003, 1007, 1008}),
    "skip half a sample": (text('{"type":"skip","samples":1.5}'), {1003, 1007, 1008}),
    "skip beyond all": (text('{"type":"skip","samples":1e400}'), {1003, 1007, 1008}),
    "skip an age": (text('{"type":"skip","samples":99999999999999999999}'), {1003, 1007, 1008}),
    "audio as text": (text(json.dumps({"type": "audio", "data": "AAAA"})), {1003, 1007, 1008}),
    "deep JSON": (text("[" * 50_000), {1003, 1007, 1008, 1009}),
    "deep JSON that is short": (text('{"type":"end","x":' + "[" * 2_000 + "]" * 2_000 + "}"), {1003, 1007}),
}


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
