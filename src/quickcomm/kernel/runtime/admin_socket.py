"""Requests from the command line: a Unix socket beside a process, plain JSON values in, plain JSON values out."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import web

from quickcomm.contracts.messaging import Request, name_of
from quickcomm.kernel.errors import MALFORMED, BusyError, InvalidInputError, NotFoundError, QuickCommError
from quickcomm.kernel.messaging.rpc.local import LocalRpc
from quickcomm.kernel.messaging.rpc.port import NotOwnerError

CALL_TIMEOUT_S: Final = 600.0
SHUTDOWN_TIMEOUT_S: Final = 2.0
Rows = list[dict[str, Any]]


class UnknownCommandError(NotFoundError):
    """The process that was asked does not answer it."""

    code = "command.unknown"


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    command: str
    arguments: msgspec.Raw


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`rows`, or an error."""

    rows: Rows | None = None
    code: str = ""
    detail: str = ""


async def rows_of(rpc: LocalRpc, request: Request[Any]) -> Rows:
    """Have the handler of this process answer; return the reply as rows of plain values."""
    reply = msgspec.to_builtins(await rpc.answer(request))
    return list(reply) if isinstance(reply, list | tuple) else [reply]


@contextlib.asynccontextmanager
async def admin_socket(rpc: LocalRpc, path: Path) -> AsyncIterator[None]:
    """Answer on a Unix socket that only this user may open: whatever `rpc` answers in this process, and its metrics."""

    async def handle(request: web.Request) -> web.Response:
        try:
            rows = await rows_of(rpc, _asked(rpc, await request.read()))
        except QuickCommError as error:
            return _json(_Answer(code=error.code, detail=str(error)), 400)
        except MALFORMED as error:
            return _json(_Answer(code="invalid_input", detail=f"Bad arguments: {error}"), 400)
        return _json(_Answer(rows=rows), 200)

    async def metrics(_request: web.Request) -> web.Response:
        from quickcomm.kernel.telemetry.exposition import metrics_answer  # noqa: PLC0415 - commands that ask need none

        return metrics_answer()

    app = web.Application()
    app.add_routes([web.post("/call", handle), web.get("/metrics", metrics)])
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


async def ask(socket: Path, request: Request[Any], timeout_s: float | None = CALL_TIMEOUT_S) -> Rows:
    """Raise `aiohttp.ClientConnectionError` where no process listens.

    `UnknownCommandError` and `NotOwnerError` where it is a wrong one, `BusyError` where it may answer later,
    `InvalidInputError` where it refuses.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    body = msgspec.json.encode({"command": name_of(type(request)), "arguments": request})
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=timeout) as client,
        client.post("http://quickcomm/call", data=body, headers={"Content-Type": "application/json"}) as response,
    ):
        body = await response.read()
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except MALFORMED as error:
        raise QuickCommError(f"The server failed to answer {name_of(type(request))!r}; its log says more.") from error
    if answer.rows is not None:
        return answer.rows
    kinds = {kind.code: kind for kind in (UnknownCommandError, NotOwnerError, BusyError)}
    raise kinds.get(answer.code, InvalidInputError)(answer.detail)


def _asked(rpc: LocalRpc, body: bytes) -> Request[Any]:
    call = msgspec.json.decode(body, type=_Call)
    for kind in rpc.answers:
        if name_of(kind) == call.command:
            found: Request[Any] = msgspec.json.decode(call.arguments, type=kind)
            return found
    raise UnknownCommandError(f"There is no command {call.command!r}.")


def _json(answer: _Answer, status: int) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(answer), content_type="application/json")
