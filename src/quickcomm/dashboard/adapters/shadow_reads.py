"""Shadow reads: a sample of what people read is asked of the other side as well, and both answers are compared.

Nobody waits for it: the caller has its answer before, one comparison runs at a time, and others are left out meanwhile.
What differs at once is asked again of both, for what was just said may still be on its way. Now and then an answer is
held against a second one of the same side: so much differs by itself.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import msgspec
import structlog
from aiohttp import hdrs, web

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import Instance
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.telemetry.measured import Measurements

SHADOW: Final = "X-Quickcomm-Shadow"
"""Header of a request that is a comparison itself."""
ONE_OF: Final = 5
NOISE_ONE_OF: Final = 10
"""Of the comparisons, those with the same side."""
AGAIN_AFTER_S: Final = 1.0
TIMEOUT: Final = aiohttp.ClientTimeout(total=5)
PATHS: Final = ("/v1/utterances", "/v1/tasks", "/v1/conversations", "/v1/channels")
COUNTED: Final = frozenset({"after", "cursor"})
"""Parameters that only one side understands."""
VOLATILE: Final = frozenset({"change", "next_after", "next_cursor", "latency_ms", "side"})
"""Fields in which both sides differ though nothing is wrong: each counts and measures by itself."""
SENT_ON: Final = (hdrs.AUTHORIZATION, hdrs.COOKIE)

log = structlog.get_logger(__name__)


class ShadowReads:
    """`here` and `there`: an instance of this side and one of the other side, None while there is none."""

    def __init__(
        self,
        here: Callable[[], Instance | None],
        there: Callable[[], Instance | None],
        measurements: Measurements,
        clock: Clock,
    ) -> None:
        self._here = here
        self._there = there
        self._measurements = measurements
        self._clock = clock
        self._seen = 0
        self._made = 0
        self._task: asyncio.Task[None] | None = None

    def offer(self, request: web.Request, answer: bytes) -> None:
        """Compare this answer with that of the other side, if it is its turn. Never blocks."""
        if not _comparable(request) or (self._task is not None and not self._task.done()):
            return
        self._seen += 1
        here, there = self._here(), self._there()
        if self._seen % ONE_OF or here is None or there is None:
            return
        self._made += 1
        with_itself = self._made % NOISE_ONE_OF == 0
        self._task = asyncio.create_task(
            self._compare(request.path_qs, _headers(request), answer, here, here if with_itself else there),
            name="dashboard:shadow",
        )

    async def aclose(self) -> None:
        """End the comparison that runs. May be called again."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _compare(self, path: str, headers: dict[str, str], answer: bytes, one: Instance, other: Instance) -> None:
        try:
            difference = _difference(_plain(answer), await _read(other, path, headers))
            if difference:
                await self._clock.sleep(AGAIN_AFTER_S)
                difference = _difference(await _read(one, path, headers), await _read(other, path, headers))
        except (aiohttp.ClientError, OSError, TimeoutError, *MALFORMED) as error:
            log.info("shadow.not_compared", error=repr(error)[:200])
            return
        if one is other:
            self._measurements.noise(differs=bool(difference))
            return
        where = f"{path.partition('?')[0]}: {difference}" if difference else ""
        if where:
            log.warning("shadow.differs", where=where)
        self._measurements.compared(where)


def _comparable(request: web.Request) -> bool:
    return (
        request.method == hdrs.METH_GET
        and request.path.startswith(PATHS)
        and SHADOW not in request.headers
        and not COUNTED & request.query.keys()
    )


def _headers(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in SENT_ON if name in request.headers} | {SHADOW: "yes"}


async def _read(instance: Instance, path: str, headers: dict[str, str]) -> Any:
    connector = aiohttp.UnixConnector(instance.socket)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as client,
        client.get(f"http://{instance.module}{path}", headers=headers) as answer,
    ):
        return _plain(await answer.read())


def _plain(body: bytes) -> Any:
    return msgspec.json.decode(body)


def _difference(one: Any, other: Any, where: str = "") -> str:
    """Return the first place where two answers differ, such as `items.status`; empty where they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*one, *other)):
            if name in VOLATILE:
                continue
            if name not in one or name not in other:
                return f"{where}{name}"
            if found := _difference(one[name], other[name], f"{where}{name}."):
                return found
        return ""
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"{where}length"
        return next(filter(None, (_difference(a, b, where) for a, b in zip(one, other, strict=True))), "")
    return "" if one == other else where.rstrip(".") or "value"
