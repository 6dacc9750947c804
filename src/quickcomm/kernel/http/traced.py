"""Spans of HTTP requests and WebSocket connections, on both ends; `traceparent` carries the one to the other.

Names and attributes follow OpenTelemetry's conventions for HTTP. No query and no header is in them: a key may be there.
"""

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Final

import aiohttp
from aiohttp import web

from quickcomm.kernel.telemetry import tracing

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADER: Final = "traceparent"
UNTRACED: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked again and again by whoever watches."""
_FAILED: Final = 500


@web.middleware
async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Outermost, so that what it sees is what the client gets."""
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "-"
    if route in UNTRACED:
        return await handler(request)
    parent = request.headers.get(HEADER)
    with tracing().call(f"{request.method} {route}", "server", parent=parent) as call:
        call.note(http__request__method=request.method, http__route=route)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            call.lasting()
        try:
            response = await handler(request)
        except web.HTTPException as redirect:
            call.note(http__response__status_code=redirect.status)
            raise
        call.note(http__response__status_code=response.status)
        if response.status >= _FAILED:
            call.failed(str(response.status))
        return response


def traced_client() -> list[aiohttp.TraceConfig]:
    """For `aiohttp.ClientSession(trace_configs=…)`: each request is a span, and the other end belongs to it."""
    if not tracing().on:
        return []
    config = aiohttp.TraceConfig()
    config.on_request_start.append(_begin)
    config.on_request_end.append(_end)
    config.on_request_exception.append(_fail)
    return [config]


async def _begin(
    _session: aiohttp.ClientSession, context: SimpleNamespace, request: aiohttp.TraceRequestStartParams
) -> None:
    # The path may hold what is not to be told; whoever is asked knows its route.
    call = context.call = tracing().call(request.method, "client")
    call.__enter__()
    call.note(http__request__method=request.method)
    if call.traceparent is not None:
        request.headers[HEADER] = call.traceparent


async def _end(
    _session: aiohttp.ClientSession, context: SimpleNamespace, answer: aiohttp.TraceRequestEndParams
) -> None:
    context.call.note(http__response__status_code=answer.response.status)
    if answer.response.status >= _FAILED:
        context.call.failed(str(answer.response.status))
    context.call.__exit__(None, None, None)


async def _fail(
    _session: aiohttp.ClientSession, context: SimpleNamespace, failure: aiohttp.TraceRequestExceptionParams
) -> None:
    context.call.__exit__(type(failure.exception), failure.exception, None)
