"""Operators' commands: a Unix socket beside a process, plain JSON values in, plain JSON values out."""

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
from aiohttp import web

from quickcomm.kernel.errors import InvalidInputError, NotFoundError, QuickCommError

CALL_TIMEOUT_S: Final = 600.0
SHUTDOWN_TIMEOUT_S: Final = 2.0
Arguments = dict[str, Any]
Answer = list[dict[str, Any]]
Command = Callable[[Arguments], Awaitable[Answer]]


class Answering(Protocol):
    """Who answers on a local socket."""

    async def call(self, command: str, arguments: Arguments) -> Answer: ...


class Administration:
    """Every command takes and gives plain JSON values; `call` finds it by name."""

    def __init__(self, *commands: Mapping[str, Command]) -> None:
        self._commands = {name: command for group in commands for name, command in group.items()}

    async def call(self, command: str, arguments: Arguments) -> Answer:
        """Raises `QuickCommError` with a text for the operator."""
        if command not in self._commands:
            raise NotFoundError(f"There is no command {command!r}.")
        return await self._commands[command](arguments)


@contextlib.asynccontextmanager
async def admin_socket(administration: Answering, path: Path) -> AsyncIterator[None]:
    """Listen on a Unix socket that only this user may open."""

    async def handle(request: web.Request) -> web.Response:
        try:
            body = await request.json()
            rows = await administration.call(str(body["command"]), dict(body["arguments"]))
        except QuickCommError as error:
            return web.json_response({"code": error.code, "detail": str(error)}, status=400)
        except (KeyError, TypeError, ValueError) as error:
            return web.json_response({"code": "invalid_input", "detail": f"Bad arguments: {error}"}, status=400)
        return web.json_response({"rows": rows})

    app = web.Application()
    app.add_routes([web.post("/call", handle)])
    # Who hangs up wants no answer any more: an evaluation of many paid calls ends with the command that asked for it.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, at start
    before = os.umask(0o077)
    try:
        await web.UnixSite(runner, str(path)).start()
    finally:
        os.umask(before)
    try:
        yield
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, at the end


async def ask(socket: Path, command: str, arguments: Arguments, timeout_s: float | None = CALL_TIMEOUT_S) -> Answer:
    """Raises `aiohttp.ClientConnectionError` where nobody listens."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    body = {"command": command, "arguments": arguments}
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=timeout) as client,
        client.post("http://quickcomm/call", json=body) as response,
    ):
        answer = await response.json()
    if "rows" not in answer:
        raise InvalidInputError(answer["detail"])
    rows: Answer = answer["rows"]
    return rows
