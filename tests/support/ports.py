"""Free TCP ports for the servers that tests start, on 127.0.0.1.

A port that the kernel chose and that was closed again may be given to the next program before our server binds it. So
each test process reserves a block of ports below the kernel's ephemeral range, and hands them out one after another:
workers of one run, and several runs on one machine, never share a port.
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import cycle
from typing import Final

HOST: Final = "127.0.0.1"
FIRST: Final = 20_000
END: Final = 32_000  # Linux hands out ephemeral ports from 32,768
BLOCK: Final = 200


def free_port() -> int:
    """Return a port of this process's block to which nothing is bound. Raises `RuntimeError` if there is none."""
    ports = _ports()
    for _ in range(BLOCK):
        port = next(ports)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: ignore closing connections
            probe.bind((HOST, port))
            return port
    raise RuntimeError(f"All ports of the block at {_block().getsockname()[1]} are bound.")


@cache
def _block() -> socket.socket:
    """Reserve a block: a socket bound to its first port, held until this process ends."""
    for first in range(FIRST, END, BLOCK):
        guard = socket.socket()
        try:
            guard.bind((HOST, first))
        except OSError:
            guard.close()
        else:
            return guard
    raise RuntimeError(f"No block of {BLOCK} ports is free between {FIRST} and {END}.")


@cache
def _ports() -> Iterator[int]:
    first: int = _block().getsockname()[1]
    return cycle(range(first + 1, first + BLOCK))
