"""Processes of this machine, recognised by id *and* time of start: an id alone may belong to somebody else by now."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from quickcomm.kernel.errors import MALFORMED

KILLED_WITHIN_S: Final = 5.0
STAT_START: Final = 19
"""Field 22 of /proc/PID/stat is the time of start (proc(5)); three are cut off before, with the name."""
LEAST: Final = 19
MOST: Final = -20
REFUSED: Final = (
    "This system does not let processes be given a higher priority than `up` has: they run as they were started. "
    "Allow it (CAP_SYS_NICE, or LimitNICE= in a systemd unit), or let others yield more: priority.* in the settings."
)

log = structlog.get_logger(__name__)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """`started`: clock ticks since the machine was started; `boot`: which start of the machine that was."""

    name: str
    pid: int
    started: int
    boot: str


def identify(name: str, pid: int) -> Identity | None:
    """None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, *_ = fields = stat.rpartition(")")[2].split()
    if state in {"Z", "X"}:
        return None  # it has ended, and nobody has asked for its status yet
    return Identity(name=name, pid=pid, started=int(fields[STAT_START]), boot=boot)


def alive(identity: Identity) -> bool:
    return identify(identity.name, identity.pid) == identity


class RecordedProcesses:
    """A file a process, so that whoever comes after a crash knows what was started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._refused = False

    def record(self, name: str, pid: int) -> None:
        identity = identify(name, pid)
        if identity is None:
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self._directory / f".{name}.new"
        new.write_bytes(msgspec.json.encode(identity))
        os.replace(new, self._path(name))  # noqa: PTH105 - says what it is

    def erase(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def prioritise(self, name: str, pid: int, nice: int) -> None:
        """Have all its threads yield so much more than this process does. Where that is refused, it is said once."""
        wanted = max(MOST, min(LEAST, os.getpriority(os.PRIO_PROCESS, 0) + nice))
        try:
            while _set_threads(pid, wanted):
                pass  # a thread that was begun meanwhile has the priority of who began it
        except PermissionError:
            if not self._refused:
                log.warning("priority.refused", process=name, wanted=wanted, why=REFUSED)
            self._refused = True
        except FileNotFoundError:
            return  # it has ended

    def find(self, name: str) -> Identity | None:
        """The process recorded under that name, if it still lives."""
        try:
            identity = msgspec.json.decode(self._path(name).read_bytes(), type=Identity)
        except (OSError, *MALFORMED):
            return None
        return identity if alive(identity) else None

    def living(self) -> list[Identity]:
        """All that were recorded and still live."""
        found = (self.find(path.stem) for path in sorted(self._directory.glob("*.json")))
        return [identity for identity in found if identity is not None]

    async def gone(self, pid: int) -> None:
        """Works for any process, also one that somebody else started."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)

    async def stop(self, identities: Sequence[Identity], within_s: float) -> None:
        """Ask them to stop, and kill what is still there after that time."""
        for number, patience_s in ((signal.SIGTERM, within_s), (signal.SIGKILL, KILLED_WITHIN_S)):
            left = [each for each in identities if alive(each)]
            if not left:
                return
            for each in left:
                _send(each, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await asyncio.gather(*(self.gone(each.pid) for each in left))

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def _send(identity: Identity, number: signal.Signals) -> None:
    """Never to somebody who got the id meanwhile: the handle is opened first, and then it is seen who that is."""
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    try:
        if alive(identity):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def _set_threads(pid: int, wanted: int) -> int:
    """Linux has a priority for each thread; how many had another one. Raises `FileNotFoundError` for no process."""
    changed = 0
    for path in list(Path(f"/proc/{pid}/task").iterdir()):
        with contextlib.suppress(ProcessLookupError):  # a thread that has ended
            if os.getpriority(os.PRIO_PROCESS, int(path.name)) != wanted:
                os.setpriority(os.PRIO_PROCESS, int(path.name), wanted)
                changed += 1
    return changed
