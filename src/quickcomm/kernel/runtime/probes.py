"""What every service answers to whoever watches it: alive, ready, figures. The edge asks on the process's socket."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from quickcomm import __version__
from quickcomm.kernel.telemetry.exposition import metrics_answer

HEALTHY: Final = "/healthz"
READY: Final = "/readyz"
METRICS: Final = "/metrics"


class State(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    version: str


def probes(
    admit: Callable[[web.Request], Awaitable[object]], degraded: Callable[[], bool] = lambda: False
) -> list[web.RouteDef]:
    """For a process that has loaded all that it needs before it listens.

    `admit`: who may see figures. `degraded`: whether it has an alarm; it is ready all the same, and its clients stay.
    """

    async def healthy(_request: web.Request) -> web.Response:
        return _json(State(status="ok", version=__version__))

    async def ready(_request: web.Request) -> web.Response:
        return _json(State(status="degraded" if degraded() else "ready", version=__version__))

    async def metrics(request: web.Request) -> web.Response:
        await admit(request)
        return metrics_answer()

    return [web.get(HEALTHY, healthy), web.get(READY, ready), web.get(METRICS, metrics)]


def _json(value: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
