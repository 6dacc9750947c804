"""Which processes an operator wants: kept in a file, so that another `up` goes on with them where one was killed."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from quickcomm.kernel.errors import MALFORMED


class DesiredProcesses:
    """`path` is deleted with the runtime directory, after a clean stop: then settings count again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self, module: str) -> tuple[str, ...] | None:
        """Return the processes of a module that were wanted last; None where that is not known."""
        return self._read().get(module)

    def keep(self, module: str, names: Sequence[str]) -> None:
        """Raises `OSError` where the file cannot be written."""
        wanted = self._read() | {module: tuple(names)}
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(wanted))
        new.replace(self._path)

    def _read(self) -> dict[str, tuple[str, ...]]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, tuple[str, ...]])
        except (OSError, *MALFORMED):
            return {}
