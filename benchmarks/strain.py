"""Half the capacity for long, twice the capacity for a minute, and somewhat above it: who is how late then.

`python -m benchmarks.strain soak [--talkers 24] [--minutes 20]`: memory and queues over time, in ten rows.
`python -m benchmarks.strain overload [--capacity 48]`: half the capacity talks all along; for a minute three times as
many more join. Latency before, while and from 10 s after; whether everything that was sent is accounted for; memory.
`python -m benchmarks.strain fair [--talkers 48]`: all talk for two minutes, two of them on channels for emergencies.
Latency of all, of those two, and of the line that fared worst.
`python -m benchmarks.strain crowd [--talkers 64]`: two come each second and talk for two minutes; who is turned
away comes back after `Retry-After`. How many were, and the latency of those who are in.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import aiohttp

from benchmarks.capacity import REACH_S, Site, all_used, connections, lines, site, talks_of, until
from benchmarks.load import CHUNK, Line, percentile, talk
from quickcomm.contracts.commands import GetStatus
from quickcomm.operate.administration import administer

LEAD_S = 20.0
OVERLOAD_S = 60.0
AFTER_S = 60.0
STREAM_S = 120.0
ARRIVE_EVERY_S = 0.5
SERVICE_UNAVAILABLE = 503
URGENT = ("security", "emergency-line")
"""Channels for emergencies in the default pack."""


async def soak(count: int, minutes: float) -> list[dict[str, float]]:
    talkers = lines(talks_of(count, STREAM_S))
    rows = []
    async with site(count) as place, connections() as client, asyncio.TaskGroup() as tasks:
        begin, stop = time.monotonic() + 2.0, asyncio.Event()
        for index, line in enumerate(talkers):
            line.endless = True
            tasks.create_task(talk(client, place.url, place.key(index), line, begin + index / 50, stop))
        for turn in range(10):
            await until(begin + (turn + 1) * minutes * 6)
            rows.append(await _moment(place, talkers, begin, minutes * 6))
            print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
        stop.set()
    return rows


async def _moment(place: Site, talkers: Sequence[Line], begin: float, length: float) -> dict[str, float]:
    now = time.monotonic()
    [status] = await administer(place.data, GetStatus(), needs_server=True)
    heard = [one.latency_s for line in talkers for one in line.heard if one.ended_at >= now - length]
    return {
        "minute": round((now - begin) / 60, 1),
        "rss_mb": round(all_used(place).rss_mb),
        "p95_s": round(percentile(heard, 0.95), 2),
        "stt_backlog_s": status["stt_backlog_s"],
        "bus_backlog": sum(status["bus_backlog"].values()),
        "furthest_unacked_s": round(max(line.sent - line.acked for line in talkers) / CHUNK / 10, 1),
    }


async def overload(capacity: int) -> dict[str, Any]:
    steady = lines(talks_of(capacity // 2, STREAM_S))
    extra = [Line(f"extra-{line.name}", line.sound) for line in lines(talks_of(2 * capacity - capacity // 2, STREAM_S))]
    peak, turned_away = 0.0, 0

    async def join(place: Site, client: aiohttp.ClientSession, index: int, line: Line, enough: asyncio.Event) -> None:
        nonlocal turned_away
        try:
            await talk(client, place.url, place.key(index), line, joined + index / 50, enough)
        except aiohttp.WSServerHandshakeError as error:
            _retry_after(error)
            turned_away += 1

    async with site(2 * capacity) as place, connections() as client:
        async with asyncio.TaskGroup() as tasks:
            begin, stop, enough = time.monotonic() + 2.0, asyncio.Event(), asyncio.Event()
            for index, line in enumerate(steady):
                line.endless = True
                tasks.create_task(talk(client, place.url, place.key(index), line, begin + index / 50, stop))
            joined = begin + LEAD_S
            for index, line in enumerate(extra):
                tasks.create_task(join(place, client, index, line, enough))
            await until(joined + OVERLOAD_S)
            peak = all_used(place).rss_mb
            enough.set()
            left = time.monotonic()
            await until(left + 10 + AFTER_S)
            stop.set()
        over = time.monotonic()
    everybody = [*steady, *(line for line in extra if line.sent_at)]
    unbalanced = [line.name for line in everybody if not _balanced(line)]
    return {
        "talkers": f"{len(steady)} + {len(extra)}",
        "turned_away": turned_away,
        "before": _latencies(steady, begin, joined),
        "while": _latencies(everybody, joined + 5, left),
        "after_10_s": _latencies(steady, left + 10, left + 10 + AFTER_S),
        "all_out_after_s": round(over - left, 1),
        "unbalanced_ledgers": unbalanced,
        "peak_rss_mb": round(peak),
    }


async def fair(count: int) -> dict[str, Any]:
    talkers = lines(talks_of(count, STREAM_S))
    for line, name in zip(talkers, URGENT, strict=False):
        line.name = name
    async with site(count) as place, connections() as client, asyncio.TaskGroup() as tasks:
        begin, stop = time.monotonic() + 2.0, asyncio.Event()
        for index, line in enumerate(talkers):
            tasks.create_task(talk(client, place.url, place.key(index), line, begin + index / 50, stop))
    worst = max(talkers, key=lambda line: percentile([one.latency_s for one in line.heard], 0.95))
    return {
        "talkers": count,
        "all": _figures(talkers),
        "urgent": _figures(talkers[: len(URGENT)]),
        "worst_line": _figures([worst]),
        "unbalanced_ledgers": [line.name for line in talkers if not _balanced(line)],
    }


async def crowd(count: int) -> dict[str, Any]:
    talkers = lines(talks_of(count, STREAM_S))
    refused: Counter[str] = Counter()
    waits: list[float] = []
    async with site(count) as place, connections() as client, asyncio.TaskGroup() as tasks:
        begin, stop = time.monotonic() + 2.0, asyncio.Event()

        async def arrive(index: int, line: Line) -> None:
            await until(begin + index * ARRIVE_EVERY_S)
            while time.monotonic() < begin + STREAM_S:
                try:
                    await talk(client, place.url, place.key(index), line, time.monotonic(), stop)
                except aiohttp.WSServerHandshakeError as error:
                    waits.append(_retry_after(error))
                    refused[line.name] += 1
                    await asyncio.sleep(waits[-1])
                else:
                    return

        for index, line in enumerate(talkers):
            tasks.create_task(arrive(index, line))
    heard = [line for line in talkers if line.sent_at]
    return {
        "talkers": count,
        "admitted": len(heard),
        "turned_away": len(refused),
        "never_admitted": count - len(heard),
        "refusals": refused.total(),
        "retry_after_s": sorted(set(waits)),
        "of_those_admitted": _figures(heard),
        "unbalanced_ledgers": [line.name for line in heard if not _balanced(line)],
    }


def _retry_after(error: aiohttp.WSServerHandshakeError) -> float:
    """Return the seconds after which who was turned away may come back. Raise another refusal again."""
    if error.status != SERVICE_UNAVAILABLE or error.headers is None:
        raise error
    return float(error.headers["Retry-After"])


def _figures(talkers: Sequence[Line]) -> dict[str, float]:
    heard = [one.latency_s for line in talkers for one in line.heard]
    return {
        "utterances": len(heard),
        "p50_s": round(percentile(heard, 0.5), 2),
        "p95_s": round(percentile(heard, 0.95), 2),
        "worst_s": round(max(heard, default=float("nan")), 2),
    }


def _balanced(line: Line) -> bool:
    book = line.ledger or {}
    accounted = sum(book.get(name, 0) for name in ("speech", "silence", "gap"))
    return accounted == line.sent == book.get("received")


def _latencies(talkers: Sequence[Line], since: float, until_: float) -> dict[str, float]:
    heard = [one.latency_s for line in talkers for one in line.heard if since <= one.ended_at < until_]
    return {
        "utterances": len(heard),
        "p50_s": round(percentile(heard, 0.5), 2),
        "p95_s": round(percentile(heard, 0.95), 2),
        "in_time": round(sum(latency <= REACH_S for latency in heard) / max(1, len(heard)), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("soak", "overload", "fair", "crowd"), nargs="?", default="overload")
    parser.add_argument("--capacity", type=int, default=48)
    parser.add_argument("--talkers", type=int, default=None, help="24 for soak, 48 for fair, 64 for crowd")
    parser.add_argument("--minutes", type=float, default=20.0)
    options = parser.parse_args()
    if options.kind == "soak":
        print(json.dumps(asyncio.run(soak(options.talkers or 24, options.minutes))))
        return 0
    if options.kind == "fair":
        result = asyncio.run(fair(options.talkers or 48))
    elif options.kind == "crowd":
        result = asyncio.run(crowd(options.talkers or 64))
    else:
        result = asyncio.run(overload(options.capacity))
    for name, value in result.items():
        print(f"{name:20} {value}")
    print(json.dumps(result))
    return 0 if not result["unbalanced_ledgers"] else 1


if __name__ == "__main__":
    sys.exit(main())
