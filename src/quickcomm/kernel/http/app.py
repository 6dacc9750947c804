"""The one application: an entrypoint hands in the routes of all its modules."""

from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web

from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.http.problems import problem, problem_of
from quickcomm.kernel.http.traced import traced
from quickcomm.kernel.telemetry import tracing

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


def create_app(routes: Iterable[web.AbstractRouteDef]) -> web.Application:
    """Routes of all modules, with problem documents for errors and safe headers on every answer.

    Tracing is set up before.
    """
    middlewares = [traced, problem_documents] if tracing().on else [problem_documents]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    app.add_routes(routes)
    app.on_response_prepare.append(_add_headers)
    return app


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
