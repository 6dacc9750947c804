"""Closing conversations: how soon under `serve`, in one transaction, and over services; and after a kill.

`python -m benchmarks.operations [--times 30] [--kills 5] [--shapes serve,services]`: so many conversations of a few
words are said, with the local summary, and closed one after the other, while nothing else goes on; the time until REST
has answered. Over services also: from a kill -9 of the executor in the middle of a closing until that is done.
"""

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
from tests.support.server import Server
from tests.support.shapes import running
from tests.support.site import Site
from tests.support.talk import shift_talk
from tests.support.wire import converse

from benchmarks.load import percentile
from benchmarks.shapes import UNLIMITED, topology

Json = dict[str, Any]
SAID_S: Final = 8
RATE: Final = 16_000
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


def measure(options: argparse.Namespace) -> Json:
    rows: Json = {}
    for shape in options.shapes.split(","):
        if shape == "serve":
            with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", **UNLIMITED) as server:
                rows[shape] = asyncio.run(measured(server, options.times))
            continue
        with topology(shape) as site:
            rows[shape] = asyncio.run(measured(site, options.times))
            rows[shape]["recovery_s"] = asyncio.run(recoveries(site, options.kills))
    return rows


async def measured(server: Server, times: int) -> Json:
    return await closed(server, await said(server, times))


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
    rows = measure(parser.parse_args())
    print(f"{'':12}{'closed':>8}{'p50 ms':>9}{'p95 ms':>9}{'most ms':>9}  recovery s")
    for shape, row in rows.items():
        figures = f"{row['closed']:>8}{row['p50_ms']:>9}{row['p95_ms']:>9}{row['p100_ms']:>9}"
        print(f"{shape:12}{figures}  {row.get('recovery_s', '')}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
