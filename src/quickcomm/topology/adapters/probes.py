"""Whether a process can do its work: asked over its Unix socket."""

from typing import Final

import aiohttp

READY_PATH: Final = "/readyz?of=process"
TIMEOUT_S: Final = 2.0


class HttpProbe:
    """`GET /readyz` answers 200."""

    def __init__(self, socket: str, path: str = READY_PATH) -> None:
        self._socket = socket
        self._path = path

    async def __call__(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.UnixConnector(self._socket)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
                client.get(f"http://quickcomm{self._path}") as answer,
            ):
                return answer.ok
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False
