"""A small process of a module, for tests of what is around it: registers, answers, echoes, finishes when asked to.

Run as `python -m tests.support.instance NAME SOCKET REGISTRY`. With a file
`SOCKET.ill` it answers that it is not ready, with `SOCKET.full` it has no room for conversations.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from aiohttp import WSMsgType, web

from quickcomm.contracts.routes import HEADER
from quickcomm.kernel.discovery import DirectoryRegistry, Instance, registered

SOCKETS = web.AppKey("sockets", list[web.WebSocketResponse])


def app(name: str, ill: Path) -> web.Application:
    async def ready(_request: web.Request) -> web.Response:
        return web.Response(status=503 if ill.exists() else 200)  # noqa: ASYNC240 - a test

    async def who(request: web.Request) -> web.Response:
        body = await request.read()
        trace = request.headers.get("traceparent", "")
        forwarded = request.headers.get("X-Forwarded-For", "")
        return web.json_response(
            {
                "name": name,
                "pid": os.getpid(),
                "bytes": len(body),
                "forwarded": forwarded,
                "scheme": request.headers.get("X-Forwarded-Proto", ""),
                "traceparent": trace,
                "routes": request.headers.getall(HEADER, []),
            }
        )

    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(3_600)
        return web.Response()

    async def hear(request: web.Request) -> web.StreamResponse:
        if ill.with_suffix(".full").exists():
            return web.Response(status=503, headers={"Retry-After": "2"})
        return await echo(request)

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        request.app[SOCKETS].append(socket)
        await socket.send_str(name)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
        return socket

    made = web.Application(client_max_size=64 * 1024 * 1024)
    made[SOCKETS] = []
    made.add_routes(
        [
            web.get("/readyz", ready),
            web.get("/v1/live", echo),
            web.get("/v1/conversations/{id}/audio", hear),
            web.get("/v1/ingest/{kind}", echo),
            web.get("/v1/slow", slow),
            web.route("*", "/{path:.*}", who),
        ]
    )
    return made


async def main(name: str, socket: str, registry: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    made = app(name, Path(f"{socket}.ill"))
    runner = web.AppRunner(made, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.UnixSite(runner, socket).start()
    me = Instance(module=name.rpartition("-")[0], name=name, pid=os.getpid(), version="1", socket=socket)
    async with registered(DirectoryRegistry(Path(registry)), me):
        await stop.wait()
    for each in made[SOCKETS]:
        await each.close(code=1012)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
