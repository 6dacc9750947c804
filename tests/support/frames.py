"""WebSocket frames by hand, right and wrong, over a plain socket: for what no client library would send."""

import asyncio
import base64
import contextlib
import os
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import msgspec

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
PATIENCE_S: Final = 30.0
_MASK: Final = b"\x11\x22\x33\x44"


class Frame(msgspec.Struct, frozen=True):
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """1005: a close without a code."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, declared: int | None = None
) -> bytes:
    """A masked frame of a client. `reserved`: RSV1 to RSV3 as 4, 2, 1; `declared`: the length that it claims."""
    size = len(payload) if declared is None else declared
    head = bytes([fin << 7 | reserved << 4 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 2**16:
        head += bytes([0x80 | 126]) + struct.pack(">H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", size)
    return head + _MASK + bytes(byte ^ _MASK[at % 4] for at, byte in enumerate(payload))


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


class RawSocket:
    """A connection after its upgrade."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # the server may have closed while this is sent
            self._writer.write(data)
            await self._writer.drain()

    async def hear(self) -> Frame | None:
        """The server's next frame; None when it has closed the connection."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                first, size = await self._reader.readexactly(2)
                if size == 126:
                    [size] = struct.unpack(">H", await self._reader.readexactly(2))
                elif size == 127:
                    [size] = struct.unpack(">Q", await self._reader.readexactly(8))
                return Frame(first & 0x0F, await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def until(self, opcode: int) -> Frame:
        while (heard := await self.hear()) is not None:
            if heard.opcode == opcode:
                return heard
        raise AssertionError(f"The connection was closed before a frame with opcode {opcode}.")

    async def until_closed(self) -> int:
        """The code of the server's close, and then the connection is closed too; 1006: without a close."""
        code = 1006
        while (heard := await self.hear()) is not None:
            if heard.opcode == CLOSE:
                code = heard.close_code
                await self.send(close(code) if code != 1005 else frame(CLOSE))
        return code


@asynccontextmanager
async def raw_socket(url: str, path: str, key: str) -> AsyncGenerator[RawSocket]:
    """Upgrade; the connection is broken off in the end."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        nonce = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {key}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n\r\n".encode()
        )
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        yield RawSocket(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
