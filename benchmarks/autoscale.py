"""`up --autoscale` in a burst: how soon a second process of audio has work, and p95 is in its budget again.

`python -m benchmarks.autoscale [--calm 8] [--burst 32] [--lead 40] [--seconds 120] [--after 170] [--budget 2.0]` (needs
QUICKCOMM_SPEECH_DATA). Services with one decode worker a process. `--calm` talkers speak from the beginning to the end;
after `--lead` seconds others come, up to `--burst` in all, speak for `--seconds`, and leave; `--after` is long enough
that the second process goes again. Clients resume, as the product's own do, and never stop speaking.

Told: seconds from when the policy wants a second process until that one has a conversation; and until p95 of end of
speech → utterance, over windows of ten seconds, is within the budget for the rest of the burst. Then changes of the
number of processes, reconnections, and what was lost, doubled or moved, against the same sound undisturbed.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

import aiohttp
from tests.support.kills import Toll, count
from tests.support.resuming import Heard, stream
from tests.support.site import Site

from benchmarks.load import CHUNK, CHUNK_MS, percentile
from benchmarks.shapes import Tuning, topology
from benchmarks.talkers import RATE, talk
from quickcomm.client.audio_client import AudioClient, Event
from quickcomm.client.options import Patience, StreamOptions
from quickcomm.client.sources import Chunk, PcmSource
from quickcomm.contracts.audio_socket import AudioFormat, Ready, Utterance
from quickcomm.contracts.commands import GetStatus
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.runtime.admin_socket import ask

Json = dict[str, Any]
SETTINGS: Final = {"QUICKCOMM_STT_WORKERS": "1", "QUICKCOMM_AUTOSCALE_AUDIO_MOST": "2"}
WINDOW_S: Final = 10.0
LOOK_S: Final = 0.5
ARRIVE_S: Final = 0.1
"""Between two talkers of the burst."""
ANSWER_S: Final = 5.0
UNDISTURBED_AT_ONCE: Final = 4
SECOND: Final = "audio-2"
PATIENCE: Final = Patience(first=0.05, longest=2.0)


class Talker:
    """A client that speaks in real time, whatever happens. Monotonic seconds."""

    def __init__(self, name: str, sound: bytes) -> None:
        self.name = name
        self.sound = sound
        self.connections = 0
        self.latencies: list[tuple[float, float]] = []
        """When speech ended, and after how many seconds its utterance came."""
        self._spoken_at: list[float] = []

    async def speak(self, url: str, key: str) -> Heard:
        """Say all of it."""
        options = StreamOptions(url=url, key=key, conversation_id=self.name, patience=PATIENCE)
        client = AudioClient(options, PcmSource(AudioFormat(sample_rate=RATE), self._pieces(), live=True))
        events: list[Event] = []
        async with client.stream() as told:
            async for event in told:
                events.append(event)
                self._note(event)
        return Heard(self.name, events)

    async def _pieces(self) -> AsyncIterator[Chunk]:
        begin, size = time.monotonic(), 2 * CHUNK
        for index in range(-(-len(self.sound) // size)):
            await asyncio.sleep(max(0.0, begin + (index + 1) * CHUNK_MS / 1000 - time.monotonic()))
            self._spoken_at.append(time.monotonic())
            yield self.sound[index * size : (index + 1) * size]

    def _note(self, event: Event) -> None:
        if isinstance(event, Ready):
            self.connections += 1
        elif isinstance(event, Utterance):
            at = self._spoken_at[min(len(self._spoken_at) - 1, (event.end_offset - 1) // CHUNK)]
            self.latencies.append((at, time.monotonic() - at))


class Looker:
    """Notes how many processes there are, when more were wanted, and when the second one had a conversation."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.changes: list[Json] = []
        self.wanted_at: float | None = None
        self.took_up_at: float | None = None

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                up, *rows = await ask(self._site.layout.control, GetStatus(), ANSWER_S)
            except (QuickCommError, aiohttp.ClientError, OSError):
                continue
            audio = [row for row in rows if row["module"] == "audio"]
            found = up["autoscale"].get("audio")
            if found is not None:
                self._note(found)
            if self.took_up_at is None and any(row["process"] == SECOND and row.get("sessions") for row in audio):
                self.took_up_at = time.monotonic()

    def _note(self, found: Json) -> None:
        if not self.changes or self.changes[-1]["wanted"] != found["wanted"]:
            since = datetime.fromisoformat(found["since"]).timestamp()
            at = time.monotonic() - max(0.0, time.time() - since)
            self.changes.append({"wanted": found["wanted"], "why": found["why"], "at": at})
            if self.wanted_at is None and found["wanted"] > 1:
                self.wanted_at = at


