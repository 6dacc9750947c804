"""What the monolith had comes over into a dashboard's own database: seconds, and how long a new card waits meanwhile.

`python -m benchmarks.backfill [--utterances N] [--source FILE] [--database WHERE]`. The earlier database is served over
HTTP on a Unix socket by another process; --source is filled if it is new, and kept. Meanwhile a new utterance is stored
every 50 ms. WHERE is an empty file (one of its own, if none is named) or `postgresql://…`.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import sys
import tempfile
import time
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import msgspec
import numpy as np
from aiohttp import web

from benchmarks.history import Talk, fill_database, history
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.adapters.state import SqlStore
from quickcomm.dashboard.backfill import backfill, prepare_source, source
from quickcomm.dashboard.ports import State
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.copier.http import HttpSource, copy_routes
from quickcomm.kernel.http import create_app
from quickcomm.kernel.storage import Database

EVERY_S: Final = 0.05
T = TypeVar("T", UtteranceTranscribed, InsightsFound)


class _Anybody:
    """Only this benchmark knows the socket."""

    def require(self, _request: web.Request, *_callers: str) -> str:
        return "dashboard"


def serve(path: Path, place: Path) -> None:
    """In a process of its own, until it is ended."""

    async def run() -> None:
        database = Database(path)
        database.open()
        prepare_source(database)
        runner = web.AppRunner(create_app(copy_routes(source(database), lambda _: None), _Anybody()), access_log=None)
        await runner.setup()
        await web.UnixSite(runner, str(place)).start()
        await asyncio.Event().wait()

    asyncio.run(run())


def _store(state: State, talk: Talk) -> None:
    projector = Projector(state)
    projector.transcript(talk.transcript)
    projector.insights(talk.insights)
    Decider(projector, state, talk.transcript.published_ns).settle()
    projector.finish()


async def live(store: SqlStore, waits: list[float]) -> None:
    """New utterances, in conversations that the earlier database does not know."""
    talks = list(islice(history(5_000, seed=99), 5_000))
    for number in count():
        talk = talks[number % len(talks)]
        name = f"new-{number}"
        transcript = _renamed(talk.transcript, name)
        began = time.perf_counter()
        await store.transact(partial(_store, talk=Talk(transcript, _renamed(talk.insights, name))))
        waits.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(EVERY_S)


def _renamed(message: T, name: str) -> T:
    return msgspec.structs.replace(message, conversation_id=name, utterance_id=f"{name}:0:0")


async def measure(where: Path | str, place: Path) -> None:
    database = Database(where)
    database.open()
    prepare_source(database)
    waits: list[float] = []
    talking = asyncio.ensure_future(live(SqlStore(database), waits))
    began = time.perf_counter()
    try:
        rows = await backfill(database, HttpSource(lambda: aiohttp.UnixConnector(str(place)), dict, "http://earlier"))
        seconds = round(time.perf_counter() - began, 2)
    finally:
        talking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await talking
        await database.aclose()
    p50, p95, worst = (round(float(value), 1) for value in np.percentile(waits, (50, 95, 100)))
    total = sum(rows.values())
    print(f"{total} rows in {seconds:.1f} s; new cards stored within {p50}, {p95}, {worst} ms (p50, p95, max)")
    print(json.dumps({"seconds": seconds, "rows": rows, "live": len(waits), "ms": [p50, p95, worst]}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--source", type=Path, help="filled if it is new, and kept")
    parser.add_argument("--database", help="an empty one: a file or postgresql://…")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = arguments.source or folder / "earlier.sqlite"
        if not path.exists():
            seconds = asyncio.run(fill_database(path, arguments.utterances))
            print(f"{arguments.utterances} utterances stored in {seconds:.0f} s", flush=True)
        place = folder / "s"
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(path, place), daemon=True)
        server.start()
        try:
            while server.is_alive() and not place.is_socket():
                time.sleep(0.01)
            asyncio.run(measure(arguments.database or folder / "own.sqlite", place))
        finally:
            server.terminate()
            server.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
