"""Whose turn it is at the engine: finished utterances in two queues, what is on time and what is late.

On time goes first, the oldest before the others. Late lines go by what they have waiting, the shortest first, and those
on which somebody still talks before those that are over: lateness gathers in as few conversations as possible, and each
that has caught up is on time from then on (shortest remaining processing time, Schrage 1968). That nobody starves,
some turns are for the late while others wait, and of those some for the line that has waited longest.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from quickcomm.audio.ports import Clip, Transcript, length_step

LATE_AFTER_S: Final = 1.2
LATE_TURN: Final = 4
"""Every so many batches one is for the late, though others are on time."""
OLDEST_TURN: Final = 4
"""Every so many late batches one is for the line that has waited longest."""


class Line(Protocol):
    """Whose utterances must come out one after the other: a conversation."""

    @property
    def over(self) -> bool:
        """Nothing more will be said on it."""
        ...


class Job(msgspec.Struct, eq=False):
    """A clip on its way through the engine. `queued_at` is monotonic."""

    clip: Clip
    seconds: float
    queued_at: float
    future: asyncio.Future[Transcript]
    line: Line
    attempts: int = 0
    guess: bool = False
    """Nobody waits for it: a guess that fails is not tried again."""


class _Late(msgspec.Struct, eq=False):
    """A line's late utterances, in the order spoken."""

    line: Line
    jobs: deque[Job]
    seconds: float = 0.0


class Turns:
    def __init__(self) -> None:
        self._again: deque[Job] = deque()
        self._on_time: deque[Job] = deque()
        self._late: dict[int, _Late] = {}
        self._batches = 0
        self._late_batches = 0

    def __bool__(self) -> bool:
        return bool(self._again or self._on_time or self._late)

    def __iter__(self) -> Iterator[Job]:
        yield from self._again
        yield from self._on_time
        for late in self._late.values():
            yield from late.jobs

    def add(self, job: Job, now: float, *, late: bool = False) -> None:
        """`late`: it must wait for one before it that is late, so that nothing is won by taking it first."""
        if late:
            self._sort_out(now)
            self._add_late(job)
        else:
            self._on_time.append(job)

    def add_again(self, job: Job) -> None:
        """A job that failed: next, and alone."""
        self._again.appendleft(job)

    def next_batch(self, most: int, now: float) -> list[Job]:
        """The job whose turn it is, and others of like length; empty if nothing waits. Cancelled ones fall out."""
        while self:
            self._sort_out(now)
            batch = [job for job in self._next_batch(most) if not job.future.cancelled()]
            if batch:
                return batch
        return []

    # -- inside -----------------------------------------------------------------------------------------------------

    def _next_batch(self, most: int) -> list[Job]:
        if self._again:
            return [self._again.popleft()]
        if not self._late:
            return self._with_alike(self._on_time.popleft(), [], most)
        self._batches += 1
        lines = sorted(self._late.values(), key=lambda late: (late.line.over, late.seconds))
        if self._on_time and self._batches % LATE_TURN:
            return self._with_alike(self._on_time.popleft(), lines, most)
        self._late_batches += 1
        if self._late_batches % OLDEST_TURN == 0:
            lines.sort(key=lambda late: late.jobs[0].queued_at)
        return self._with_alike(self._take(lines[0], lines[0].jobs[0]), lines, most)

    def _with_alike(self, head: Job, lines: list[_Late], most: int) -> list[Job]:
        """A batch: others of the same length step go along, first those on time, then from the lines in their order."""
        step, batch = length_step(head.seconds), [head]
        for job in [job for job in self._on_time if length_step(job.seconds) == step][: most - 1]:
            self._on_time.remove(job)
            batch.append(job)
        for late in lines:
            alike = [job for job in late.jobs if length_step(job.seconds) == step]
            batch += [self._take(late, job) for job in alike[: most - len(batch)]]
        return batch

    def _take(self, late: _Late, job: Job) -> Job:
        late.jobs.remove(job)
        late.seconds -= job.seconds
        if not late.jobs:
            del self._late[id(late.line)]
        return job

    def _add_late(self, job: Job) -> None:
        late = self._late.setdefault(id(job.line), _Late(job.line, deque()))
        late.jobs.append(job)
        late.seconds += job.seconds

    def _sort_out(self, now: float) -> None:
        """Set apart what is late."""
        while self._on_time and self._on_time[0].queued_at < now - LATE_AFTER_S:
            self._add_late(self._on_time.popleft())
