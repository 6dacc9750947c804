"""What goes on at a site beside the talk: people who look for things, and pages that are open."""

import asyncio
import itertools
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

from benchmarks.capacity import Beside, Site, connections
from benchmarks.load import percentile

MODEL: Final = {"median_ms": 800, "p99_ms": 2_500}
"""How long the language model takes."""
MOST_IN_HAND: Final = 400
"""Queries under way at once; more are not asked, and counted."""
ASKED: Final = (
    "/v1/utterances?limit=50",
    "/v1/tasks?status=open&limit=50",
    "/v1/utterances?query=time&limit=20",
    "/v1/channels",
    "/v1/conversations?limit=50",
    "/v1/utterances?channel=talker-3&limit=50",
    "/v1/tasks?status=acknowledged&limit=50",
    "/v1/utterances?department=housekeeping&limit=50",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`queries`: a second, evenly spaced. `pages`: open beside the one that is scored."""

    name: str
    model: bool = False
    queries: float = 0.0
    pages: int = 0


AUDIO: Final = Load(name="audio")
WATCHED: Final = Load(name="watched", pages=1)
"""One manager's page is open, which has the captions of all channels, as the real one does."""
WITH_MODEL: Final = Load(name="audio+llm", model=True)
RUSH: Final = Load(name="rush", model=True, queries=200.0, pages=49)
LOADS: Final = {load.name: load for load in (AUDIO, WITH_MODEL, RUSH)}


@dataclass(slots=True)
class Queries:
    """What became of them. `seconds`: those that were answered well."""

    asked: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    """By status, or by what went wrong."""
    left_out: int = 0
    in_hand: int = 0
    seconds: list[float] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        return {
            "queries": self.asked,
            "queries_failed": self.failed,
            "queries_left_out": self.left_out,
            "query_p50_ms": round(1_000 * percentile(self.seconds, 0.5), 1),
            "query_p95_ms": round(1_000 * percentile(self.seconds, 0.95), 1),
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """A site, and the key to read there."""

    url: str
    read: str


def beside(load: Load, queries: Queries) -> Beside:
    """The part of a load that is no talk; the model is the site's own affair.

    It runs in a process of its own, so that its pages delay no talker's clock. Yields that one's pid.
    """

    @asynccontextmanager
    async def going_on(place: Site, _: aiohttp.ClientSession) -> AsyncIterator[tuple[int, ...]]:
        if not (load.queries or load.pages):
            yield ()
            return
        numbers = [str(load.queries), str(load.pages)]
        crowd = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.rush", place.url, *numbers, stdin=PIPE, stdout=PIPE
        )
        assert crowd.stdin is not None
        crowd.stdin.write(f"{place.read}\n".encode())
        try:
            yield (crowd.pid,)
        finally:
            crowd.stdin.close()  # which ends it
            told = (await crowd.communicate())[0]
        found = msgspec.json.decode(told, type=Queries)
        for name in Queries.__slots__:
            setattr(queries, name, getattr(found, name))

    return going_on


async def crowd(url: str, per_second: float, pages: int) -> Queries:
    """Until standard input ends; its first line is the key."""
    queries = Queries()
    place = Asked(url, (await asyncio.to_thread(sys.stdin.readline)).strip())
    async with connections() as client, asyncio.TaskGroup() as tasks:
        work = [tasks.create_task(look(client, place)) for _ in range(pages)]
        if per_second:
            work.append(tasks.create_task(ask(client, place, per_second, queries)))
        await asyncio.to_thread(sys.stdin.read)
        for each in work:
            each.cancel()
    return queries


async def look(client: aiohttp.ClientSession, place: Asked) -> None:
    """A page with the captions of all channels, until cancelled. It comes back when it is sent away, as pages do."""
    headers = {"Authorization": f"Bearer {place.read}"}
    while True:
        async with client.ws_connect(f"{place.url}/v1/live", headers=headers, max_msg_size=0) as page:
            await page.send_str('{"type":"watch","channels":["*"]}')
            async for _ in page:
                pass
        await asyncio.sleep(0.5)


async def ask(client: aiohttp.ClientSession, place: Asked, per_second: float, queries: Queries) -> None:
    """So many a second whether they are answered or not, until cancelled."""
    begin = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number, path in enumerate(itertools.cycle(ASKED)):
            await asyncio.sleep(max(0.0, begin + number / per_second - time.monotonic()))
            if queries.in_hand >= MOST_IN_HAND:
                queries.left_out += 1
                continue
            tasks.create_task(_one(client, place, path, queries))


async def _one(client: aiohttp.ClientSession, place: Asked, path: str, queries: Queries) -> None:
    queries.asked += 1
    queries.in_hand += 1
    began = time.monotonic()
    try:
        async with client.get(f"{place.url}{path}", headers={"Authorization": f"Bearer {place.read}"}) as answer:
            await answer.read()
            failed = "" if answer.ok else str(answer.status)
    except (aiohttp.ClientError, OSError) as error:
        failed = type(error).__name__
    finally:
        queries.in_hand -= 1
    if failed:
        queries.failed[failed] = queries.failed.get(failed, 0) + 1
    else:
        queries.seconds.append(time.monotonic() - began)


def main() -> int:
    url, per_second, pages = sys.argv[1:]
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(crowd(url, float(per_second), int(pages)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
