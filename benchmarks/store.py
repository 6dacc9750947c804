"""Search, lists and the page over a long history, through HTTP: p50 and p95, at rest and while people talk.

`python -m benchmarks.store [--utterances N] [--requests N] [--talkers N] [--data-dir DIR | --database WHERE]`.
A `quickcomm serve` of its own on a data directory that the dashboard's own projector has filled (kept, and used again,
where --data-dir names it).
While people talk: conversations of the demo shift's recordings through the real audio socket, all day long.
With --database, a dashboard alone on a database of its own: a file, or `postgresql://…`; nobody talks then.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import numpy as np
import soundfile

from benchmarks.history import CHANNELS, COMMON, DAYS, DEPARTMENTS, RARE, RATE, fill, fill_database, history
from quickcomm.client.audio_client import AudioClient
from quickcomm.client.options import StreamOptions
from quickcomm.client.sources import Paced, PcmSource
from quickcomm.contracts.audio_socket import AudioFormat, Utterance
from quickcomm.contracts.commands import CreateKey, Role
from quickcomm.dashboard.adapters.queries import SqlQueries
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import Board
from quickcomm.demo_shift import ShiftChannel, audio_file, load_shift
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.storage import Database, migrate
from quickcomm.operate.administration import administer
from quickcomm.operate.child import server

AIM_MS: Final = 50.0
HEAD: Final = f"{'request':30}{'talking':>9}{'items':>7}{'p50 ms':>9}{'p95 ms':>9}{'worst ms':>10}"
Query = dict[str, str]
Request = Callable[[], Awaitable[int]]
"""Asks once; how many items or files came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Milliseconds from asking until the answer is read. `items`: how many came, on average."""

    name: str
    talking: bool
    requests: int
    items: float
    p50_ms: float
    p95_ms: float
    worst_ms: float


@dataclass(slots=True, kw_only=True)
class Talking:
    """What has been heard meanwhile."""

    utterances: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return self.utterances / self.seconds if self.seconds else 0.0


@dataclass(kw_only=True)
class Asking:
    """One client, as a page has one: requests one after the other over kept connections."""

    client: aiohttp.ClientSession
    url: str
    words: Iterator[str]
    deep: dict[str, list[str]] = field(default_factory=dict)
    """Cursors well down in each list."""

    async def get(self, path: str, query: Query | None = None) -> Any:
        async with self.client.get(self.url + path, params=query) as answer:
            answer.raise_for_status()
            return msgspec.json.decode(await answer.read())

    async def page(self) -> int:
        """What a browser does: the index, all it names, who am I, channels, tasks and the first state."""
        async with self.client.get(f"{self.url}/") as answer:
            index = await answer.text()
        assets = re.findall(r'(?:src|href)="\.?/?([^":]+\.(?:js|css|svg))"', index)
        for asset in assets:
            async with self.client.get(f"{self.url}/{asset}") as answer:
                answer.raise_for_status()
                await answer.read()
        return len(assets) + await self.first_state()

    async def first_state(self) -> int:
        """Connect to the live socket and read all that it replays."""
        async with self.client.ws_connect(f"{self.url}/v1/live", max_msg_size=0) as socket:
            cards = 0
            while '"type":"replayed"' not in (text := await socket.receive_str())[:30]:
                cards += '"type":"card"' in text[:20]
        return cards


def _listing(asking: Asking, path: str, queries: Callable[[], Query]) -> Request:
    async def ask() -> int:
        return len((await asking.get(path, queries()))["items"])

    return ask


def requests(asking: Asking) -> dict[str, Request]:
    """Every kind of request by name; each call asks for something else where there is a choice."""
    channel, department = itertools.cycle(CHANNELS), itertools.cycle(DEPARTMENTS)
    conversation = itertools.cycle(f"{name}-{part}" for part in range(3) for name in CHANNELS)
    age = itertools.cycle((1, 6, 24, 24 * 7, 24 * 30, 24 * (DAYS - 1)))
    words = asking.words

    def since() -> str:
        return (datetime.now(UTC) - timedelta(hours=next(age))).isoformat(timespec="seconds").replace("+00:00", "Z")

    def cursor(name: str) -> str:
        if not asking.deep[name]:
            return ""  # a short history has one page
        asking.deep[name].append(asking.deep[name].pop(0))
        return asking.deep[name][0]

    spoken, tasks = "/v1/utterances", "/v1/tasks"
    lists: dict[str, tuple[str, Callable[[], Query]]] = {
        "search: rare word": (spoken, lambda: {"query": RARE}),
        "search: any word": (spoken, lambda: {"query": next(words)}),
        "search: no such word": (spoken, lambda: {"query": "qqxyzzy"}),
        "search: common word": (spoken, lambda: {"query": COMMON}),
        "search: common word, deep": (spoken, lambda: {"query": COMMON, "cursor": cursor("common")}),
        "search: two words": (spoken, lambda: {"query": f"{COMMON} {next(words)}"}),
        "search: common and rare": (spoken, lambda: {"query": f"{COMMON} {RARE}"}),
        "search: two letters": (spoken, lambda: {"query": next(words)[:2]}),
        "search: room": (spoken, lambda: {"query": "1107"}),
        "search: common, channel": (spoken, lambda: {"query": COMMON, "channel": next(channel)}),
        "search: common, department": (spoken, lambda: {"query": COMMON, "department": next(department)}),
        "search: rare, channel": (spoken, lambda: {"query": RARE, "channel": next(channel)}),
        "search: common, since": (spoken, lambda: {"query": COMMON, "since": since()}),
        "search: rare, since": (spoken, lambda: {"query": RARE, "since": since()}),
        "search: all filters": (
            spoken,
            lambda: {"query": COMMON, "channel": next(channel), "department": next(department), "since": since()},
        ),
        "utterances: newest": (spoken, dict),
        "utterances: newest 200": (spoken, lambda: {"limit": "200"}),
        "utterances: deep": (spoken, lambda: {"cursor": cursor("all")}),
        "utterances: channel": (spoken, lambda: {"channel": next(channel)}),
        "utterances: department": (spoken, lambda: {"department": next(department)}),
        "utterances: conversation": (spoken, lambda: {"conversation": next(conversation), "limit": "200"}),
        "utterances: since": (spoken, lambda: {"since": since()}),
        "tasks: all": (tasks, dict),
        "tasks: open": (tasks, lambda: {"status": "open"}),
        "tasks: department": (tasks, lambda: {"department": next(department)}),
        "tasks: open, department": (tasks, lambda: {"status": "open", "department": next(department)}),
        "tasks: done, deep": (tasks, lambda: {"status": "done", "cursor": cursor("tasks")}),
        "conversations": ("/v1/conversations", dict),
        "conversations: channel": ("/v1/conversations", lambda: {"channel": next(channel)}),
        "conversations: live": ("/v1/conversations", lambda: {"state": "live"}),
        "channels": ("/v1/channels", dict),
    }
    found = {name: _listing(asking, path, queries) for name, (path, queries) in lists.items()}

    async def one_conversation() -> int:
        return len([await asking.get(f"/v1/conversations/{next(conversation)}")])

    return {**found, "conversation": one_conversation, "first state": asking.first_state, "page": asking.page}


async def find_cursors(asking: Asking, pages: int) -> None:
    """Walk down the lists as somebody who scrolls does."""
    starts: dict[str, tuple[str, Query]] = {
        "all": ("/v1/utterances", {}),
        "common": ("/v1/utterances", {"query": COMMON}),
        "tasks": ("/v1/tasks", {"status": "done"}),
    }
    for name, (path, query) in starts.items():
        cursors: list[str] = []
        answer = await asking.get(path, {**query, "limit": "200"})
        while answer["next_cursor"] and len(cursors) < pages:
            cursors.append(answer["next_cursor"])
            answer = await asking.get(path, {**query, "limit": "200", "cursor": cursors[-1]})
        asking.deep[name] = cursors[len(cursors) // 2 :]


async def timed(name: str, ask: Request, count: int, *, talking: bool) -> Row:
    taken, items = [], 0
    for _ in range(count):
        began = time.perf_counter()
        items += await ask()
        taken.append((time.perf_counter() - began) * 1000)
    p50, p95 = (float(value) for value in np.percentile(taken, (50, 95)))
    row = Row(
        name=name,
        talking=talking,
        requests=count,
        items=round(items / count, 1),
        p50_ms=round(p50, 2),
        p95_ms=round(p95, 2),
        worst_ms=round(max(taken), 2),
    )
    late = "" if row.p95_ms <= AIM_MS else f"  above {AIM_MS:.0f}"
    times = f"{row.p50_ms:>9.1f}{row.p95_ms:>9.1f}{row.worst_ms:>10.1f}"
    print(f"{row.name:30}{'yes' if row.talking else 'no':>9}{row.items:>7.0f}{times}{late}", flush=True)
    return row


# -- people who talk ---------


def clips() -> list[bytes]:
    """Utterances of the demo shift, each with the second of silence that ends it."""

    def cut(channel: ShiftChannel) -> Iterator[bytes]:
        with as_file(audio_file(channel)) as file:
            sound, _ = soundfile.read(file, dtype="int16")
        for said in channel.utterances:
            clip = sound[max(0, int((said.start_s - 0.2) * RATE)) : int((said.end_s + 0.1) * RATE)]
            yield np.concatenate([clip, np.zeros(RATE, np.int16)]).tobytes()

    return [clip for channel in load_shift().channels for clip in cut(channel)]


@contextlib.asynccontextmanager
async def people(url: str, key: str, talkers: int) -> AsyncIterator[Talking]:
    """So many conversations that never end, until the block is left."""
    spoken, talking = clips(), Talking()
    heard = asyncio.Event()

    async def talk(number: int) -> None:
        async def sound() -> AsyncIterator[bytes]:
            yield bytes(2 * RATE * number // 4)  # not all at the same moment
            for clip in itertools.islice(itertools.cycle(spoken), number, None):
                yield clip

        options = StreamOptions(url=url, key=key, conversation_id=f"talker-{number}-{time.time_ns()}", channel="radio")
        client = AudioClient(options, Paced(PcmSource(AudioFormat(), sound())))
        async with client.stream() as events:
            async for event in events:
                if isinstance(event, Utterance):
                    talking.utterances += 1
                    heard.set()

    tasks = [asyncio.ensure_future(talk(number)) for number in range(talkers)]
    try:
        async with asyncio.timeout(60):
            await heard.wait()
        talking.utterances, began = 0, time.perf_counter()
        yield talking
        talking.seconds = time.perf_counter() - began
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# -- the run ---------


async def measure(data: Path, count: int, talkers: int, log: Path, only: str) -> tuple[list[Row], Talking]:
    talking = Talking()
    async with server(data, 0, log) as url:
        keys = {}
        roles: tuple[Role, ...] = ("read", "ingest")
        for role in roles:
            [row] = await administer(data, CreateKey(role=role), needs_server=True)
            keys[role] = str(row["key"])
        headers = {"Authorization": f"Bearer {keys['read']}"}
        async with aiohttp.ClientSession(headers=headers) as client:
            asking = Asking(client=client, url=url, words=_vocabulary())
            await find_cursors(asking, pages=40)
            kinds = {name: ask for name, ask in requests(asking).items() if only in name}
            print(HEAD)
            rows = [await timed(name, ask, count, talking=False) for name, ask in kinds.items()]
            if talkers:
                async with people(url, keys["ingest"], talkers) as talking:
                    rows += [await timed(name, ask, count, talking=True) for name, ask in kinds.items()]
    return rows, talking


async def measure_alone(where: str, count: int, only: str) -> list[Row]:
    """A dashboard in a process of its own, with keys and streams beside it."""
    command = [sys.executable, "-m", "benchmarks.dashboard_alone", where]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        url, key = (await process.stdout.readline()).decode().split()
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as client:
            return await measure_rest(client, url, count, only)
    finally:
        await process.communicate()


async def measure_rest(client: aiohttp.ClientSession, url: str, count: int, only: str) -> list[Row]:
    asking = Asking(client=client, url=url, words=_vocabulary())
    await find_cursors(asking, pages=40)
    print(HEAD)
    return [await timed(name, ask, count, talking=False) for name, ask in requests(asking).items() if only in name]


def _vocabulary() -> Iterator[str]:
    return itertools.cycle(word for talk in history(2_000, seed=11) for word in talk.transcript.text.split()[1:4])


async def run_alone(arguments: argparse.Namespace) -> int:
    where: str = arguments.database
    database = Database(where)
    database.open()
    migrate(database.engine, "dashboard", MIGRATIONS)
    there = (await SqlQueries(database).replay("main", None, 1, Board())).change
    await database.aclose()
    if there:
        print("used as it is")
    else:
        seconds = await fill_database(where, arguments.utterances)
        print(f"{arguments.utterances} utterances stored in {seconds:.0f} s", flush=True)
    rows = await measure_alone(where, arguments.requests, arguments.only)
    print(json.dumps({"utterances": arguments.utterances, "rows": [asdict(row) for row in rows]}))
    return 0 if all(row.p95_ms <= AIM_MS for row in rows) else 1


async def run(arguments: argparse.Namespace, folder: Path) -> int:
    data: Path = arguments.data_dir or folder / "data"
    directory = DataDirectory(data)
    if directory.database.exists():
        print(f"{data}: used as it is")
    else:
        seconds = await fill(directory, arguments.utterances)
        (data / "quickcomm.toml").write_text("[keys]\nrequests_per_second = 1e6\nrequests_burst = 1e6\n")
        megabytes = directory.database.stat().st_size / 1e6
        print(f"{arguments.utterances} utterances stored in {seconds:.0f} s ({megabytes:.0f} MB)", flush=True)
    rows, talking = await measure(data, arguments.requests, arguments.talkers, folder / "log", arguments.only)
    print(f"while {arguments.talkers} people talked: {talking.per_second:.1f} utterances a second were heard")
    result = {"utterances": arguments.utterances, "heard_per_s": round(talking.per_second, 2)}
    print(json.dumps({**result, "rows": [asdict(row) for row in rows]}))
    return 0 if all(row.p95_ms <= AIM_MS for row in rows) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=200, help="of each kind")
    parser.add_argument("--talkers", type=int, default=20, help="who talk meanwhile; 0: nobody")
    parser.add_argument("--only", default="", help="kinds of request whose name has this in it")
    parser.add_argument("--data-dir", type=Path, help="filled if it is new, and kept")
    parser.add_argument("--database", help="of a dashboard alone: a file or postgresql://…; filled if it is empty")
    arguments = parser.parse_args()
    if arguments.database:
        return asyncio.run(run_alone(arguments))
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(arguments, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
