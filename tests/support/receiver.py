"""A receiver of notices on loopback, which answers as it is told, and remembers what came."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiohttp import web

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SAYS_NOTHING: Final = "says nothing"
HANGS_UP: Final = "hangs up"
HERE: Final = "/notices"
ELSEWHERE: Final = "/elsewhere"

Kind = int | str
"""An HTTP status, or one of the two above."""


class Got(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["data"]
        return found


class Receiver:
    """`script`: what is answered to the next requests; then 204. `on_request`: called before each answer.

    `choose`: chooses the answer where there is no script.
    """

    def __init__(self) -> None:
        self.url = ""
        self.got: list[Got] = []
        self.script: deque[Kind] = deque()
        self.answer_headers: dict[str, str] = {}
        self.on_request: Callable[[], Any] = lambda: None
        self.choose: Callable[[Got], Kind] = lambda _: 204
        self.came = asyncio.Event()
        self.goes_on = asyncio.Event()
        """Set at the end, so that nothing that says nothing is left."""

    def will(self, *kinds: Kind) -> None:
        self.script.extend(kinds)

    @property
    def ids(self) -> set[str]:
        return {each.id for each in self.got}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        got = Got(path=request.path, headers=headers, body=await request.read())
        self.got.append(got)
        self.came.set()
        if (waiting := self.on_request()) is not None:
            await waiting
        kind = self.script.popleft() if self.script else self.choose(got)
        if kind == SAYS_NOTHING:
            await self.goes_on.wait()
        if kind == HANGS_UP and request.transport is not None:
            request.transport.abort()
        status = kind if isinstance(kind, int) else 500
        more = {"Location": ELSEWHERE} if status // 100 == 3 else {}
        return web.Response(status=status, headers={**self.answer_headers, **more})


@asynccontextmanager
async def receiving(kinds: Iterable[Kind] = ()) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    receiver.will(*kinds)
    app = web.Application()
    app.add_routes([web.post(path, receiver.handle) for path in (HERE, ELSEWHERE)])
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}{HERE}"
    try:
        yield receiver
    finally:
        receiver.goes_on.set()
        await runner.cleanup()
