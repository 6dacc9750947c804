"""The logs of all processes as one stream: each line with the name of who wrote it, as it comes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

PIECE: Final = 256 * 1024
LONGEST_LINE: Final = 16 * 1024


class Tail:
    """One file. It may not be there yet, and it may be replaced by a new one at any time."""

    def __init__(self, path: Path, *, from_end: bool) -> None:
        self._path = path
        self._file: BinaryIO | None = _opened(path) if from_end else None
        self._rest = b""
        if self._file is not None:
            self._file.seek(0, 2)

    def lines(self) -> Iterator[str]:
        """What has come since the last time."""
        while True:
            self._file = self._file or _opened(self._path)
            if self._file is None:
                return
            while data := self._file.read(PIECE):
                *whole, self._rest = (self._rest + data).split(b"\n")
                if len(self._rest) > LONGEST_LINE:
                    whole, self._rest = [*whole, self._rest], b""
                yield from (line.decode(errors="replace") for line in whole)
            if not self._replaced(self._file):
                return
            self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _replaced(self, file: BinaryIO) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        here = os.fstat(file.fileno())
        return there.st_ino != here.st_ino or here.st_size < file.tell()


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None
