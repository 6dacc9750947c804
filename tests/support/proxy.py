"""A wire that can be cut: a proxy in front of a server, on TCP or Unix sockets, for what networks do to connections."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

_PIECE: Final = 4_096
_ON_THE_WAY: Final = 256
"""Pieces that a frozen link holds: more than any test's answers."""
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what is unsent, and says RST


class Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = (client, server)
        self.sent = 0
        """Bytes that came from the client."""
        self.heard = 0
        """Bytes that came from the server."""
        self._flows = asyncio.Event()
        self._flows.set()

    def freeze(self) -> None:
        """Half-open: both ends believe in it, and nothing passes any more."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def reset(self) -> None:
        """RST to both ends."""
        for end in self._ends:
            link = end.get_extra_info("socket")
            with suppress(OSError):
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()
        self._flows.set()

    async def passes(self) -> None:
        await self._flows.wait()


Watch = Callable[[Link], None]


class Proxy:
    """`watch` is called after each piece, before it is passed on; it may freeze or reset the link."""

    def __init__(self, target: int | Path, watch: Watch | None = None) -> None:
        """`target`: the port of a server on the loopback, or its Unix socket."""
        self._target = target
        self._watch = watch
        self.delay_s = 0.0
        """So long each piece from the server is on its way."""
        self.links: list[Link] = []
        self.url = ""
        self.is_stalled = False
        """New connections are frozen from their beginning."""
        self._away = False

    def cut(self) -> None:
        """No network: connections break, and no new ones are made until `mend`."""
        self._away = True
        self.reset()

    def reset(self) -> None:
        """Break all connections; new ones are made at once."""
        for link in self.links:
            link.reset()

    def freeze(self) -> None:
        """Let nothing pass, on connections that are there and on new ones, until `thaw`."""
        self.is_stalled = True
        for link in self.links:
            link.freeze()

    def thaw(self) -> None:
        self.is_stalled = False
        for link in self.links:
            link.thaw()

    def mend(self) -> None:
        """End whatever it does to connections."""
        self._away, self.delay_s = False, 0.0
        self.thaw()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._away:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, to_server)
        self.links.append(link)
        if self.is_stalled:
            link.freeze()
        on_the_way: asyncio.Queue[bytes] = asyncio.Queue(_ON_THE_WAY)
        await asyncio.gather(
            self._pass(link, reader, to_server),
            self._take(link, from_server, on_the_way),
            self._give(link, on_the_way, writer),
        )

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection("127.0.0.1", self._target)

    async def _pass(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """To the server: a link that is frozen takes no more than the sockets hold."""
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                link.sent += len(data)
                self._seen(link)
                await link.passes()
                writer.write(data)
                await writer.drain()
        await link.passes()
        with suppress(OSError, RuntimeError):
            writer.close()

    async def _take(self, link: Link, reader: asyncio.StreamReader, on_the_way: asyncio.Queue[bytes]) -> None:
        """From the server: what it has sent is on its way, also when it gives up the connection meanwhile."""
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                link.heard += len(data)
                self._seen(link)
                await on_the_way.put(data)
        await on_the_way.put(b"")

    async def _give(self, link: Link, on_the_way: asyncio.Queue[bytes], writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await on_the_way.get():
                await link.passes()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        await link.passes()
        with suppress(OSError, RuntimeError):
            writer.close()

    def _seen(self, link: Link) -> None:
        if self._watch is not None:
            self._watch(link)


@asynccontextmanager
async def proxied(port: int, watch: Watch | None = None, *, socket_path: Path | None = None) -> AsyncGenerator[Proxy]:
    """Listen on a free port of the loopback, or on a Unix socket."""
    proxy = Proxy(port, watch)
    if socket_path is not None:
        server: asyncio.Server = await asyncio.start_unix_server(proxy.serve, socket_path, limit=_PIECE)
        proxy.url = f"unix://{socket_path}"
    else:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=_PIECE)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for link in proxy.links:
            link.reset()
        await asyncio.sleep(0)  # let the ends see that they are cut
