"""What a process takes of its machine: CPU by kind of work, how late its event loop is; and what the machine has."""

import asyncio
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

EVERY_S: Final = 0.5
_LATE: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_TASKS: Final = Path("/proc/self/task")
_NAMES: Final = (
    ("front-end", "speech"),
    ("stt", "speech"),
    ("classify", "understanding"),
    ("storage-reader", "reading"),
    ("storage-writer", "writing"),
    ("MainThread", "loop"),
)
"""Beginnings of the names of threads, and the work that these do."""
_NATIVE: Final = "speech"
"""Threads that Python did not start are those of the speech engine, and so are nearly all that have ended."""
_OTHER: Final = "other"

LAG: Final = Histogram(
    "quickcomm_loop_lag_seconds", "How much later than asked the event loop woke a task", buckets=_LATE
)
CORES: Final = Gauge("quickcomm_machine_cores", "Cores that this process may use")
MEMORY: Final = Gauge("quickcomm_machine_memory_bytes", "Memory of the machine")


class _Cpu(Collector):
    """Seconds of CPU, by the work of this process, and of the whole machine. Nothing where there is no `/proc`."""

    def __init__(self) -> None:
        self._told: defaultdict[str, float] = defaultdict(float)

    def collect(self) -> Iterator[CounterMetricFamily]:
        works = CounterMetricFamily(
            "quickcomm_work_cpu_seconds", "CPU of this process by the work of its threads", labels=["work"]
        )
        machine = CounterMetricFamily("quickcomm_machine_cpu_seconds", "CPU that all programs of the machine took")
        if _TASKS.is_dir():
            for work, seconds in cpu_by_work().items():
                # The time of a thread that ends goes over to another kind; a counter must not fall for that.
                self._told[work] = max(self._told[work], seconds)
                works.add_metric([work], self._told[work])
            machine.add_metric([], _machine_cpu_s())
        yield works
        yield machine


def cpu_by_work() -> dict[str, float]:
    """Return the CPU seconds of this process by the work of its threads. Raises `OSError` without `/proc`."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found: defaultdict[str, float] = defaultdict(float)
    for task in _TASKS.iterdir():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        found[_work(names.get(int(task.name)))] += (int(fields[11]) + int(fields[12])) / _ticks()
    found[_NATIVE] += max(0.0, time.process_time() - sum(found.values()))
    return dict(found)


async def watch_loop() -> None:
    """Measure how late the event loop is, until cancelled."""
    CORES.set(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    MEMORY.set(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        LAG.observe(max(0.0, loop.time() - due))


def _work(name: str | None) -> str:
    if name is None:
        return _NATIVE
    return next((work for beginning, work in _NAMES if name.startswith(beginning)), _OTHER)


def _machine_cpu_s() -> float:
    """Return user, nice, system and both kinds of interrupts: neither idle nor waiting for a disk."""
    user, nice, system, _idle, _waiting, hard, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + hard + soft) / _ticks()


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")


REGISTRY.register(_Cpu())
