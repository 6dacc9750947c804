"""What people say and what opens doors is nowhere in the log, whatever happens in a shift."""

import asyncio
import itertools
import re
import sqlite3
from contextlib import closing

import aiohttp
import pytest
from tests.e2e.conftest import NewServer
from tests.support.server import EVENTUALLY_S, Server
from tests.support.strangers import COOKIE, page_session
from tests.support.talk import shift_talk
from tests.support.wire import Wire, connected, converse, drop, new_id

WRONG_KEY = "qc_read_almost-but-not-quite-right"
LONG = pytest.mark.long
MARK = "XYZZYPLUGH"


async def shift(server: Server) -> tuple[list[Wire], list[str]]:
    """Everything that is done in a shift, well and badly; the talk in it, and the secrets."""
    token, session = "resume-" + "r" * 32, await page_session(server)
    secrets = [token, session, WRONG_KEY, MARK, *(server.key(role) for role in ("ingest", "read", "admin"))]
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(f"{server.url}/v1/live?key={server.key('read')}") as live:
            wires = [await talk(server, token)]
            await live.send_str(f'{{"type":"{MARK}"')
            await live.receive()
        for request in (
            http.get(f"{server.url}/v1/utterances?query={MARK}&key={server.key('read')}"),
            http.get(f"{server.url}/v1/utterances?query={MARK}", headers={"Authorization": f"Bearer {WRONG_KEY}"}),
            http.get(f"{server.url}/v1/utterances?cursor={MARK}", headers=bearer(server)),
            http.get(f"{server.url}/v1/conversations/{MARK}", headers=bearer(server)),
            http.post(f"{server.url}/v1/session", data=f'{{"key":"{WRONG_KEY}"', headers={"Content-Type": "text/json"}),
            http.post(f"{server.url}/v1/session", json={"key": WRONG_KEY}),
            http.post(f"{server.url}/v1/session", json={"key": WRONG_KEY, "x": MARK}),
            http.post(f"{server.url}/v1/tasks/{MARK}/complete", cookies={COOKIE: session}),
            http.delete(f"{server.url}/v1/session", cookies={COOKIE: session}),
        ):
            async with request as answer:
                assert 400 <= answer.status < 500
    for ignored in ("{", f'{{"type":"{MARK}"}}'):
        async with connected(server.url, server.key(), new_id(), resume_token=token, key=server.key()) as wire:
            await wire.until("ready")
            await wire.socket.send_str(ignored)
            await wire.socket.send_str(f'{{"type":"skip","samples":"{MARK}"}}')
            await wire.until_closed()
    return wires, secrets


async def talk(server: Server, token: str) -> Wire:
    """A conversation that loses its connection once, and a stranger who tries to go on with it."""
    name = new_id("shift")
    pcm = shift_talk().wire
    async with connected(server.url, server.key(), name, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(pcm[: len(pcm) // 2], 3_200)
        await wire.until("utterance")
        drop(wire)
    async with connected(server.url, server.key(), name, resume_token="w" + token) as wire:
        await wire.until_closed()
    async with connected(server.url, None, name, resume_token=token, key=server.key()) as wire:
        at = 2 * (await wire.until("ready"))["next_offset"]
        await wire.send(pcm[at:], 3_200)
        await wire.end()
        return wire


def bearer(server: Server) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.key('read')}"}


def assert_silent(log: str, wires: list[Wire], secrets: list[str]) -> None:
    for secret in secrets:
        assert secret not in log
    assert "?key=" not in log
    assert not re.search(r"resume_token=|Bearer q|quickcomm_session=", log)
    said = [event["text"] for wire in wires for event in wire.of("utterance")]
    assert said
    plain = " ".join(re.findall(r"\w+", log.lower()))
    for text in said:
        for pair in itertools.pairwise(re.findall(r"\w+", text.lower())):
            assert f" {' '.join(pair)} " not in plain, pair


@pytest.mark.parametrize("flags", [pytest.param((), id="text"), pytest.param(("--log-json",), id="json", marks=LONG)])
async def test_a_whole_shift_leaves_no_word_and_no_secret_in_the_log(
    new_server: NewServer, flags: tuple[str, ...]
) -> None:
    server = new_server(*flags, QUICKCOMM_STORAGE_RECORDINGS="true", QUICKCOMM_KEYS_FAILURES_BURST="100")
    wires, secrets = await shift(server)
    server.stop()
    assert "conversation" in server.log
    assert "Traceback" not in server.log
    assert_silent(server.log, wires, secrets)


async def test_what_breaks_is_told_without_what_was_said(new_server: NewServer) -> None:
    """Tables vanish under the server: every error that comes of it is logged, and none quotes what it was about."""
    server = new_server("--log-json", QUICKCOMM_KEYS_FAILURES_BURST="100")
    session = await page_session(server)
    with closing(sqlite3.connect(server.data_dir / "quickcomm.sqlite", timeout=30)) as store, store:
        store.execute("DROP TABLE dashboard_utterances")
    wire = await converse(server.url, server.key(), shift_talk().wire)
    async with asyncio.timeout(EVENTUALLY_S):
        while "bus.dead_letter" not in server.log:  # noqa: ASYNC110 - only the log tells
            await asyncio.sleep(0.1)
    for path in (f"/v1/utterances?channel={MARK}", f"/v1/utterances?query={MARK}", f"/v1/utterances/{MARK}"):
        failed = server.get(path, "read")
        assert failed.status == 503
        assert b"SELECT" not in failed.body
        assert "retry-after" in failed.headers
    with closing(sqlite3.connect(server.data_dir / "quickcomm.sqlite", timeout=30)) as store, store:
        store.execute("DROP TABLE kernel_sessions")
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{server.url}/v1/session", json={"key": server.key("read")}) as answer:
            assert answer.status == 503
        async with http.get(f"{server.url}/v1/tasks", cookies={COOKIE: session}) as answer:
            assert answer.status in {200, 503}
    server.stop()
    assert_silent(server.log, [wire], [MARK, session, server.key("read"), server.key("ingest")])
