"""Edits and pages of a site with several dashboards: how soon an edit is answered, and how soon every page has a card.

`python -m benchmarks.decisions edits [--edits 300]`: one person, nothing else goes on; under `serve`, and as services.
`python -m benchmarks.decisions crowd [--editors 20] [--seconds 30]`: so many people edit open tasks without a pause, in
a site whose decisions are in a log (a monolith under `up`): answers a second, and how soon.
`python -m benchmarks.decisions pages [--pages 50] [--dashboards 3] [--rate 20] [--seconds 30]`: messages put into the
streams at that rate in the whole site, pages connected through the edge; the time from publishing until a page has the
complete card, and what pages lack at the end.
`python -m benchmarks.decisions kills [--kills 60] [--seconds 600] [--talkers 16] [--editors 20] [--dashboards 3]`: real
speech, live clients that edit what they see, and `kill -9` of everything in turn, PostgreSQL among it. An edit that was
answered must still be there: each version of a task is answered once, and the newest one stands.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from tests.support.dashboard_site import found, heard, insight
from tests.support.kills import killed_over
from tests.support.postgres import PostgresServer, programs
from tests.support.server import Server
from tests.support.shapes import running
from tests.support.site import Site
from tests.support.talk import shift_talk
from tests.support.valkey import Valkey
from tests.support.wire import converse

from benchmarks.editors import Editor, Page, browser, client, judge, judge_page
from benchmarks.load import percentile
from benchmarks.shapes import UNLIMITED, Tuning, topology
from benchmarks.talkers import talk
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.bus.redis import RedisBus

Json = dict[str, Any]
SETTLE_S: Final = 20.0
OPEN: Final = 12
"""Tasks that a crowd edits."""
LENGTH_S: Final = 60.0
NS: Final = 1_000_000_000


@contextmanager
def services(dashboards: int, *, own_store: bool = False) -> Iterator[tuple[Site, Valkey, PostgresServer]]:
    """`own_store`: the Valkey of `up`, and no other one."""
    folder = programs()
    if folder is None:
        raise SystemExit("There is no PostgreSQL server on this machine (Debian: apt-get install postgresql).")
    postgres = PostgresServer(folder)
    with tempfile.TemporaryDirectory() as place:
        valkey = Valkey(Path(place) / "valkey")
        try:
            postgres.start()
            valkey.start()
            settings = {"QUICKCOMM_DASHBOARD_DATABASE_URL": postgres.url(postgres.create())}
            tuning = Tuning(settings=settings, processes={"dashboard": dashboards})
            with topology("services", tuning, *(() if own_store else ("--redis-url", valkey.url))) as site:
                yield site, valkey, postgres
        finally:
            valkey.stop()
            postgres.stop()


# -- edits ------------------------------------------------------------------------------------------------------------


async def asked(server: Server) -> str:
    """Have something said that opens a task; return its id."""
    await converse(server.url, await asyncio.to_thread(server.key), shift_talk().wire)
    tasks = await server.until("/v1/tasks", lambda body: bool(body["items"]))
    return str(tasks["items"][0]["task_id"])


async def edits(server: Server, count: int) -> Json:
    """Acknowledge and reopen a task in turn, each time with the version that was answered."""
    task_id = await asked(server)
    times: list[float] = []
    async with client(server) as session:
        version = (await (await session.post(f"/v1/tasks/{task_id}/reopen")).json())["version"]
        for number in range(count):
            action = "reopen" if number % 2 else "acknowledge"
            began = time.perf_counter()
            async with session.post(f"/v1/tasks/{task_id}/{action}", headers={"If-Match": f'"{version}"'}) as answer:
                task = await answer.json()
            times.append(1000 * (time.perf_counter() - began))
            assert task["version"] == version + 1, task
            version = task["version"]
    return {"edits": count, "p50_ms": round(percentile(times, 0.5), 1), "p95_ms": round(percentile(times, 0.95), 1)}


def measure_edits(options: argparse.Namespace) -> Json:
    rows: Json = {}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", **UNLIMITED) as server:
        rows["serve"] = asyncio.run(edits(server, options.edits))
    with services(1) as (site, _, _):
        rows["services, 1 dashboard"] = asyncio.run(edits(site, options.edits))
    with services(options.dashboards) as (site, _, _):
        rows[f"services, {options.dashboards} dashboards"] = asyncio.run(edits(site, options.edits))
    return rows


async def crowd(server: Server, editors: int, seconds: float) -> Json:
    """Each edits tasks by chance in the version that was answered last, to anybody."""
    for _ in range(OPEN):
        await asked(server)
    listed = await server.until("/v1/tasks?limit=200", lambda body: len(body["items"]) >= OPEN)
    versions = {str(task["task_id"]): int(task["version"]) for task in listed["items"]}
    times, statuses, over = list[float](), dict[int, int](), time.monotonic() + seconds

    async def edit(chance: random.Random) -> None:
        while time.monotonic() < over:
            task_id, action = chance.choice(sorted(versions)), chance.choice(["acknowledge", "reopen", "complete"])
            began = time.perf_counter()
            async with session.post(
                f"/v1/tasks/{task_id}/{action}", headers={"If-Match": f'"{versions[task_id]}"'}
            ) as answer:
                found = await answer.json()
            times.append(1000 * (time.perf_counter() - began))
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            if answer.status == 200:
                versions[task_id] = max(versions[task_id], int(found["version"]))

    async with client(server) as session:
        await asyncio.gather(*(edit(random.Random(number)) for number in range(editors)))  # noqa: S311
    return {
        "tasks": len(versions),
        "statuses": statuses,
        "per_s": round(len(times) / seconds, 1),
        "p50_ms": round(percentile(times, 0.5)),
        "p95_ms": round(percentile(times, 0.95)),
    }


def measure_crowd(options: argparse.Namespace) -> Json:
    with topology("monolith", Tuning()) as site:
        return {"monolith under up": asyncio.run(crowd(site, options.editors, options.seconds))}


# -- pages ------------------------------------------------------------------------------------------------------------


async def publish(valkey: Valkey, rate: float, seconds: float) -> dict[str, float]:
    """Put utterances with their insights into the streams; return when each was published."""
    bus, sent = RedisBus(valkey.url, SystemClock()), {}
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        room = str(100 + number % 800)
        transcript = heard(
            number * 16_000, f"towels to {room}", conversation=f"c{number % 16}", channel=f"c{number % 16}"
        )
        now_ns = time.time_ns()
        transcript = msgspec.structs.replace(
            transcript, spoken_at_ns=now_ns - 2 * NS, speech_ended_ns=now_ns - NS, published_ns=now_ns
        )
        one = found(transcript, insight("task_done" if number % 4 == 3 else "request_item", room))
        sent[transcript.utterance_id] = time.monotonic()
        await bus.publish(TRANSCRIPTS, transcript.conversation_id, msgspec.json.encode(transcript))
        await bus.publish(INSIGHTS, transcript.conversation_id, msgspec.json.encode(one))
    await bus.aclose()
    return sent


async def pages(site: Site, valkey: Valkey, options: argparse.Namespace) -> Json:
    shown = [Page() for _ in range(options.pages)]
    async with client(site, "read") as session, asyncio.TaskGroup() as tasks:
        begun = [asyncio.Event() for _ in shown]
        looking = [tasks.create_task(page.look(site, session, each)) for page, each in zip(shown, begun, strict=True)]
        await asyncio.gather(*(each.wait() for each in begun))
        sent = await publish(valkey, options.rate, options.seconds)
        limit = time.monotonic() + SETTLE_S
        while any(sent.keys() - page.came.keys() for page in shown) and time.monotonic() < limit:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        for task in looking:
            task.cancel()
    delays = [page.came[each] - at for page in shown for each, at in sent.items() if each in page.came]
    return {
        "pages": len(shown),
        "dashboards": options.dashboards,
        "utterances": len(sent),
        "lacking": sum(len(sent.keys() - page.came.keys()) for page in shown),
        "p50_s": round(percentile(delays, 0.5), 2),
        "p95_s": round(percentile(delays, 0.95), 2),
        "worst_s": round(max(delays), 2),
        "connections": sum(page.connections for page in shown),
    }


def measure_pages(options: argparse.Namespace) -> Json:
    with services(options.dashboards) as (site, valkey, _):
        return asyncio.run(pages(site, valkey, options))


# -- kills ------------------------------------------------------------------------------------------------------------


async def kill_postgres(postgres: PostgresServer, seconds: float, seed: int) -> int:
    """Six times in that time."""
    chance, count = random.Random(seed), 0  # noqa: S311
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(seconds / 6 * chance.uniform(0.6, 1.4))
            await asyncio.to_thread(postgres.kill)
            count += 1
            await asyncio.sleep(chance.uniform(0.1, 2.0))
            await asyncio.to_thread(postgres.start)
    return count


async def kills(site: Site, postgres: PostgresServer, options: argparse.Namespace) -> Json:
    sounds: list[bytes | list[bytes]] = [talk(each, LENGTH_S).samples.tobytes() for each in range(options.talkers)]
    editors = [Editor(number, options.seed) for number in range(options.editors)]
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(client(site))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        shown = await stack.enter_async_context(browser(site))
        begun = [asyncio.Event() for _ in editors]
        looking = [
            tasks.create_task(each.page.look(site, session, event)) for each, event in zip(editors, begun, strict=True)
        ]
        await asyncio.gather(*(each.wait() for each in begun))
        editing = [tasks.create_task(each.edit_forever(session)) for each in editors]
        killing = tasks.create_task(kill_postgres(postgres, options.seconds, options.seed))
        print("People talk and edit, and all is killed in turn.", file=sys.stderr, flush=True)
        toll = await killed_over(site, sounds, (options.kills, options.seconds, options.seed))
        for task in (*editing, killing):
            task.cancel()
        print("All of it is over; now it is compared.", file=sys.stderr, flush=True)
        await asyncio.to_thread(site.wait_ready)
        verdict = await judge(site, editors)
        if shown is not None:
            verdict |= await judge_page(site, shown)
        for task in looking:
            task.cancel()
    return {
        "kills": toll.kills | {"postgresql": killing.result() if not killing.cancelled() else 0},
        "faults": toll.faults,
        "whole_again_worst_s": max(toll.whole_again_s, default=0.0),
        "conversations": toll.conversations,
        "utterances": toll.utterances,
        **verdict,
    }


def measure_kills(options: argparse.Namespace) -> Json:
    with services(options.dashboards, own_store=True) as (site, _, postgres):
        return asyncio.run(kills(site, postgres, options))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["edits", "crowd", "pages", "kills"], nargs="?", default="edits")
    parser.add_argument("--dashboards", type=int, default=3)
    parser.add_argument("--edits", type=int, default=300)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--rate", type=float, default=20.0, help="utterances a second")
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--talkers", type=int, default=16)
    parser.add_argument("--editors", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    options.seconds = options.seconds or (600.0 if options.what == "kills" else 30.0)
    measure = {"edits": measure_edits, "crowd": measure_crowd, "pages": measure_pages, "kills": measure_kills}[
        options.what
    ]
    rows = measure(options)
    for name, value in rows.items():
        print(f"{name:32} {value}")
    print(json.dumps({"what": options.what, "seed": options.seed, **rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
