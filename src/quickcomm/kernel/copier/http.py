"""A source over HTTP: routes on the side that has the tables, a client on the side that wants them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

import aiohttp
import msgspec
from aiohttp import web

from quickcomm.contracts.backfill import MAX_PAGE, PATH, BackfillPage, BackfillTotal
from quickcomm.kernel.copier.copier import CopyError, CopySourceUnavailableError, Source
from quickcomm.kernel.errors import InvalidInputError

T = TypeVar("T")
Check = Callable[[web.Request], object]
"""Raises where the caller may not ask."""
TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=2)
MAX_ANSWER: Final = 64 * 2**20


def copy_routes(source: Source, check: Check, at: str = PATH) -> Sequence[web.AbstractRouteDef]:
    def route(path: str, read: Callable[[str, str, int], Awaitable[msgspec.Struct]]) -> web.RouteDef:
        async def answer(request: web.Request) -> web.Response:
            check(request)
            limit = request.query.get("limit", str(MAX_PAGE))
            if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_PAGE):
                raise InvalidInputError(f"`limit` must be a number from 1 to {MAX_PAGE}.")
            found = await read(request.match_info["table"], request.query.get("after", ""), int(limit))
            return web.Response(body=msgspec.msgpack.encode(found), content_type="application/vnd.msgpack")

        return web.get(path, answer)

    return [route(f"{at}/{{table}}", source.page), route(f"{at}/{{table}}/total", source.total)]


class HttpSource:
    """A `Source`. Connects for every page: the process that answers may have been started again elsewhere."""

    def __init__(
        self,
        connector: Callable[[], aiohttp.BaseConnector],
        headers: Callable[[], Mapping[str, str]],
        url: str,
        at: str = PATH,
    ) -> None:
        """`connector`: returns a new one for every call, `headers`: those that authenticate this service.

        `at`: the path that the other side has given to `copy_routes`.
        """
        self._at = at
        self._connector = connector
        self._headers = headers
        self._url = url

    async def page(self, table: str, after: str, limit: int) -> BackfillPage:
        return await self._get(table, after, limit, BackfillPage)

    async def total(self, table: str, after: str, limit: int) -> BackfillTotal:
        return await self._get(f"{table}/total", after, limit, BackfillTotal)

    async def _get(self, path: str, after: str, limit: int, kind: type[T]) -> T:
        query = {"after": after, "limit": str(limit)}
        try:
            async with (
                aiohttp.ClientSession(connector=self._connector(), timeout=TIMEOUT) as session,
                session.get(f"{self._url}{self._at}/{path}", params=query, headers=self._headers()) as answer,
            ):
                if answer.status == web.HTTPBadRequest.status_code:
                    raise CopyError(f"The service with the source refused a request for {path}.")
                if answer.status != web.HTTPOk.status_code:
                    raise CopySourceUnavailableError(f"The service with the source answered {answer.status} to {path}.")
                if (answer.content_length or 0) > MAX_ANSWER:
                    raise CopyError(f"A page of {path} has more than {MAX_ANSWER} bytes.")
                return msgspec.msgpack.decode(await answer.read(), type=kind)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CopySourceUnavailableError(
                f"The service with the source does not answer: {type(error).__name__}."
            ) from error
        except msgspec.ValidationError as error:
            raise CopyError(f"The answer for {path} is no page: {error}") from error