def windows(talkers: Sequence[Talker], since: float, until: float) -> list[tuple[float, float]]:
    """Return the end of each window, and the p95 of utterances whose speech ended in it."""
    found = [each for talker in talkers for each in talker.latencies]
    ends = [since + (number + 1) * WINDOW_S for number in range(int((until - since) / WINDOW_S))]
    return [(end, percentile([took for at, took in found if end - WINDOW_S <= at < end], 0.95)) for end in ends]


async def run(site: Site, given: argparse.Namespace) -> Json:
    key = await asyncio.to_thread(site.key)
    whole_s = given.lead + given.seconds + given.after
    lengths_s = [whole_s] * given.calm + [given.seconds] * (given.burst - given.calm)
    talkers = [
        Talker(f"talker-{number}", talk(number, seconds).samples.tobytes()) for number, seconds in enumerate(lengths_s)
    ]
    looker = Looker(site)
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(looker.run())
        speaking = [tasks.create_task(each.speak(site.url, key)) for each in talkers[: given.calm]]
        await asyncio.sleep(given.lead)
        burst_at = time.monotonic()
        for each in talkers[given.calm :]:
            speaking.append(tasks.create_task(each.speak(site.url, key)))
            await asyncio.sleep(ARRIVE_S)
        heard = await asyncio.gather(*speaking)
        looking.cancel()
    found = windows(talkers, burst_at, burst_at + given.seconds)
    late = [end for end, p95 in found if p95 > given.budget]
    wanted_at = looker.wanted_at
    print("undisturbed …", file=sys.stderr)
    toll = await tolled(site, key, talkers, heard)
    return {
        "calm": given.calm,
        "burst": given.burst,
        "budget_s": given.budget,
        "burst_to_wanted_s": _between(burst_at, wanted_at),
        "wanted_to_work_s": _between(wanted_at, looker.took_up_at),
        "wanted_to_budget_s": 0.0 if not late else _between(wanted_at, late[-1]),
        "in_budget_at_the_end": bool(found) and found[-1][1] <= given.budget,
        "p95_by_window_s": [round(p95, 2) for _, p95 in found],
        "changes": [each | {"at": round(each["at"] - burst_at, 1)} for each in looker.changes],
        "reconnections": sum(each.connections - 1 for each in talkers),
        "utterances": toll.utterances,
        "faults": toll.faults,
    }


async def tolled(site: Site, key: str, talkers: Sequence[Talker], heard: Sequence[Heard]) -> Toll:
    """Have the same sound heard by the site at rest, and compare."""
    toll, free = Toll(seed=0, kills={}), asyncio.Semaphore(UNDISTURBED_AT_ONCE)

    async def calmly(talker: Talker) -> Heard:
        async with free:
            return await stream(site.url, key, talker.sound)

    for now, before in zip(heard, await asyncio.gather(*map(calmly, talkers)), strict=True):
        count(toll, now, before)
    return toll


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round(end - begin, 1)


def table(found: Json) -> None:
    for name, value in found.items():
        if name != "changes":
            print(f"{name:24} {value}")
    for change in found["changes"]:
        print(f"  {change['at']:8.1f} s  {change['wanted']} wanted: {change['why']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calm", type=int, default=8)
    parser.add_argument("--burst", type=int, default=32)
    parser.add_argument("--lead", type=float, default=40.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--after", type=float, default=170.0)
    parser.add_argument("--budget", type=float, default=2.0)
    parser.add_argument("--talkers", type=float, default=16.0, help="that one decode worker bears (autoscale.talkers)")
    given = parser.parse_args()
    settings = SETTINGS | {"QUICKCOMM_AUTOSCALE_TALKERS": str(given.talkers)}
    with topology("services", Tuning(settings=settings), "--autoscale") as site:
        found = asyncio.run(run(site, given))
    table(found)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
