"""Closing conversations: how soon under `serve`, in one transaction, and over services; and after a kill.

`python -m benchmarks.operations [--times 30] [--kills 5] [--shapes serve,services] [--many 0] [--at-once 16]
[--postgres]`: so many conversations of a few words are said, with the local summary, and closed one after the other,
while nothing else goes on; the time until REST has answered. Over services also: from a kill -9 of the executor in the
middle of a closing until that is done. `--many`: so many more are closed, some at once, and how many a second that is.
`--postgres`: the services keep what they have, and the steps of operations, in a PostgreSQL, which is started.
"""

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from tests.support.postgres import PostgresServer, programs
from tests.support.server import Server
from tests.support.shapes import running
from tests.support.site import Site
from tests.support.talk import shift_talk
from tests.support.wire import converse

from benchmarks.load import percentile
from benchmarks.shapes import UNLIMITED, Tuning, topology

Json = dict[str, Any]
SAID_S: Final = 8
RATE: Final = 16_000
LOOK_S: Final = 0.05
SETTLE_S: Final = 5.0
"""After that everything is folded and remembered: the summaries wait for two seconds for more."""


async def said(server: Server, count: int) -> list[str]:
    """Have somebody ask for something in so many conversations; return their ids when nothing is under way."""
    words, key = shift_talk().wire[: 2 * RATE * SAID_S], await asyncio.to_thread(server.key)
    ids = [(await converse(server.url, key, words)).conversation_id for _ in range(count)]

    def ended(body: Json) -> bool:
        return {each["conversation_id"] for each in body["items"] if each["state"] == "ended"} >= set(ids)

    await server.until("/v1/conversations?limit=200", ended)
    await asyncio.sleep(SETTLE_S)
    return ids


async def closed(server: Server, ids: list[str]) -> Json:
    """Close them, one after the other."""
    times: list[float] = []
    headers = {"Authorization": f"Bearer {await asyncio.to_thread(server.key, 'admin')}"}
    async with aiohttp.ClientSession(server.url, headers=headers) as session:
        for conversation_id in ids:
            began = time.perf_counter()
            path = f"/v1/conversations/{conversation_id}/close"
            async with session.post(path, json={"tasks": "close"}) as answer:
                stand = await answer.json()
            times.append(1000 * (time.perf_counter() - began))
            assert stand.get("status") == "done", stand
    figures = {f"p{round(100 * share)}_ms": round(percentile(times, share), 1) for share in (0.5, 0.95, 1.0)}
    return {"closed": len(times), **figures}


async def recovered(site: Site, conversation_id: str) -> float:
    """Kill the executor while it closes a conversation; return the seconds from the kill until that is done."""
    key = await asyncio.to_thread(site.key, "admin")
    victim = await asyncio.to_thread(site.process, "operations")
    path = f"/v1/conversations/{conversation_id}/close"
    asking = asyncio.create_task(asyncio.to_thread(site.ask, "POST", path, key, {"tasks": "close"}))
    await asyncio.sleep(0.03)
    os.kill(victim.pid, signal.SIGKILL)
    began = time.monotonic()
    await asking
    while True:
        answer = await asyncio.to_thread(site.ask, "POST", path, key, {"tasks": "close"})
        if answer.status == 200 and answer.json()["status"] == "done":
            return round(time.monotonic() - began, 1)
        await asyncio.sleep(0.1)


async def throughput(server: Server, count: int, at_once: int) -> Json:
    """Close so many conversations, some at once."""
    ids = iter(await said(server, count))
    headers = {"Authorization": f"Bearer {await asyncio.to_thread(server.key, 'admin')}"}
    times: list[float] = []
    async with aiohttp.ClientSession(server.url, headers=headers) as session:

        async def worker() -> None:
            for conversation_id in ids:
                began = time.perf_counter()
                async with session.post(f"/v1/conversations/{conversation_id}/close", json={}) as answer:
                    stand = await answer.json()
                while stand.get("status") == "running":  # not within the time that REST waits
                    await asyncio.sleep(LOOK_S)
                    async with session.get(f"/v1/operations/{stand['operation_id']}") as answer:
                        stand = await answer.json()
                times.append(1000 * (time.perf_counter() - began))
                assert stand.get("status") == "done", stand

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(worker())
        seconds = time.perf_counter() - began
    return {"per_s": round(count / seconds, 1), "at_once": at_once, "p95_ms": round(percentile(times, 0.95), 1)}


@contextmanager
def databases(*, postgres: bool) -> Iterator[Tuning]:
    """Give the settings of services: files of their own, or databases of a PostgreSQL."""
    if not postgres:
        yield Tuning()
        return
    folder = programs()
    assert folder is not None, "PostgreSQL is not installed: apt-get install postgresql"
    server = PostgresServer(folder)
    try:
        server.start()
        modules = ("OPERATIONS", "DASHBOARD", "INTELLIGENCE")
        yield Tuning(settings={f"QUICKCOMM_{each}_DATABASE_URL": server.url(server.create()) for each in modules})
    finally:
        server.stop()


def measure(options: argparse.Namespace) -> Json:
    rows: Json = {}
    for shape in options.shapes.split(","):
        if shape == "serve":
            with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", **UNLIMITED) as server:
                rows[shape] = asyncio.run(measured(server, options))
            continue
        with databases(postgres=options.postgres) as tuning, topology(shape, tuning) as site:
            rows[shape] = asyncio.run(measured(site, options))
            rows[shape]["recovery_s"] = asyncio.run(recoveries(site, options.kills))
    return rows


async def measured(server: Server, options: argparse.Namespace) -> Json:
    row = await closed(server, await said(server, options.times))
    return row | ({"many": await throughput(server, options.many, options.at_once)} if options.many else {})


async def recoveries(site: Site, kills: int) -> list[float]:
    """One kill after the other, each when the executor is back."""
    found = []
    for conversation_id in await said(site, kills):
        found.append(await recovered(site, conversation_id))
        await asyncio.to_thread(site.wait_ready)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--shapes", default="serve,services")
    parser.add_argument("--many", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--postgres", action="store_true")
    rows = measure(parser.parse_args())
    print(f"{'':12}{'closed':>8}{'p50 ms':>9}{'p95 ms':>9}{'most ms':>9}{'a second':>10}  recovery s")
    for shape, row in rows.items():
        a_second = row.get("many", {}).get("per_s", "-")
        figures = f"{row['closed']:>8}{row['p50_ms']:>9}{row['p95_ms']:>9}{row['p100_ms']:>9}{a_second:>10}"
        print(f"{shape:12}{figures}  {row.get('recovery_s', '')}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
