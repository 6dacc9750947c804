"""The cores of a host, and threads on them.

Threads share the cores in proportion to their weights, none has more than one core: the limit that Linux' scheduler
comes near to (generalised processor sharing; Parekh and Gallager 1993). Where all cores are busy each is slower
(`Timing.beside`), because virtual cores share what they are made of.
"""

from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final

import simpy

Steps = Generator[simpy.Event, Any, None]
DONE_S: Final = 1e-9
"""Work below it is rounding."""


FELT: Final = 0.65
"""How much of a priority is felt: Linux lets threads that sleep most of the time in early, whatever their priority.
Fitted: queries of 16 talkers' rush hour (docs/benchmarks.md)."""


def weight(nice: int) -> float:
    """Return the share of a priority, against 1.0 for nice 0. Each step is a quarter, as far as it is felt."""
    return float(1.25 ** (-nice * FELT))


class _Task:
    __slots__ = ("finished", "left_s", "rate", "used", "weight")

    def __init__(self, work_s: float, weight: float, finished: Callable[[], None], used: list[float]) -> None:
        self.left_s = work_s
        self.weight = weight
        self.finished = finished
        self.used = used
        self.rate = 0.0


class Cores:
    """`beside`: how much slower each is where all are busy."""

    def __init__(self, env: simpy.Environment, count: int, beside: float) -> None:
        self.env = env
        self.count = count
        self._beside = beside
        self._tasks: list[_Task] = []
        self._speed = 1.0
        self._at = 0.0
        self._version = 0

    def begin(self, work_s: float, weight: float, finished: Callable[[], None], used: list[float]) -> _Task:
        """Have `work_s` done by one thread; `used[0]` counts the CPU seconds it takes."""
        self._advance()
        task = _Task(work_s, weight, finished, used)
        self._tasks.append(task)
        self._share()
        return task

    def stop(self, task: _Task) -> float:
        """Return the work that is left of it."""
        self._advance()
        self._tasks.remove(task)
        self._share()
        return task.left_s

    def _advance(self) -> None:
        passed = self.env.now - self._at
        self._at = self.env.now
        if passed:
            for task in self._tasks:
                task.left_s -= passed * task.rate * self._speed
                task.used[0] += passed * task.rate

    def _share(self) -> None:
        """Give each its share, and wake when the first is done."""
        tasks, free = self._tasks, float(self.count)
        self._version += 1
        if not tasks:
            return
        if len(tasks) <= self.count:
            for task in tasks:
                task.rate = 1.0
        else:
            total = sum(task.weight for task in tasks)
            for task in sorted(tasks, key=_weight, reverse=True):
                task.rate = min(1.0, free * task.weight / total)
                free -= task.rate
                total -= task.weight
        busy = min(len(tasks), self.count)
        more = (busy - 1) / (self.count - 1) if self.count > 1 else 0.0
        self._speed = 1 / (1 + (self._beside - 1) * more)
        soonest = min(task.left_s / task.rate for task in tasks) / self._speed
        wake = self.env.timeout(max(0.0, soonest), self._version)
        assert wake.callbacks is not None  # noqa: S101 - it has not happened yet
        wake.callbacks.append(self._woken)

    def _woken(self, event: simpy.Event) -> None:
        if event.value != self._version:
            return
        self._advance()
        done = [task for task in self._tasks if task.left_s <= DONE_S]
        self._tasks = [task for task in self._tasks if task.left_s > DONE_S]
        self._share()
        for task in done:
            task.finished()


def _weight(task: _Task) -> float:
    return task.weight


class Thread:
    """Does one thing after the other: an event loop with its interpreter lock, a database's thread, a worker."""

    def __init__(self, cores: Cores, weight: float) -> None:
        self._cores = cores
        self._weight = weight
        self._waiting: deque[tuple[float, simpy.Event]] = deque()
        self._now: tuple[_Task, simpy.Event] | None = None
        self._stopped = False
        self.used = [0.0]
        """CPU seconds."""

    def do(self, work_s: float) -> simpy.Event:
        """Return what happens once it is done."""
        done = self._cores.env.event()
        self._waiting.append((work_s, done))
        self._next()
        return done

    def stop(self) -> None:
        """The process is gone. What it was doing will be done from the beginning of what is left."""
        self._stopped = True
        if self._now is not None:
            task, done = self._now
            self._waiting.appendleft((self._cores.stop(task), done))
            self._now = None

    def start(self) -> None:
        self._stopped = False
        self._next()

    def hand_over(self, other: "Thread") -> None:
        """Let another thread do what waits. Only while stopped."""
        other._waiting.extend(self._waiting)  # noqa: SLF001 - one of its kind
        self._waiting.clear()
        other._next()  # noqa: SLF001

    def _next(self) -> None:
        if self._stopped or self._now is not None or not self._waiting:
            return
        work_s, done = self._waiting.popleft()
        self._now = (self._cores.begin(work_s, self._weight, self._finished, self.used), done)

    def _finished(self) -> None:
        assert self._now is not None  # noqa: S101 - a stopped task does not finish
        _, done = self._now
        self._now = None
        done.succeed()
        self._next()
