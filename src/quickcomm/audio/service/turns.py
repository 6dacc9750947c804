"""Whose turn it is at the engine: the earliest deadline first (Liu and Layland 1973), a queue for each line.

A line's utterances come out in the order spoken, so only its oldest waiting one competes, and its deadline is the
line's. All deadlines lie `ON_TIME_S` behind the end of speech; an urgent line's lie `URGENT_S` behind it and go first
whatever the others' are. The newest utterance of a line that is far behind may be decoded out of turn, so that a cry
for help is heard before what was said earlier. Urgent lines and these drafts have at most every second turn.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import msgspec

from quickcomm.audio.ports import Clip, Transcript, length_step

ON_TIME_S: Final = 1.2
"""From the end of speech to its deadline."""
URGENT_S: Final = 0.8
"""The same for an urgent line."""
DRAFT_AFTER_S: Final = 3.0
"""A line whose oldest utterance has waited longer is far behind. It has a draft at most once in so many seconds."""


class Line(Protocol):
    """Whose utterances must come out one after the other: a conversation."""

    @property
    def over(self) -> bool:
        """Nothing more will be said on it."""
        ...

    @property
    def urgent(self) -> bool:
        """Its channel is for emergencies, or one was heard on it a moment ago."""
        ...


class Job(msgspec.Struct, eq=False):
    """A clip on its way through the engine. Times are monotonic, in seconds."""

    clip: Clip
    seconds: float
    ended_at: float
    """When the last speech sample came; later for a line that sends faster than people speak (`Tempo`)."""
    queued_at: float
    future: asyncio.Future[Transcript]
    line: Line
    attempts: int = 0
    guess: bool = False
    """Nobody waits for it: a guess that fails is not tried again."""

    @property
    def deadline(self) -> float:
        return self.ended_at + (URGENT_S if self.line.urgent else ON_TIME_S)

    def waited_s(self, now: float) -> float:
        return max(0.0, now - max(self.ended_at, self.queued_at))


class _Queue(msgspec.Struct, eq=False):
    """What waits of a line, in the order spoken."""

    line: Line
    jobs: deque[Job]
    seconds: float = 0.0
    drafted: bool = False
    """The newest utterance had its turn before the others."""
    no_draft_before: float = 0.0

    @property
    def order(self) -> tuple[float, bool, float]:
        """Deadlines in tenths of a second; among equals those who still talk, and those with the least waiting."""
        return round(self.jobs[0].deadline, 1), self.line.over, self.seconds


class Turns:
    def __init__(self) -> None:
        self._again: deque[Job] = deque()
        self._queues: dict[int, _Queue] = {}
        self._preferred = False
        """The last turn was one that some lines have before others."""

    def __bool__(self) -> bool:
        return bool(self._again or self._queues)

    def __iter__(self) -> Iterator[Job]:
        yield from self._again
        for queue in self._queues.values():
            yield from queue.jobs

    def longest_wait_s(self, now: float) -> float:
        """Return how long the utterance has waited that waits longest; 0 where none does."""
        return max((queue.jobs[0].waited_s(now) for queue in self._queues.values()), default=0.0)

    def add(self, job: Job) -> None:
        queue = self._queues.setdefault(id(job.line), _Queue(job.line, deque()))
        queue.jobs.append(job)
        queue.seconds += job.seconds
        queue.drafted = False

    def add_again(self, job: Job) -> None:
        """A job that failed: next, and alone."""
        self._again.appendleft(job)

    def next_batch(self, most: int, now: float) -> list[Job]:
        """The job whose turn it is, and others of like length; empty if nothing waits. Cancelled ones fall out."""
        while self:
            batch = [job for job in self._next_batch(most, now) if not job.future.cancelled()]
            if batch:
                return batch
        return []

    # -- inside -----------------------------------------------------------------------------------------------------

    def _next_batch(self, most: int, now: float) -> list[Job]:
        if self._again:
            return [self._again.popleft()]
        waiting = list(self._queues.values())
        urgent = [queue for queue in waiting if queue.line.urgent]
        ordinary = [queue for queue in waiting if not queue.line.urgent]
        drafts = [queue for queue in waiting if _far_behind(queue, now)]
        preferred = not ordinary or (not self._preferred and bool(urgent or drafts))
        self._preferred = preferred
        if not preferred:
            return self._alike(ordinary, most)
        if urgent:
            return self._alike(urgent, most)
        return [self._draft(drafts, now)]

    def _alike(self, queues: Sequence[_Queue], most: int) -> list[Job]:
        """A batch in the order of deadlines: utterances as long as the first one, none before its line's others."""
        batch: list[Job] = []
        while len(batch) < most:
            alike = [queue for queue in queues if queue.jobs and _as_long(queue.jobs[0], batch)]
            if not alike:
                break
            first = min(alike, key=lambda queue: queue.order)
            batch.append(self._take(first, first.jobs[0]))
        return batch

    def _draft(self, queues: Sequence[_Queue], now: float) -> Job:
        """The newest utterance of all: what was just said is worth the most."""
        queue = max(queues, key=lambda queue: queue.jobs[-1].queued_at)
        queue.drafted, queue.no_draft_before = True, now + DRAFT_AFTER_S
        return self._take(queue, queue.jobs[-1])

    def _take(self, queue: _Queue, job: Job) -> Job:
        queue.jobs.remove(job)
        queue.seconds -= job.seconds
        if not queue.jobs:
            del self._queues[id(queue.line)]
        return job


def _as_long(job: Job, batch: Sequence[Job]) -> bool:
    return not batch or length_step(job.seconds) == length_step(batch[0].seconds)


def _far_behind(queue: _Queue, now: float) -> bool:
    may = not queue.drafted and now >= queue.no_draft_before
    return may and len(queue.jobs) > 1 and now - queue.jobs[0].queued_at > DRAFT_AFTER_S
