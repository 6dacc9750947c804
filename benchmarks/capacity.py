"""Continuous talkers: how many a server keeps up with, how soon their words are back, and what that costs.

`python -m benchmarks.capacity [--talkers 8,32,48,64] [--seconds 60]` starts a server of its own for each number, has
all talkers on at once, and scores the utterances whose speech ended in the scored time, after a lead of 30 s. The load
comes from the same machine. Others of its kind: `benchmarks.rooms`, `benchmarks.strain`.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import aiohttp

from benchmarks.load import Line, percentile, talk, watch
from benchmarks.process import Usage, together, usage
from benchmarks.stt import wer
from benchmarks.talkers import RATE, Talk, whole
from benchmarks.talkers import talk as stream
from quickcomm.contracts.commands import CreateKey, GetStatus
from quickcomm.operate.administration import administer
from quickcomm.operate.child import server

LEAD_S = 30.0
TAIL_S = 6.0
REACH_S = 2.0
KEY_HOLDS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. Latencies in seconds; `cpu`: server CPU seconds per second of speech."""

    talkers: int
    utterances: int
    p50: float
    p95: float
    worst: float
    card_p50: float
    card_p95: float
    cpu: float
    cores: float
    rss_mb: float
    late_by: float
    """How far behind real time the generator was at worst."""
    wer: float = 0.0
    load_cores: float = 0.0
    """What the generator itself took, on the same machine."""
    parts: dict[str, float] = field(default_factory=dict)
    """Cores that each part of the server took."""

    @property
    def in_time(self) -> bool:
        """Where nothing came back there is no p95, and nothing is in time."""
        return self.p95 <= REACH_S


