"""A page that stops reading is sent away before it costs memory; the others see everything meanwhile."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from tests.e2e.conftest import NewServer
from tests.support.server import Server
from tests.support.talk import shift_talk
from tests.support.wire import converse

MOST: Final = 20_000
LONG_NAME: Final = "M" * 70
MEGABYTE: Final = 1 << 20


@asynccontextmanager
async def page(server: Server, session: aiohttp.ClientSession) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    headers = {"Authorization": f"Bearer {server.key('read')}"}
    async with session.ws_connect(f"{server.url}/v1/live", headers=headers, max_msg_size=0) as live:
        assert json.loads((await live.receive()).data)["type"] == "hello"
        yield live


def small(_: object) -> socket.socket:
    """A socket with next to no buffer: what its owner does not read stays with the server."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.setblocking(False)  # noqa: FBT003 - the signature of the library
    return made


def memory(server: Server) -> int:
    assert server._process is not None
    pages = Path(f"/proc/{server._process.pid}/statm").read_text().split()[1]
    return int(pages) * 4_096


def clients(server: Server) -> int:
    metrics = server.get("/metrics", "read").body.decode()
    return int(float(next(line.split()[1] for line in metrics.splitlines() if line.startswith("quickcomm_live_cl"))))


@pytest.mark.long
async def test_a_page_that_stops_reading(new_server: NewServer) -> None:
    server = new_server(QUICKCOMM_DASHBOARD_LIVE_QUEUE="64", QUICKCOMM_DASHBOARD_LIVE_SEND_TIMEOUT_S="2")
    await converse(server.url, server.key(), shift_talk().wire)
    listed = await server.until("/v1/tasks", lambda answer: bool(answer["items"]))
    task = f"{server.url}/v1/tasks/{listed['items'][0]['task_id']}"
    connector = aiohttp.TCPConnector(socket_factory=small)
    async with (
        aiohttp.ClientSession(connector=connector) as slow,
        aiohttp.ClientSession() as quick,
        page(server, slow) as stalled,
        page(server, quick) as reading,
    ):
        connection = stalled._response.connection
        assert connection is not None
        assert isinstance(connection.transport, asyncio.ReadTransport)
        connection.transport.pause_reading()
        before = memory(server)
        async with asyncio.TaskGroup() as tasks:
            changing = tasks.create_task(change_until_alone(server, quick, task))
            seen = await watch(reading, changing)
        assert seen == sorted(set(seen))
        assert memory(server) - before < 64 * MEGABYTE


async def watch(live: aiohttp.ClientWebSocketResponse, changing: asyncio.Task[str]) -> list[int]:
    """The changes that a page is told of, up to the last."""
    seen: list[int] = []
    assignee = ""
    async for message in live:  # it hears of the server's health from time to time, too
        event = json.loads(message.data)
        if event["type"] == "task":
            seen.append(event["change"])
            assignee = event["task"]["assignee"]
        if changing.done() and assignee == changing.result():
            return seen
    raise AssertionError(f"The page that reads was closed with {live.close_code}.")


async def change_until_alone(server: Server, session: aiohttp.ClientSession, task: str) -> str:
    """Give the task to one and another until only one page is left; whom it was given to at last."""
    headers = {"Authorization": f"Bearer {server.key('admin')}"}
    alone = False
    for turn in range(MOST):
        name = f"{turn} {LONG_NAME}"
        async with session.post(f"{task}/assign", json={"assignee": name}, headers=headers) as answer:
            if answer.status == 429:
                await asyncio.sleep(float(answer.headers["Retry-After"]))
                continue
            assert answer.status == 200, await answer.text()
        if alone:
            return name
        alone = turn % 50 == 0 and await asyncio.to_thread(clients, server) == 1
    raise AssertionError("The page that does not read is still there.")
