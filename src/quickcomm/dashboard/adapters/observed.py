"""What this side's REST answers are measured by: how many fail, how long they take, whether the other side agrees."""

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import cast

from aiohttp import web

from quickcomm.contracts.routes import client_bucket
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.http import status_of
from quickcomm.kernel.http.app import Handler
from quickcomm.kernel.keys.auth import credential_of
from quickcomm.kernel.telemetry.measured import Measurements


def observed(
    routes: Sequence[web.RouteDef], measurements: Measurements, offer: Callable[[web.Request, bytes], None]
) -> list[web.RouteDef]:
    """Return the routes with handlers that count; `offer` gets each good answer."""
    return [
        web.RouteDef(
            each.method, each.path, _observing(cast("Handler", each.handler), measurements, offer), each.kwargs
        )
        for each in routes
    ]


def _observing(handler: Handler, measurements: Measurements, offer: Callable[[web.Request, bytes], None]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        began = time.perf_counter()
        failed = True
        try:
            answer = await handler(request)
        except QuickCommError as error:
            failed = status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        else:
            failed = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        finally:
            measurements.client(client_bucket(credential_of(request)))
            measurements.answered((time.perf_counter() - began) * 1e3, failed=failed)
        if answer.status == HTTPStatus.OK and isinstance(answer, web.Response) and isinstance(answer.body, bytes):
            offer(request, answer.body)
        return answer

    return handle
