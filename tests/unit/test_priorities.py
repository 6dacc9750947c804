"""Priorities of real processes: of all their threads, and a word where the system refuses."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from quickcomm.topology.model.settings import PrioritySettings
from quickcomm.topology.module import RecordedProcesses

PROGRAM = """
import sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """With two threads."""
    made = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert made.stdout is not None
    made.stdout.readline()
    try:
        yield made
    finally:
        made.communicate()


def of_threads(pid: int) -> list[int]:
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    return [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads]


def test_all_threads_yield(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    processes = RecordedProcesses(tmp_path)
    with capture_logs() as said:
        processes.prioritise("x-1", process.pid, 5)
        assert of_threads(process.pid) == [min(19, own + 5)] * 2
        processes.prioritise("x-1", process.pid, 100)
        assert of_threads(process.pid) == [19] * 2
    assert said == []


def test_a_system_that_refuses_is_told_of_once(
    process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_which: int, _who: int, _priority: int) -> None:
        raise PermissionError

    before = of_threads(process.pid)
    monkeypatch.setattr(os, "setpriority", refuse)
    processes = RecordedProcesses(tmp_path)
    with capture_logs() as said:
        for _ in range(3):
            processes.prioritise("x-1", process.pid, 1 if before[0] < 19 else -1)
    assert [event["event"] for event in said] == ["priority.refused"]
    assert "CAP_SYS_NICE" in said[0]["why"]
    assert of_threads(process.pid) == before


def test_a_process_that_has_ended_is_no_error(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    process.communicate()
    RecordedProcesses(tmp_path).prioritise("x-1", process.pid, 5)


def test_beside_a_monolith_no_service_yields_more_than_that() -> None:
    priority = PrioritySettings(dashboard=15, intelligence=-2, monolith=3)
    assert priority.of("dashboard") == 15
    assert priority.of("dashboard", beside_monolith=True) == 3
    assert priority.of("intelligence", beside_monolith=True) == -2
    assert priority.of("audio", beside_monolith=True) == 0
