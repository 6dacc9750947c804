"""All logs as one calm stream on standard error: a line of each process with its name before it."""

import asyncio
import contextlib
import io
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Final

import structlog

from quickcomm.topology.module import Tail

EVERY_S: Final = 0.2
WIDTH: Final = 12
LARGEST: Final = 20 * 1024 * 1024
OWN: Final = "up"
APART: Final = ("-access", "supervisor", OWN)

log = structlog.get_logger(__name__)


class Own(io.StringIO):
    """Standard error, for what `up` itself has to say."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        sys.stderr.write("".join(_line(OWN, line) for line in lines))
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


class Stream:
    """Follows every log in a directory, except access logs and its own."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._tails: dict[str, Tail] = {}
        self._find(from_end=True)

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            try:
                text = self._new()
            except OSError as error:
                log.warning("logs.not_read", error=str(error))
                text = ""
            if text:
                await asyncio.to_thread(_write, text)  # whoever reads may be slow
            await asyncio.sleep(EVERY_S)

    def close(self) -> None:
        """After `follow` was cancelled: what was said last."""
        _write(self._new())
        for tail in self._tails.values():
            tail.close()

    def _new(self) -> str:
        self._find(from_end=False)
        return "".join(_line(name, line) for name, tail in self._tails.items() for line in tail.lines())

    def _find(self, *, from_end: bool) -> None:
        for path in sorted(self._logs.glob("*.log")):
            if path.stem not in self._tails and not path.stem.endswith(APART):
                self._tails[path.stem] = Tail(path, from_end=from_end)


def _line(name: str, line: str) -> str:
    return f"{name:<{WIDTH}} | {line}\n"


def _write(text: str) -> None:
    """Write to standard error. What a full disk does not take is in the logs of the processes, or nowhere."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()
        _keep_small()


def _keep_small() -> None:
    """Where standard error is a file of ours (`--detach`), it is begun anew now and then."""
    number = sys.stderr.fileno()
    found = os.fstat(number)
    if stat.S_ISREG(found.st_mode) and found.st_size > LARGEST:
        path = Path(f"/proc/self/fd/{number}").readlink()
        if path.stem == OWN:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.ftruncate(number, 0)
