"""The one application: an entrypoint hands in the routes of all its modules."""

from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Final, Protocol

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.http.problems import problem, problem_of
from quickcomm.kernel.http.traced import traced
from quickcomm.kernel.telemetry import tracing

INTERNAL: Final = "/internal"
"""Between services only: the edge passes on nothing below it, and nobody is answered without a service token."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES: Final = 64 * 1024
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}

log = structlog.get_logger(__name__)


class Gate(Protocol):
    """Who lets services in: `kernel.trust.ServiceTrust`."""

    def require(self, request: web.Request, *callers: str) -> str: ...


def create_app(routes: Iterable[web.AbstractRouteDef], gate: Gate | None = None) -> web.Application:
    """Routes of all modules, with problem documents for errors and safe headers on every answer.

    Tracing is set up before. `gate`: needed where there are routes below `/internal`. It lets in any service that is
    known; which of them may call what, each handler says itself.
    """
    middlewares = [problem_documents, _guarded(gate)]
    if tracing().on:
        middlewares.insert(0, traced)
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    app.add_routes(routes)
    if gate is None and (open_ones := [path for path in map(_canonical, app.router.resources()) if is_internal(path)]):
        raise ValueError(f"Nobody guards {', '.join(open_ones)}: give create_app a gate.")
    app.on_response_prepare.append(_add_headers)
    return app


def is_internal(path: str) -> bool:
    return path == INTERNAL or path.startswith(f"{INTERNAL}/")


def _canonical(resource: web.AbstractResource) -> str:
    return resource.canonical


def _guarded(gate: Gate | None) -> Middleware:
    """Nothing internal is answered to strangers, also where a handler has forgotten to ask."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if gate is not None and is_internal(request.path):
            gate.require(request)
        return await handler(request)

    return guard


@web.middleware
async def problem_documents(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except QuickCommError as error:
        return problem_of(error, request.path)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        code = HTTPStatus(error.status).phrase.lower().replace(" ", "_")
        return problem(error.status, code, error.reason, instance=request.path, headers=headers)
    except web.RequestPayloadError:
        return problem(400, "bad_request", "The body of the request is broken.", instance=request.path)
    except Exception:
        log.exception("http.failed", method=request.method, route=_route(request))
        return problem(500, "internal", "Something went wrong; the server's log says more.", instance=request.path)


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "-"


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.popall(hdrs.SERVER, None)  # whoever looks for old versions need not be told
