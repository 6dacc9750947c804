"""RFC 6455 frame by frame, before both sockets of the real server: what is wrong ends one connection and no other."""

import asyncio
import json

import pytest
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, close, frame, raw_socket
from tests.support.server import Server
from tests.support.wire import connected, new_id

PROTOCOL = {1002}
RESERVED_OPCODES = (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
BAD_CODES = (0, 999, 1004, 1005, 1015, 1016, 1100, 2000, 2999)
ENORMOUS = 2**40

WRONG: dict[str, tuple[bytes, set[int]]] = {
    **{f"RSV {bits:03b}": (frame(BINARY, bytes(4), reserved=bits), PROTOCOL) for bits in range(1, 8)},
    **{f"RSV {bits:03b} on a ping": (frame(PING, b"x", reserved=bits), PROTOCOL) for bits in (1, 2, 4)},
    **{f"opcode {code:#x}": (frame(code, b"x"), PROTOCOL) for code in RESERVED_OPCODES},
    **{f"close with {code}": (close(code), PROTOCOL) for code in BAD_CODES},
    "close with half a code": (frame(CLOSE, b"\x03"), PROTOCOL),
    "close with a reason that is no UTF-8": (close(1000, b"\xff\xfe"), {1002, 1007}),
    "close that is too long": (close(1000, b"x" * 124), PROTOCOL),
    "ping that is too long": (frame(PING, b"x" * 126), PROTOCOL),
    "ping in fragments": (frame(PING, b"x", fin=False), PROTOCOL),
    "pong in fragments": (frame(PONG, b"x", fin=False), PROTOCOL),
    "close in fragments": (frame(CLOSE, b"", fin=False), PROTOCOL),
    "continuation of nothing": (frame(CONTINUATION, b"x"), PROTOCOL),
    "continuation after a whole message": (frame(BINARY, bytes(4)) + frame(CONTINUATION, b"x"), PROTOCOL),
    "a message inside a message": (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), PROTOCOL),
    "sound inside a text": (frame(TEXT, b"{", fin=False) + frame(BINARY, bytes(4)), PROTOCOL),
    "text that is no UTF-8": (frame(TEXT, b'{"type":"\xff"}'), {1007}),
    "an overlong NUL": (frame(TEXT, b'{"type":"\xc0\x80"}'), {1007}),
    "half a surrogate pair": (frame(TEXT, b'{"type":"\xed\xa0\x80"}'), {1007}),
    "beyond Unicode": (frame(TEXT, b'{"type":"\xf4\x90\x80\x80"}'), {1007}),
    "half a character": (frame(TEXT, b'{"type":"\xe2\x82'), {1007}),
    "no UTF-8, in fragments": (frame(TEXT, b'"\xce', fin=False) + frame(CONTINUATION, b'\xce"'), {1007}),
    "a length of a terabyte": (frame(BINARY, bytes(64), declared=ENORMOUS), {1002, 1009}),
    "a length beyond 63 bit": (frame(BINARY, bytes(64), declared=2**63 + 1), {1002, 1009}),
    "fragments of a terabyte": (
        frame(BINARY, bytes(4), fin=False) + frame(CONTINUATION, bytes(64), declared=ENORMOUS),
        {1002, 1009},
    ),
}


async def audio(raw: RawSocket) -> str:
    ready = json.loads((await raw.until(TEXT)).payload)
    assert ready["type"] == "ready"
    return str(ready["resume_token"])


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_frame_ends_an_audio_connection_and_nothing_else(server: Server, name: str) -> None:
    data, codes = WRONG[name]
    conversation = new_id("frames")
    async with raw_socket(server.url, f"/v1/conversations/{conversation}/audio", server.key()) as raw:
        token = await audio(raw)
        await raw.send(data)
        assert await raw.until_closed() in codes
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        assert (await wire.until("ready"))["next_offset"] >= 0
        await wire.end()


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_frame_ends_a_page_s_connection_and_nothing_else(server: Server, name: str) -> None:
    data, codes = WRONG[name]
    async with raw_socket(server.url, "/v1/live", server.key("read")) as raw:
        await raw.until(TEXT)
        await raw.send(data)
        assert await raw.until_closed() in codes
    assert server.get("/readyz").status == 200


async def test_fragments_are_one_message_and_pings_go_between(server: Server) -> None:
    path = f"/v1/conversations/{new_id('frames')}/audio"
    async with raw_socket(server.url, path, server.key()) as raw:
        await audio(raw)
        await raw.send(frame(BINARY, bytes(3), fin=False) + frame(PING, b"between"))
        assert (await raw.until(PONG)).payload == b"between"
        await raw.send(frame(CONTINUATION, bytes(1), fin=False) + frame(CONTINUATION, bytes(6)))
        await raw.send(frame(TEXT, b'{"ty', fin=False))
        await raw.send(frame(PING, b"x" * 125) + frame(CONTINUATION, b'pe":"end"}'))
        assert (await raw.until(PONG)).payload == b"x" * 125
        while (event := json.loads((await raw.until(TEXT)).payload))["type"] != "ended":
            pass
        assert event["ledger"]["received"] == 5
        assert await raw.until_closed() == 1000


async def test_frames_may_come_in_any_pieces(server: Server) -> None:
    path = f"/v1/conversations/{new_id('frames')}/audio"
    async with raw_socket(server.url, path, server.key()) as raw:
        await audio(raw)
        for byte in frame(BINARY, bytes(200)) + frame(TEXT, b'{"type":"end"}'):
            await raw.send(bytes([byte]))
        while (event := json.loads((await raw.until(TEXT)).payload))["type"] != "ended":
            pass
        assert event["ledger"]["received"] == 100


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 3000, 4999])
async def test_a_close_is_answered(server: Server, code: int) -> None:
    async with raw_socket(server.url, f"/v1/conversations/{new_id('frames')}/audio", server.key()) as raw:
        await audio(raw)
        await raw.send(close(code, "bye é".encode()))
        assert await raw.until_closed() in {code, 1000}


async def test_the_connection_is_there_until_the_client_has_closed_too(server: Server) -> None:
    """What is still on its way to the server meets an open connection, so the client can read to the end."""
    async with raw_socket(server.url, f"/v1/conversations/{new_id('frames')}/audio", server.key()) as raw:
        await audio(raw)
        await raw.send(frame(TEXT, b'{"type":"end"}'))
        assert (await raw.until(CLOSE)).close_code == 1000
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await raw.hear()
        await raw.send(frame(BINARY, bytes(3_200)) + close(1000))
        assert await raw.hear() is None


async def test_nothing_is_heard_after_a_close(server: Server) -> None:
    conversation = new_id("frames")
    async with raw_socket(server.url, f"/v1/conversations/{conversation}/audio", server.key()) as raw:
        token = await audio(raw)
        await raw.send(frame(CLOSE) + frame(BINARY, bytes(640)) + frame(TEXT, b'{"type":"end"}'))
        assert await raw.until_closed() in {1000, 1005}
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        assert (await wire.end())["ledger"]["received"] == 0


async def test_a_compression_that_was_not_agreed_on_is_not_understood(server: Server) -> None:
    async with raw_socket(server.url, f"/v1/conversations/{new_id('frames')}/audio", server.key()) as raw:
        await audio(raw)
        await raw.send(frame(TEXT, b"\xaa\x56\x2a", reserved=4))
        assert await raw.until_closed() == 1002
