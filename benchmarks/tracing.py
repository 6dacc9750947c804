"""What tracing costs: CPU seconds per second of speech with it on ÷ off, the two taking turns.

`python -m benchmarks.tracing [--talkers 16] [--seconds 60] [--rounds 2]`. On means: every utterance is kept, and all
its spans go to a receiver on this machine. Off means: as the server comes. Only the server is counted. Aim: ≤ 1.05.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from aiohttp import web

from benchmarks.capacity import Row, run_talkers, table

AIM: Final = 1.05
URL: Final = "QUICKCOMM_TELEMETRY_OTLP_URL"
SAMPLE: Final = "QUICKCOMM_TELEMETRY_SAMPLE"


class Receiver:
    """Takes whatever comes, and counts it."""

    def __init__(self) -> None:
        self.url = ""
        self.requests = 0
        self.bytes = 0

    async def take(self, request: web.Request) -> web.Response:
        self.bytes += len(await request.read())
        self.requests += 1
        return web.Response(content_type="application/x-protobuf")


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    received = Receiver()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", received.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        received.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield received
    finally:
        await runner.cleanup()


@contextmanager
def settings(values: dict[str, str]) -> Iterator[None]:
    """For the servers that are started meanwhile."""
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]


async def run(talkers: int, seconds: float, *, traced: bool) -> Row:
    async with receiver() as sink:
        with settings({URL: sink.url, SAMPLE: "1"} if traced else {}):
            row = await run_talkers(talkers, seconds)
        assert bool(sink.requests) == traced, "spans arrive exactly where tracing is on"
        return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talkers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    cost: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(options.rounds):
        for traced in (False, True):
            row = asyncio.run(run(options.talkers, options.seconds, traced=traced))
            cost[traced].append(row.cpu)
            print(f"tracing {'on' if traced else 'off'}")
            table([row])
            sys.stdout.flush()
    off, on = statistics.median(cost[False]), statistics.median(cost[True])
    print(f"CPU per second of speech: off {off:.4f}, on {on:.4f}, on ÷ off {on / off:.3f} (aim ≤ {AIM})")
    print(json.dumps({"talkers": options.talkers, "off": cost[False], "on": cost[True], "ratio": round(on / off, 4)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
