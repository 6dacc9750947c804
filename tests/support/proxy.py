"""A wire that can be cut: a TCP proxy in front of a server, for what networks do to connections."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

_PIECE: Final = 4_096
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

    def __init__(self, port: int, watch: Watch | None = None) -> None:
        self._target = port
        self._watch = watch
        self.links: list[Link] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, to_server)
        self.links.append(link)
        await asyncio.gather(self._pass(link, reader, to_server, up=True), self._pass(link, from_server, writer))

    async def _pass(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                if up:
                    link.sent += len(data)
                else:
                    link.heard += len(data)
                if self._watch is not None:
                    self._watch(link)
                await link.passes()
                writer.write(data)
                await writer.drain()
        await link.passes()
        with suppress(OSError, RuntimeError):
            writer.close()


@asynccontextmanager
async def proxied(port: int, watch: Watch | None = None) -> AsyncGenerator[Proxy]:
    proxy = Proxy(port, watch)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=_PIECE)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for link in proxy.links:
            link.reset()
        await asyncio.sleep(0)  # let the ends see that they are cut
