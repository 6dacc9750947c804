"""Running conversations are handed over between the monolith and audio as a service, there and back.

`python -m benchmarks.handover [--talkers 6] [--silent 200] [--rounds 4]`: real speech in real time, clients that are
connected and say nothing, and a page that shows captions. In each round the routes give everything to the other side.
Told: from `reconnect` to the `ready` of the other side, at which a client sends on at once; from `reconnect` to the
next caption or utterance, of all and of those in which somebody speaks at that moment; the same without a hand-over,
from a moment halfway between two; how many silent clients a second come to the other side; that nothing was lost,
doubled or moved.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tests.support.kills import Toll, count, watching
from tests.support.resuming import stream
from tests.support.routing import routing
from tests.support.server import quickcomm
from tests.support.site import Site
from tests.support.wire import new_id

from benchmarks.load import percentile
from benchmarks.shapes import Tuning, topology
from benchmarks.talkers import RATE, Talk, talk
from quickcomm.client.audio_client import AudioClient, Event
from quickcomm.client.options import Patience, StreamOptions
from quickcomm.client.sources import Chunk, PcmSource
from quickcomm.contracts.audio_socket import AudioFormat, Partial, Ready, Reconnect, Utterance

Json = dict[str, Any]
SETTINGS = {"QUICKCOMM_AUDIO_MAX_SESSIONS_PER_KEY": "2000", "QUICKCOMM_AUDIO_MAX_SESSIONS": "2000"}
"""No client is refused: there is no controller that would lead it back."""
REST_S = 12.0
WITHIN_S = 120.0


class Moves:
    """Milliseconds from `reconnect` on, of all clients of a kind."""

    def __init__(self) -> None:
        self.ready: list[float] = []
        self.words: list[float] = []
        self.words_talking: list[float] = []
        """Of `words`, where somebody spoke."""
        self.undisturbed: list[float] = []
        """From a moment at which somebody spoke to the next words, without a hand-over."""
        self.connected = 0


class Watcher:
    """One client."""

    def __init__(self, moves: Moves, said: Talk | None = None) -> None:
        """`said`: what is streamed in real time from now on."""
        self._moves = moves
        self._said = said
        self._began = time.monotonic()
        self._left: float | None = None
        self._silent_since: float | None = None
        self._marked: float | None = None
        self._talked = False

    @property
    def talks(self) -> bool:
        """Return True while a recording is being said."""
        at = (time.monotonic() - self._began) * RATE
        return self._said is not None and any(first <= at < behind for first, behind, _ in self._said.said)

    def mark(self) -> None:
        """Take the time from here to the next words, if somebody speaks."""
        self._marked = time.monotonic() if self.talks else None

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case Reconnect():
                self._left = self._silent_since = now
                self._talked, self._marked = self.talks, None
            case Ready():
                self._moves.connected += 1
                if self._left is not None:
                    self._moves.ready.append((now - self._left) * 1_000)
                    self._left = None
            case Partial() | Utterance() if self._left is None:
                self._words(now)
            case _:
                pass

    def _words(self, now: float) -> None:
        if self._silent_since is not None:
            waited = (now - self._silent_since) * 1_000
            self._moves.words.append(waited)
            if self._talked:
                self._moves.words_talking.append(waited)
            self._silent_since = None
        if self._marked is not None:
            self._moves.undisturbed.append((now - self._marked) * 1_000)
            self._marked = None


async def says_nothing(url: str, key: str, moves: Moves, over: asyncio.Event) -> None:
    async def nothing() -> AsyncIterator[Chunk]:
        await over.wait()
        yield b""

    watch = Watcher(moves)
    client = AudioClient(
        StreamOptions(url=url, key=key, conversation_id=new_id("silent")), PcmSource(AudioFormat(), nothing())
    )
    async with client.stream() as events:
        async for event in events:
            watch(event)


async def until_connected(moves: Moves, count_: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while moves.connected < count_:  # noqa: ASYNC110 - a benchmark
            await asyncio.sleep(0.01)


def spread(found: list[float]) -> Json:
    if not found:
        return {"n": 0}
    return {"n": len(found), "p50_ms": round(percentile(found, 0.5)), "p95_ms": round(percentile(found, 0.95))}


async def rest(watchers: Sequence[Watcher]) -> None:
    """Let them talk, and look halfway how soon the next words come."""
    await asyncio.sleep(REST_S / 2)
    for each in watchers:
        each.mark()
    await asyncio.sleep(REST_S / 2)


async def run(site: Site, given: argparse.Namespace) -> Json:
    await asyncio.to_thread(quickcomm, "scale", "audio=1", "--data-dir", str(site.data_dir), timeout=240)
    key = await asyncio.to_thread(site.key)
    seconds = (given.rounds + 3) * REST_S
    talks = [talk(number, seconds) for number in range(given.talkers)]
    sounds = [each.samples.tobytes() for each in talks]
    undisturbed = [await stream(site.url, key, sound) for sound in sounds]
    talkers, silent, over = Moves(), Moves(), asyncio.Event()
    rates: list[float] = []
    async with watching(site), routing(site) as routes, asyncio.TaskGroup() as tasks:
        for _ in range(given.silent):
            tasks.create_task(says_nothing(site.url, key, silent, over))
            await asyncio.sleep(0.01)
        await until_connected(silent, given.silent)
        watchers = [Watcher(talkers, each) for each in talks]
        lines = [
            tasks.create_task(stream(site.url, key, sound, watcher, Patience(), paced=True))
            for sound, watcher in zip(sounds, watchers, strict=True)
        ]
        for number in range(given.rounds):
            await rest(watchers)
            before, began = silent.connected, time.monotonic()
            await routes.put("audio", 0 if number % 2 else 10_000)
            await until_connected(silent, before + given.silent)
            rates.append(given.silent / (time.monotonic() - began))
            print(f"  round {number + 1}: {rates[-1]:.0f} silent clients a second", file=sys.stderr)
        over.set()
    toll = Toll(seed=0, kills={})
    for line, calm in zip(lines, undisturbed, strict=True):
        count(toll, line.result(), calm)
    return {
        "talkers": given.talkers,
        "silent": given.silent,
        "reconnect_to_ready_talking": spread(talkers.ready),
        "reconnect_to_caption": spread(talkers.words),
        "reconnect_to_caption_talking": spread(talkers.words_talking),
        "any_moment_to_caption_talking": spread(talkers.undisturbed),
        "reconnect_to_ready_silent": spread(silent.ready),
        "silent_per_s": [round(each) for each in rates],
        "conversations": toll.conversations,
        "utterances": toll.utterances,
        "faults": toll.faults,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--talkers", type=int, default=6)
    parser.add_argument("--silent", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    with topology("monolith", Tuning(settings=SETTINGS)) as site:
        print(json.dumps(asyncio.run(run(site, given))))


if __name__ == "__main__":
    main()
