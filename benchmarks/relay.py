"""The session relay alone: CPU with many clients, and what they notice while the owner moves, restarts and dies.

`python -m benchmarks.relay [--sockets 1000] [--talking 15] [--seconds 20]`.

Three processes: clients that cannot resume (`resume=no`), the relay as `up` runs it but for the edge and the store,
and a scripted owner on a Unix socket, which acknowledges once a second, and writes down what it has acknowledged before
it says so. So many of a hundred clients talk: 16 kHz linear16, a message of 100 ms each 100 ms. The others are
connected and send nothing, as radios do; with `--noise` they send silence.

First the relay's CPU is measured while nothing happens. Then, while all go on: the owner sends everybody away
(`reconnect`, as in a hand-over), is stopped and started again, and is killed with SIGKILL. In the end each client says
`end`; the owner says how many samples it has. *lost* is what is missing there, in samples; *closed* are the clients
whose socket was closed before `ended`.

Exit status 0 if nothing is lost, no client socket is closed, and the CPU is at most half a core.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog
import uvloop
from aiohttp import WSMsgType, web

from benchmarks.process import usage
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.http import create_app
from quickcomm.kernel.keys import Authenticator, KeySettings
from quickcomm.kernel.keys.sql import SqlKeys
from quickcomm.kernel.storage import Database
from quickcomm.relay.assembly import relay
from quickcomm.relay.settings import RelaySettings

CORES: Final = 0.5
RATE: Final = 16_000
EACH_S: Final = 0.1
MESSAGE: Final = bytes(2 * int(RATE * EACH_S))
ACK_EACH_S: Final = 1.0
SETTLE_S: Final = 3.0
PATIENCE_S: Final = 60.0
OPENING: Final = 50
"""Clients that connect at a time."""
UNLIMITED: Final = KeySettings(requests_per_second=1e6, requests_burst=1e6)

# -- the owner, in a process of its own -------------------------------------------------------------------------------


class Owner:
    """Holds conversations by their ids: samples received, and those that are durable."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        found = json.loads(journal.read_text()) if journal.exists() else {}
        self.durable: dict[str, int] = found
        self.received: dict[str, int] = {}
        self.sockets: dict[str, web.WebSocketResponse] = {}

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        name = request.match_info["id"]
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.received[name] = self.durable.setdefault(name, 0)
        self.sockets[name] = socket
        ready = {"type": "ready", "conversation_id": name, "resume_token": request.query["resume_token"]}
        await socket.send_json({**ready, "next_offset": self.received[name], "max_unacked_ms": 120_000})
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                self.received[name] += len(message.data) // 2
            elif '"end"' in message.data:
                ledger = {"received": self.received[name], "speech": 0, "silence": self.received[name], "gap": 0}
                await socket.send_json({"type": "ended", "ledger": ledger})
                break
        if self.sockets.get(name) is socket:
            del self.sockets[name]
        return socket

    async def acknowledge_forever(self) -> None:
        while True:
            await asyncio.sleep(ACK_EACH_S)
            moved = {name: at for name, at in self.received.items() if at > self.durable[name]}
            self.durable |= moved
            new = self._journal.with_suffix(".new")
            new.write_text(json.dumps(self.durable))
            os.replace(new, self._journal)  # noqa: PTH105
            for name, at in moved.items():
                if name in self.sockets:
                    with contextlib.suppress(ConnectionError):
                        await self.sockets[name].send_json({"type": "ack", "offset": at})

    async def send_away(self) -> None:
        """Hand everything over to itself."""
        await asyncio.gather(*map(self._send_away, list(self.sockets.values())))

    async def _send_away(self, socket: web.WebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):
            await socket.send_json({"type": "reconnect", "reason": "handover", "after_ms": 0})
            await socket.close(code=1012)


async def own(place: str) -> None:
    owner = Owner(Path(f"{place}.json"))
    app = web.Application()
    app.router.add_get("/v1/conversations/{id}/audio", owner.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    Path(place).unlink(missing_ok=True)  # noqa: ASYNC240
    await web.UnixSite(runner, place).start()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tasks: set[asyncio.Future[None]] = {asyncio.ensure_future(owner.acknowledge_forever())}
    loop.add_signal_handler(signal.SIGUSR1, lambda: tasks.add(asyncio.ensure_future(owner.send_away())))
    print("ready", flush=True)
    await stop.wait()
    await owner.send_away()
    await runner.cleanup()


# -- the relay, in a process of its own -------------------------------------------------------------------------------


async def be_relay(place: str) -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
    )  # its output is a pipe that is not read
    clock = SystemClock()
    database = Database(Path(f"{place}.sqlite"))
    database.open()
    keys = SqlKeys(database, clock)
    keys.migrate()
    key = (await keys.create("ingest")).key
    part = relay(place, RelaySettings(drain_s=0.0), AudioSettings(), Authenticator(keys, clock, UNLIMITED), clock)
    runner = web.AppRunner(create_app(part.routes), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]} {key}", flush=True)
    await asyncio.Event().wait()