@dataclass(frozen=True, slots=True)
class Site:
    """A server of the benchmark's own. `parts`: its processes, by what they are."""

    url: str
    data: Path
    parts: Mapping[str, Sequence[int]]
    ingest: tuple[str, ...]
    read: str

    def key(self, talker: int) -> str:
        return self.ingest[talker // KEY_HOLDS]


Place = Callable[[int], AbstractAsyncContextManager[Site]]
"""Starts one for so many talkers."""
Beside = Callable[[Site, aiohttp.ClientSession], AbstractAsyncContextManager[Sequence[int]]]
"""What goes on at a site while people talk: from before the first of them until after the last. Gives the processes
that make it, beside this one."""


@asynccontextmanager
async def nothing(_place: Site, _client: aiohttp.ClientSession) -> AsyncIterator[Sequence[int]]:
    yield ()


def used(place: Site) -> dict[str, Usage]:
    """By each part: all its processes together."""
    return {name: together(usage(pid) for pid in pids) for name, pids in place.parts.items()}


def all_used(place: Site) -> Usage:
    return together(used(place).values())


def connections() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


@asynccontextmanager
async def site(talkers: int) -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        async with server(data, 0, Path(folder) / "log") as url:
            [status] = await administer(data, GetStatus(), needs_server=True)
            ingest, read = await new_keys(data, talkers)
            yield Site(url, data, {"server": [status["pid"]]}, ingest, read)


async def new_keys(data: Path, talkers: int) -> tuple[tuple[str, ...], str]:
    """For so many talkers, and for a page."""
    count = -(-talkers // KEY_HOLDS)
    made = [await administer(data, CreateKey(role="ingest"), needs_server=True) for _ in range(count)]
    [reader] = await administer(data, CreateKey(role="read"), needs_server=True)
    return tuple(one["key"] for [one] in made), reader["key"]


def talks_of(count: int, seconds: float) -> list[Talk]:
    return [whole(stream(index, seconds)) for index in range(count)]


def lines(talks: Sequence[Talk]) -> list[Line]:
    return [Line(f"talker-{index}", one.samples) for index, one in enumerate(talks)]


def heard_wrong(talks: Sequence[Talk], talkers: Sequence[Line]) -> float:
    """Word error rate of the whole streams, in percent."""
    said = [" ".join(text for _, _, text in one.said) for one in talks]
    heard = [" ".join(one.text for one in sorted(line.heard, key=lambda one: one.start)) for line in talkers]
    return round(wer(said, heard), 2)


async def run_talkers(
    count: int, seconds: float, *, lead: float = LEAD_S, start: Place = site, beside: Beside = nothing
) -> Row:
    """`count` talkers at once, and a page: the figures of the scored time."""
    talks = talks_of(count, lead + seconds + TAIL_S)
    talkers = lines(talks)
    cards: dict[str, float] = {}
    async with (
        start(count) as place,
        connections() as client,
        beside(place, client) as crowd,
        asyncio.TaskGroup() as tasks,
    ):
        watcher = tasks.create_task(watch(client, place.url, place.read, cards))
        begin, stop = time.monotonic() + 2.0, asyncio.Event()
        speaking = [
            tasks.create_task(talk(client, place.url, place.key(index), line, begin + (index % 50) / 500, stop))
            for index, line in enumerate(talkers)
        ]
        await until(begin + lead)
        before, own = used(place), _own(crowd)
        await until(begin + lead + seconds)
        after, own = used(place), _own(crowd) - own
        await asyncio.gather(*speaking)
        watcher.cancel()
    window = (begin + lead, begin + lead + seconds)
    row = _row(talkers, window, cards, (together(before.values()), together(after.values())))
    parts = {name: round(after[name].since(before[name]).cpu_s / seconds, 3) for name in after}
    return replace(row, wer=heard_wrong(talks, talkers), load_cores=round(own / seconds, 3), parts=parts)


def _row(talkers: list[Line], window: tuple[float, float], cards: dict[str, float], uses: tuple[Usage, Usage]) -> Row:
    """`uses`: by the server, up to the beginning and the end of the window."""
    spent = uses[1].since(uses[0])
    heard = [one for line in talkers for one in line.heard if window[0] <= one.ended_at < window[1]]
    latencies = [one.latency_s for one in heard]
    pushed = [cards[one.utterance_id] - one.ended_at for one in heard if one.utterance_id in cards]
    missing = len(heard) - len(pushed)
    pushed += [float("inf")] * missing
    speech = sum(one.end - one.start for one in heard) / RATE
    return Row(
        talkers=len(talkers),
        utterances=len(heard),
        p50=percentile(latencies, 0.5),
        p95=percentile(latencies, 0.95),
        worst=max(latencies, default=float("nan")),
        card_p50=percentile(pushed, 0.5),
        card_p95=percentile(pushed, 0.95),
        cpu=spent.cpu_s / speech if speech else float("nan"),
        cores=spent.cpu_s / (window[1] - window[0]),
        rss_mb=uses[1].rss_mb,
        late_by=max(line.late_by for line in talkers),
    )


def _own(crowd: Iterable[int]) -> float:
    """CPU seconds that the load itself took."""
    return time.process_time() + sum(usage(pid).cpu_s for pid in crowd)


async def until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def table(rows: Iterable[Row]) -> None:
    print(
        f"{'talkers':>8}{'utt.':>6}{'p50 s':>8}{'p95 s':>8}{'worst':>8}{'card p95':>10}{'CPU/speech':>12}{'cores':>7}"
        f"{'RSS MB':>8}{'WER %':>7}{'late by':>9}"
    )
    for row in rows:
        print(
            f"{row.talkers:>8}{row.utterances:>6}{row.p50:>8.2f}{row.p95:>8.2f}{row.worst:>8.2f}{row.card_p95:>10.2f}"
            f"{row.cpu:>12.4f}{row.cores:>7.2f}{row.rss_mb:>8.0f}{row.wer:>7.2f}{row.late_by:>9.2f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talkers", default="8,32,48,64")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    rows = []
    for count in map(int, options.talkers.split(",")):
        row = asyncio.run(run_talkers(count, options.seconds))
        rows.append(row)
        table([row])
        sys.stdout.flush()
    print(json.dumps([asdict(row) for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
