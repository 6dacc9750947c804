"""A dashboard on a database of its own, for `benchmarks.store`: prints its address and a key, ends with its input.

`python -m benchmarks.dashboard_alone WHERE`. Nobody publishes anything; keys and streams are in a file of their own.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from aiohttp import web

from quickcomm.dashboard.module import Dashboard
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.http import create_app
from quickcomm.kernel.keys import Authenticator, KeySettings
from quickcomm.kernel.keys.sql import SqlKeys
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.storage import Database


async def serve(where: str, folder: Path) -> None:
    beside, database, clock = Database(folder / "beside.sqlite"), Database(where), SystemClock()
    beside.open()
    database.open()
    bus, keys = SqlBus(beside, clock), SqlKeys(beside, clock)
    limits = KeySettings(requests_per_second=1e6, requests_burst=1e6)
    messaging = Messaging.over(bus, clock)
    auth = Authenticator(keys, clock, limits)
    dashboard = Dashboard(database=database, messaging=messaging, clock=clock, keys=auth)
    for part in (bus, keys, dashboard):
        part.migrate()
    runner = web.AppRunner(create_app(dashboard.routes()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    key = (await keys.create("read")).key
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(dashboard.run())
        print(f"http://127.0.0.1:{runner.addresses[0][1]} {key}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        running.cancel()
    await dashboard.aclose()
    await runner.cleanup()
    await database.aclose()
    await beside.aclose()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(serve(sys.argv[1], Path(folder)))


if __name__ == "__main__":
    main()
