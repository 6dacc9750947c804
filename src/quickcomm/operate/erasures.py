"""The receipts of erasures, and the copies that an erasure does not change."""

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from quickcomm.contracts.erasing import Erased, ErasureKind, KeptCopy, Scope
from quickcomm.kernel.errors import MALFORMED, NotFoundError
from quickcomm.kernel.runtime.data_directory import DataDirectory

FOLDER: Final = "erasures"
BACKUPS: Final = "backups.jsonl"
"""What `quickcomm backup` has written, a line each."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased. It has ids and figures, and no word of what was said."""

    id: str
    kind: ErasureKind
    asked_ns: int
    by: str
    scope: Scope
    state: Literal["running", "done"] = "running"
    done_ns: int = 0
    erased: tuple[Erased, ...] = ()
    copies: tuple[KeptCopy, ...] = ()


class Erasures:
    """The receipts of a site, a file each."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER

    def save(self, receipt: Receipt) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / f"{receipt.id}.json"
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.format(msgspec.json.encode(receipt)))
        part.replace(path)
        owner = self._folder.parent.stat()
        for made in (self._folder, path):  # a command of root leaves them to the user of the site
            with contextlib.suppress(PermissionError):
                os.chown(made, owner.st_uid, owner.st_gid)

    def drop(self, receipt: Receipt) -> None:
        """Forget an erasure that was not begun."""
        (self._folder / f"{receipt.id}.json").unlink(missing_ok=True)

    def list(self) -> list[Receipt]:
        """Return all, the oldest first."""
        found = []
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(*MALFORMED):
                found.append(msgspec.json.decode(path.read_bytes(), type=Receipt))
        return sorted(found, key=lambda receipt: receipt.asked_ns)

    def of(self, erasure: str) -> Receipt:
        """Raise `NotFoundError`."""
        for receipt in self.list():
            if receipt.id == erasure:
                return receipt
        raise NotFoundError(f"There is no erasure {erasure!r}. See: quickcomm erase list")


def note_backup(directory: DataDirectory, file: Path) -> None:
    """Remember a backup, so that the receipt of an erasure can name it."""
    line = KeptCopy(where=str(file.absolute()), taken_at=datetime.now(UTC).isoformat(timespec="seconds"))
    with contextlib.suppress(OSError), (directory.path / BACKUPS).open("ab") as lines:
        lines.write(msgspec.json.encode(line) + b"\n")


def copies(directory: DataDirectory) -> tuple[KeptCopy, ...]:
    """Return the backups that are still where they were written, and data from before a restore."""
    from quickcomm.operate.settings import load_settings  # noqa: PLC0415 - not needed for --help

    days = load_settings(directory.path).storage.retention_days
    found = []
    with contextlib.suppress(OSError):
        for line in (directory.path / BACKUPS).read_bytes().splitlines():
            with contextlib.suppress(*MALFORMED):
                found.append(msgspec.json.decode(line, type=KeptCopy))
    for path in directory.path.glob("before-restore-*"):
        taken = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        found.append(KeptCopy(where=str(path), taken_at=taken))
    there = {each.where: each for each in found if Path(each.where).exists()}
    return tuple(msgspec.structs.replace(each, kept_until=_until(each.taken_at, days)) for each in there.values())


def _until(taken_at: str, days: int) -> str:
    """Return when all that a copy has is older than the site's retention."""
    if not days:
        return ""
    taken = datetime.fromisoformat(taken_at)
    return datetime.fromtimestamp(taken.timestamp() + days * 86_400, UTC).isoformat(timespec="seconds")
