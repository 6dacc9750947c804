"""Shadow reads: a sample of what people read is asked of the other side as well, and both answers are compared.

The caller has its answer before. At most `AT_ONCE` comparisons run at a time; others are left out meanwhile. What
differs at once is asked of both again after each of `AGAIN_AFTER_S`: what was just said or decided may still be on its
way to one of them, and on a busy board something always is. Only what lasts counts. Now and then an answer is held
against a second one of the same side: so much differs by itself.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import msgspec
import structlog
from aiohttp import hdrs, web

from quickcomm.dashboard.model.comparison import differences, lasting, where
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import Instance
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.telemetry.measured import Measurements

SHADOW: Final = "X-Quickcomm-Shadow"
"""Header of a request that is a comparison itself."""
ONE_OF: Final = 5
NOISE_ONE_OF: Final = 10
"""Of the comparisons, those with the same side."""
AT_ONCE: Final = 5
AGAIN_AFTER_S: Final = (1.0, 1.0, 2.0)
"""Pauses before the comparisons that follow a first difference."""
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
        self.running: set[asyncio.Task[None]] = set()

    def offer(self, request: web.Request, answer: bytes) -> None:
        """Compare this answer with that of the other side, if it is its turn. Never blocks."""
        if not _comparable(request) or len(self.running) >= AT_ONCE:
            return
        self._seen += 1
        here, there = self._here(), self._there()
        if self._seen % ONE_OF or here is None or there is None:
            return
        self._made += 1
        with_itself = self._made % NOISE_ONE_OF == 0
        task = asyncio.create_task(
            self._compare(request.path_qs, _headers(request), answer, here, here if with_itself else there),
            name="dashboard:shadow",
        )
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def aclose(self) -> None:
        """End the comparisons that run. May be called again."""
        for task in tuple(self.running):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _compare(self, path: str, headers: dict[str, str], answer: bytes, one: Instance, other: Instance) -> None:
        try:
            found = differences(_plain(answer), await _read(other, path, headers), VOLATILE)
            for pause in AGAIN_AFTER_S:
                if not found:
                    break
                await self._clock.sleep(pause)
                answers = await asyncio.gather(_read(one, path, headers), _read(other, path, headers))
                found = lasting(found, differences(*answers, VOLATILE))
        except (aiohttp.ClientError, OSError, TimeoutError, *MALFORMED) as error:
            log.info("shadow.not_compared", error=repr(error)[:200])
            return
        if one is other:
            self._measurements.noise(differs=bool(found))
            return
        place = f"{path.partition('?')[0]}: {where(found)}" if found else ""
        if place:
            log.warning("shadow.differs", where=place)
        self._measurements.compared(place)


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
