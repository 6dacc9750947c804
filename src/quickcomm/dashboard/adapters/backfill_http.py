"""The earlier database over HTTP: routes on the side that has it, a client on the side that wants it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import aiohttp
import msgspec
from aiohttp import web

from quickcomm.contracts.backfill import MAX_PAGE, PATH, BackfillPage, BackfillTotal
from quickcomm.dashboard.service.backfill import BackfillAwayError, BackfillError, Source
from quickcomm.kernel.errors import InvalidInputError

T = TypeVar("T")
Check = Callable[[web.Request], object]
"""Raises where the caller may not ask."""
Headers = Callable[[], Mapping[str, str]]
TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=2)
MAX_ANSWER: Final = 64 * 2**20
MEDIA_TYPE: Final = "application/vnd.msgpack"
BAD_REQUEST: Final = 400


def backfill_routes(source: Source, check: Check) -> Sequence[web.AbstractRouteDef]:
    async def page(request: web.Request) -> web.Response:
        check(request)
        answer = await source.page(request.match_info["table"], request.query.get("after", ""), _limit(request))
        return web.Response(body=msgspec.msgpack.encode(answer), content_type=MEDIA_TYPE)

    async def total(request: web.Request) -> web.Response:
        check(request)
        answer = await source.total(request.match_info["table"], request.query.get("after", ""), _limit(request))
        return web.Response(body=msgspec.msgpack.encode(answer), content_type=MEDIA_TYPE)

    return [web.get(f"{PATH}/{{table}}", page), web.get(f"{PATH}/{{table}}/total", total)]


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(MAX_PAGE))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_PAGE):
        raise InvalidInputError(f"`limit` must be a number from 1 to {MAX_PAGE}.")
    return int(text)


class HttpBackfillSource:
    """Implements `Source`. Connects for every page: whoever answers may have been started again elsewhere."""

    def __init__(
        self, connector: Callable[[], aiohttp.BaseConnector], headers: Headers, url: str = "http://intelligence"
    ) -> None:
        """`connector`: a new one for every call, such as `aiohttp.UnixConnector` on a socket of the registry."""
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
                session.get(f"{self._url}{PATH}/{path}", params=query, headers=self._headers()) as answer,
            ):
                if answer.status == BAD_REQUEST:
                    raise BackfillError(f"The service with the earlier database refused a request for {path}.")
                if answer.status != web.HTTPOk.status_code:
                    raise BackfillAwayError(
                        f"The service with the earlier database answered {answer.status} to {path}."
                    )
                if (answer.content_length or 0) > MAX_ANSWER:
                    raise BackfillError(f"A page of {path} has more than {MAX_ANSWER} bytes.")
                return msgspec.msgpack.decode(await answer.read(), type=kind)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise BackfillAwayError(
                f"The service with the earlier database does not answer: {type(error).__name__}."
            ) from error
        except msgspec.ValidationError as error:
            raise BackfillError(f"What came for {path} is no page: {error}") from error