# -- the clients ------------------------------------------------------------------------------------------------------


class Client:
    def __init__(self) -> None:
        self.sent = 0
        self.received: int | None = None
        self.open = asyncio.Event()
        self.closed: int | None = None
        """The code with which it was closed before `ended`."""

    async def run(self, session: aiohttp.ClientSession, address: str, key: str, over: asyncio.Event) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        async with session.ws_connect(f"{address}?resume=no", headers=headers, compress=0) as socket:
            self.socket = socket
            async for message in socket:
                event = json.loads(message.data)
                if event["type"] == "ready":
                    self.open.set()
                elif event["type"] == "ended":
                    self.received = event["ledger"]["received"]
            if self.received is None or not over.is_set():
                self.closed = socket.close_code

    async def talk(self) -> None:
        await self.socket.send_bytes(MESSAGE)
        self.sent += len(MESSAGE) // 2


async def talk_until(over: asyncio.Event, talkers: list[Client]) -> None:
    """Spread the messages of all talkers over each tenth of a second."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not over.is_set():
        for number, client in enumerate(talkers):
            if number % 25 == 0:
                await asyncio.sleep(max(0.0, due + EACH_S * number / len(talkers) - loop.time()))
            if client.closed is None:
                await client.talk()
        due += EACH_S


@contextlib.asynccontextmanager
async def process(role: str, place: str) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    command = (sys.executable, "-m", "benchmarks.relay", "--role", role, "--place", place)
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        yield child, (await child.stdout.readline()).decode().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    place = str(Path(tempfile.mkdtemp(prefix="qc-relay-")) / "owner.sock")
    rows: dict[str, Any] = {"sockets": options.sockets, "talking_percent": options.talking, "noise": options.noise}
    async with contextlib.AsyncExitStack() as stack:
        owner, _ = await stack.enter_async_context(process("owner", place))
        relaying, said = await stack.enter_async_context(process("relay", place))
        url, key = said.split()
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        over = asyncio.Event()
        clients = [Client() for _ in range(options.sockets)]
        async with asyncio.TaskGroup() as tasks:
            for at in range(0, len(clients), OPENING):
                batch = clients[at : at + OPENING]
                for number, client in enumerate(batch, at):
                    address = f"{url}/v1/conversations/c-{number}/audio"
                    tasks.create_task(client.run(session, address, key, over))
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.gather(*(client.open.wait() for client in batch))
            talkers = clients if options.noise else clients[: len(clients) * options.talking // 100]
            talking = tasks.create_task(talk_until(over, talkers))
            await asyncio.sleep(SETTLE_S)
            before, began = usage(relaying.pid), time.monotonic()
            await asyncio.sleep(options.seconds)
            after, took = usage(relaying.pid), time.monotonic() - began
            rows["cores"] = round(after.since(before).cpu_s / took, 3)
            rows["sent_per_s"] = round(sum(client.sent for client in clients) / (RATE * EACH_S * (SETTLE_S + took)), 0)
            owner.send_signal(signal.SIGUSR1)
            await asyncio.sleep(SETTLE_S)
            owner.terminate()
            await owner.wait()
            owner, _ = await stack.enter_async_context(process("owner", place))
            await asyncio.sleep(SETTLE_S)
            owner.kill()
            await owner.wait()
            await stack.enter_async_context(process("owner", place))
            await asyncio.sleep(SETTLE_S)
            rows["mb"] = round(usage(relaying.pid).rss_mb, 0)
            over.set()
            await talking
            for client in clients:
                if client.closed is None:
                    await client.socket.send_str('{"type":"end"}')
    rows["closed"] = sum(client.closed is not None for client in clients)
    rows["lost"] = sum(client.sent - (client.received or 0) for client in clients)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay")
    parser.add_argument("--sockets", type=int, default=1_000)
    parser.add_argument("--talking", type=int, default=15, help="of a hundred")
    parser.add_argument("--noise", action="store_true", help="the others send silence")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--role", choices=("owner", "relay"), help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is not None:
        uvloop.run({"owner": own, "relay": be_relay}[options.role](options.place))
        return
    rows = uvloop.run(measure(options))
    for name, value in rows.items():
        print(f"{name:16} {value}")
    print(json.dumps({"what": "relay", **rows}))
    sys.exit(0 if rows["closed"] == rows["lost"] == 0 and rows["cores"] <= CORES else 1)


if __name__ == "__main__":
    main()
