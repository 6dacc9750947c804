"""Requests to modules of other processes: HTTP over their Unix sockets, found by the registry, with service tokens.

`POST /internal/v1/NAME` with the request as JSON; the reply is JSON, an error a problem document. Until the release
after 0.1.0 is everywhere, `GET` with the fields in the query is understood and tried as well: 0.1.0 asks, and is asked,
so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
import structlog
from aiohttp import web

from quickcomm.contracts.messaging import Request, name_of, reply_type
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import Instance, Registry
from quickcomm.kernel.errors import MALFORMED, BusyError, InvalidInputError, QuickCommError
from quickcomm.kernel.http import error_of, problem, status_of, traced_client
from quickcomm.kernel.internal import MONOLITH, Trust
from quickcomm.kernel.messaging.rpc.local import LocalRpc
from quickcomm.kernel.messaging.rpc.port import DeadlineError, NotOwnerError, UnansweredError, UnsupportedError

PATH: Final = "/internal/v1"
ANSWERED: Final = "Quickcomm-Answered"
"""Header of an error that the handler raised: others come from the way to it."""
NO_ROUTE: Final = frozenset({404, 405})

R = TypeVar("R")
log = structlog.get_logger(__name__)


class WireRpc:
    """Calls to the registered instances of other modules."""

    def __init__(self, registry: Registry, trust: Trust, clock: Clock, *, name: str = "") -> None:
        """`name`: the instance that calls, which does not call itself."""
        self._registry = registry
        self._trust = trust
        self._clock = clock
        self._name = name
        self._clients: dict[Instance, aiohttp.ClientSession] = {}

    async def call(self, request: Request[R]) -> R:
        """As `Rpc.call`: replicas are asked one after the other until one answers."""
        failed: QuickCommError = UnansweredError(request)
        for instance in self._replicas(request):
            try:
                return await self._ask(instance, request)
            except (UnansweredError, UnsupportedError, NotOwnerError) as error:
                log.info(
                    "rpc.unanswered", instance=instance.name, request=name_of(type(request)), error=repr(error)[:200]
                )
                failed = failed if isinstance(error, NotOwnerError) else error
        raise failed

    async def call_all(self, request: Request[R]) -> Mapping[str, R | QuickCommError]:
        async def ask(instance: Instance) -> R | QuickCommError:
            try:
                return await self._ask(instance, request)
            except QuickCommError as error:
                return error

        replicas = self._replicas(request)
        found = await asyncio.gather(*map(ask, replicas))
        return {instance.name: reply for instance, reply in zip(replicas, found, strict=True)}

    async def aclose(self) -> None:
        """Close the connections after the last call. May be called again."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _replicas(self, request: Request[Any]) -> list[Instance]:
        return [each for each in self._registry.instances() if each.has(request.module) and each.name != self._name]

    async def _ask(self, instance: Instance, request: Request[R]) -> R:
        try:
            async with self._clock.timeout(request.within_s):
                return await self._send(instance, request)
        except TimeoutError as error:
            raise DeadlineError(request) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnansweredError(request) from error
        except MALFORMED as error:
            raise UnsupportedError(type(request)) from error

    async def _send(self, instance: Instance, request: Request[R]) -> R:
        client = await self._client(instance)
        url, headers = f"http://{instance.module}{PATH}/{name_of(type(request))}", self._trust.headers(instance.module)
        async with client.post(url, data=msgspec.json.encode(request), headers=headers) as answer:
            if answer.status != web.HTTPMethodNotAllowed.status_code:
                return await _reply(answer, request)
        fields = {name: str(value) for name, value in msgspec.to_builtins(request).items() if value is not None}
        async with client.get(url, params=fields, headers=headers) as answer:
            return await _reply(answer, request)

    async def _client(self, instance: Instance) -> aiohttp.ClientSession:
        """Return the session of an instance, kept open; close those of instances that are gone."""
        found = self._clients.get(instance)
        if found is None:
            living = set(self._registry.instances())
            for gone in [known for known in self._clients if known not in living]:
                await self._clients.pop(gone).close()
            found = self._clients[instance] = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(instance.socket), trace_configs=traced_client()
            )
        return found


def connector_to(registry: Registry, module: str, side: str = "") -> aiohttp.UnixConnector:
    """Return a connector to an instance of a module, on a side where one is named.

    Raises `OSError` where there is none.
    """
    for instance in registry.instances():
        if instance.module == module and side in {"", instance.side}:
            return aiohttp.UnixConnector(instance.socket)
    raise ConnectionError(f"No instance of {module} is registered.")


async def _reply(answer: aiohttp.ClientResponse, request: Request[R]) -> R:
    body = await answer.read()
    if answer.ok:
        return msgspec.json.decode(body, type=reply_type(type(request)))
    if ANSWERED not in answer.headers:
        raise UnsupportedError(type(request)) if answer.status in NO_ROUTE else UnansweredError(request)
    failed = error_of(body)
    if failed.code == NotOwnerError.code:
        raise NotOwnerError(str(failed))
    raise DeadlineError(request) if failed.code == DeadlineError(request).code else failed


def rpc_routes(rpc: LocalRpc, trust: Trust, asleep: Collection[str] = ()) -> list[web.RouteDef]:
    """Return the routes by which other services ask what `rpc` answers and lets them ask.

    `asleep`: modules that answer here once they are started.
    """
    found = []
    later = [kind for kind in _kinds(Request) if kind.module in asleep] if asleep else []
    for kind in (kind for kind in dict.fromkeys((*rpc.answers, *later)) if kind.callers):
        handle = _handler(kind, rpc, trust)
        path = f"{PATH}/{name_of(kind)}"
        found += [web.post(path, handle), web.get(path, handle, allow_head=False)]
    return found


def _kinds(of: type[Request[Any]]) -> Iterator[type[Request[Any]]]:
    """Yield all requests that have a name."""
    for kind in of.__subclasses__():
        if kind.__struct_config__.tag is not None:
            yield kind
        yield from _kinds(kind)


def _handler(kind: type[Request[Any]], rpc: LocalRpc, trust: Trust) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        trust.require(request, *kind.callers, MONOLITH)
        if kind not in rpc.answers:
            raise BusyError("This part of the server has been stopped.")
        try:
            reply = await rpc.answer(await _asked(request, kind))
        except QuickCommError as error:
            return problem(status_of(error), error.code, str(error), headers={ANSWERED: "yes"}, members=error.members)
        return web.Response(body=msgspec.json.encode(reply), content_type="application/json")

    return handle


async def _asked(request: web.Request, kind: type[Request[R]]) -> Request[R]:
    try:
        if request.method == "GET":
            return msgspec.convert(dict(request.query), kind, strict=False)
        return msgspec.json.decode(await request.read(), type=kind)
    except MALFORMED as error:
        raise InvalidInputError(f"Not a request {name_of(kind)!r}: {error}") from error
