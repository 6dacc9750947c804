"""The Autobahn cases (by kosoku) against the WebSocket that all our sockets are made of, with our settings.

The cases need an echo, and neither of our sockets is one; so an echo with the same settings stands for them here. What
the real sockets do with wrong frames is in test_frames.py.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest
from aiohttp import WSMsgType, web
from kosoku import FailureError, run_fuzzingclient

from quickcomm.audio.ingest.reception import CLOSE_WITHIN_S
from quickcomm.audio.ingest.websocket import MAX_MESSAGE_BYTES

FRAMING: Final = ("1.*", "2.*", "3.*", "4.*", "5.*", "10.*")
UTF8_AND_CLOSE: Final = ("6.*", "7.*")
LIMITS: Final = ("9.*",)
"""12 and 13 are about compression, which our sockets never agree to."""

KNOWN: Final = {
    "7.9.5": "aiohttp takes 1006, which must never be sent, for a code that may be; it closes with 1000 all the same",
}
TOO_BIG: Final = frozenset(
    {f"9.{group}.{case}" for group in (1, 2) for case in (4, 5, 6)}
    | {f"9.{group}.{case}" for group in (3, 4) for case in range(1, 10)}
)
"""Messages of 4 to 16 MiB: more than we take, so that they must be refused with 1009."""
PASSED: Final = {"OK", "NON-STRICT", "INFORMATIONAL"}


@pytest.fixture(scope="module", autouse=True)
def stand_ins_go_again() -> Iterator[None]:
    """The cases bring stand-ins for old libraries along (`pkg_resources`), which no other test must meet."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if "/kosoku/shim/" in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, timeout=CLOSE_WITHIN_S, compress=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.add_routes([web.get("/", handle)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("cases", "count"),
    [
        pytest.param(FRAMING, 65, id="framing"),
        pytest.param(UTF8_AND_CLOSE, 182, id="UTF-8 and close"),
        pytest.param(LIMITS, 54, id="limits"),
    ],
)
async def test_autobahn(echo: str, cases: tuple[str, ...], count: int) -> None:
    try:
        results = await run_fuzzingclient(echo, cases=cases, concurrency=8)
    except FailureError as failure:
        results = failure.results
    assert len(results) == count
    failed = {
        result.case_id: (result.behavior.value, result.behavior_close.value, result.remote_close_code)
        for result in results
        if result.behavior.value not in PASSED or result.behavior_close.value not in PASSED
    }
    refused = {case: failed.pop(case) for case in TOO_BIG & failed.keys()}
    assert failed.keys() <= KNOWN.keys(), failed
    assert {code for _, _, code in refused.values()} <= {1009}, refused
    assert cases != LIMITS or refused.keys() == TOO_BIG
