"""Many lines at two workers in virtual time: the real `Turns`, `Load` and `Tempo`, and an engine that only costs."""

import asyncio
import heapq
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from tests.support.hearing import Talk

from quickcomm.audio.ports import Clip, Effort, Transcript
from quickcomm.audio.service.load import Load, Tempo
from quickcomm.audio.service.turns import Job, Turns

WORKERS: Final = 2
MAX_BATCH: Final = 4
ENDPOINT_S: Final = 0.6
"""From the end of speech until it is known to be over."""
LOOK_EVERY_S: Final = 0.2
SAVED: Final = {Effort.FULL: 0.0, Effort.ONE_OPINION: 0.08, Effort.LEAST: 0.18}
"""Share of the work that is left out."""


@dataclass(frozen=True, slots=True)
class Said:
    """An utterance of a line, in seconds from the start."""

    line: Talk
    ended: float
    seconds: float
    place: float = 0.0
    """Where it ends in its stream; 0 where that came as it was spoken."""


@dataclass(slots=True)
class Outcome:
    """Seconds from the end of speech until an utterance and all before it were written down, by line."""

    late_s: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    drafted_s: list[float] = field(default_factory=list)
    """From the end of speech to the text, of those that were decoded before an earlier one of their line."""
    levels: set[int] = field(default_factory=set)

    def of(self, lines: Iterable[Talk]) -> list[float]:
        return sorted(late for line in lines for late in self.late_s[id(line)])


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def talk(line: Talk, seconds: float, seed: int, start: float = 0.0) -> list[Said]:
    """Utterances of 1.5 to 6 s with pauses of 0.7 to 1.3 s, as the talkers of the benchmarks say them."""
    chance = random.Random(seed)  # noqa: S311 - the same talk each time
    said, at = [], start + chance.uniform(0.0, 2.0)
    while at < start + seconds:
        length = chance.uniform(1.5, 6.0)
        at += length
        said.append(Said(line, at, length))
        at += chance.uniform(0.7, 1.3)
    return said


def simulate(said: Iterable[Said], load: float, *, shed: bool = True) -> Outcome:
    """Run until all is written down. `load`: work ÷ capacity for what is said by all lines, without shedding."""
    return _Run(sorted(said, key=lambda one: one.ended), load, shed=shed).run()


class _Run:
    def __init__(self, said: list[Said], load: float, *, shed: bool) -> None:
        self._loop = asyncio.new_event_loop()
        self._shed = shed
        over = max(one.ended for one in said) - min(one.ended - one.seconds for one in said)
        self._cost = load * WORKERS * over / sum(one.seconds for one in said)
        self._turns, self._load = Turns(), Load()
        self._tempos: dict[int, Tempo] = defaultdict(Tempo)
        self._open: dict[int, list[tuple[Said, Job]]] = defaultdict(list)
        self._free = WORKERS
        self._outcome = Outcome()
        self._events: list[tuple[float, int, Said | list[Job] | None]] = []
        self._count = 0
        for one in said:
            self._push(one.ended + ENDPOINT_S, one)
        for step in range(int((max(one.ended for one in said) + 60) / LOOK_EVERY_S)):
            self._push(step * LOOK_EVERY_S, None)

    def run(self) -> Outcome:
        while self._events:
            now, _, event = heapq.heappop(self._events)
            if isinstance(event, Said):
                self._add(event, now)
            elif event is not None:
                self._done(event, now)
            self._load.look(self._turns.longest_wait_s(now) if self._shed else 0.0, now)
            self._outcome.levels.add(self._load.level)
            self._start(now)
        self._loop.close()
        assert not self._turns
        return self._outcome

    def _push(self, at: float, event: Said | list[Job] | None) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, event))

    def _add(self, one: Said, now: float) -> None:
        before = self._open[id(one.line)]
        ended = self._tempos[id(one.line)].ended_at(one.ended, one.place or one.ended, waits=bool(before))
        future: asyncio.Future[Transcript] = self._loop.create_future()
        job = Job(Clip(samples=np.zeros(1, np.int16)), one.seconds, ended, now, future, one.line)
        before.append((one, job))
        self._turns.add(job)

    def _start(self, now: float) -> None:
        while self._free and (batch := self._turns.next_batch(MAX_BATCH, now)):
            self._free -= 1
            work = self._cost * sum(job.seconds for job in batch) * (1 - SAVED[self._load.effort])
            self._push(now + work, batch)

    def _done(self, batch: list[Job], now: float) -> None:
        self._free += 1
        for job in batch:
            job.future.set_result(Transcript(text="."))
            waiting = self._open[id(job.line)]
            place = next(index for index, (_, each) in enumerate(waiting) if each is job)
            if not all(other.future.done() for _, other in waiting[:place]):
                self._outcome.drafted_s.append(now - waiting[place][0].ended)
        for line in {id(job.line) for job in batch}:
            waiting = self._open[line]
            while waiting and waiting[0][1].future.done():
                self._outcome.late_s[line].append(now - waiting.pop(0)[0].ended)
