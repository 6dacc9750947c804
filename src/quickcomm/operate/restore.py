"""`restore`: a backup takes the place of a site's data, while nothing runs; the former data is kept beside it.

Afterwards the directory is that of a site that `serve` ran. `up` moves it into its store and its services at the next
start, as it does with any such directory.
"""

import asyncio
import secrets
import shutil
import sqlite3
import time
from collections.abc import Collection, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from quickcomm.kernel.errors import MALFORMED, InvalidInputError, QuickCommError
from quickcomm.kernel.runtime.data_directory import (
    IMPORTING,
    PROBED_WITHIN_S,
    RESTORING,
    UNFINISHED,
    DataDirectory,
    DataDirectoryBusyError,
    data_dir_flag,
)
from quickcomm.kernel.runtime.releases import FILE as RELEASES
from quickcomm.operate.backup_file import Manifest, Tell, check, copy_database, split_migration, sync, unseal
from quickcomm.operate.erasing import bury_in, tombstones
from quickcomm.operate.moving import replace_state, state_in_store
from quickcomm.operate.up.layout import Layout

KEPT: Final = "before-restore"
MOVES: Final = "traffic.sqlite.restoring"
"""The state and audit of a migration, on their way to the directory of its controller."""
KEYS_COPY: Final = "keys.json"
"""What `up` keeps of the store's keys, should the store lose them: of the state before, here."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest`: None for a backup of an earlier version. `kept`: the folder with the former data, if any."""

    manifest: Manifest | None
    kept: Path | None


def restore(file: Path, directory: DataDirectory, tell: Tell) -> Restored:
    """Put the backup in place of all that the directory has of the site. Recordings and settings stay as they are.

    Cut off, it leaves a directory that no server uses until `restore` is done again.

    Raises:
        InvalidInputError: the file is no whole backup; nothing was changed.
        DataDirectoryBusyError: something runs on the directory; nothing was changed.

    """
    tell("Checking the backup", 0, 0)
    manifest = check(file)
    with alone(directory, UNFINISHED):
        exchange = _begun(directory)
        database = directory.database
        part = database.with_name(f"{database.name}.restoring")
        moves = directory.path / MOVES
        try:
            part.unlink(missing_ok=True)
            copy_database(file, part, tell)
            unseal(part)
            split_migration(part, moves, manifest.taken_at if manifest is not None else "an earlier version")
            replace_state(part, exchange.state)
            if erased := tombstones([*parts_of(directory), part]):
                tell("Erasing what was erased since", 0, 0)
                _run(bury_in(part, erased))
            part.chmod(0o600)
            sync(part)
            kept = _swap(directory, part, exchange)
        except (OSError, sqlite3.Error) as error:
            raise InvalidInputError(f"{file} could not be put into {directory.path}: {error}") from error
        finally:
            part.unlink(missing_ok=True)
            moves.unlink(missing_ok=True)
    return Restored(manifest=manifest, kept=kept)


def parts_of(directory: DataDirectory) -> list[Path]:
    """Return the databases that are there now."""
    found = [directory.database, directory.dashboard.database, directory.intelligence.database]
    return [path for path in found if path.is_file()]


@contextmanager
def alone(directory: DataDirectory, finishes: Collection[str]) -> Iterator[None]:
    """Be the only one on the directory. `finishes`: as for `own`.

    Raises `DataDirectoryBusyError` with the command that stops the other.
    """
    from quickcomm.topology.adapters.processes import RecordedProcesses  # noqa: PLC0415 - not needed for --help

    layout, flag = Layout(directory), data_dir_flag(directory.path)
    with ExitStack() as stack:
        if layout.is_owned() or RecordedProcesses(layout.processes).living():
            raise DataDirectoryBusyError(f"A topology runs on {directory.path}. Stop it first: quickcomm down{flag}")
        try:
            stack.enter_context(layout.own())
            stack.enter_context(directory.own(wait_s=PROBED_WITHIN_S, finishes=finishes))
        except DataDirectoryBusyError as error:
            owner = directory.running()
            stop = f" Stop it: kill {owner.pid}" if owner else ""
            raise DataDirectoryBusyError(f"{error}{stop}") from None
        yield


# -- inside -----------------------------------------------------------------------------------------------------------


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, also where the caller has a loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def _former_state(directory: DataDirectory) -> str | None:
    try:
        return state_in_store(directory.database)
    except (QuickCommError, sqlite3.Error):
        return None  # it is damaged: a reason to restore


class _Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """An exchange that was begun, as its mark in the directory says. `state`: see `replace_state`."""

    kept: str
    state: str | None


def _begun(directory: DataDirectory) -> _Exchange:
    """Return the exchange that was cut off, which is to be finished, or a new one."""
    try:
        return msgspec.json.decode((directory.path / RESTORING).read_bytes(), type=_Exchange)
    except (OSError, *MALFORMED):
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return _Exchange(kept=f"{KEPT}-{stamp}-{secrets.token_hex(2)}", state=_former_state(directory))


def _swap(directory: DataDirectory, part: Path, exchange: _Exchange) -> Path | None:
    """Move the former data away and the new database in; return where the former is."""
    database = directory.database
    live = [database, *(Path(f"{database}{suffix}") for suffix in ("-wal", "-shm"))]
    parts = [part.path for name in ("dashboard", "intelligence", "traffic") for part in directory.parts(name)]
    others = (*parts, directory.path / RELEASES, Layout(directory).store, directory.path / KEYS_COPY)
    found = [path for path in (*live, *others) if path.exists()]
    mark, kept = directory.path / RESTORING, directory.path / exchange.kept
    mark.write_bytes(msgspec.json.encode(exchange))
    sync(mark)
    sync(directory.path)
    if found:
        kept.mkdir(mode=0o700, exist_ok=True)
    for path in found:
        if (kept / path.name).exists():  # it was moved before a cut; what is here since then is nobody's
            _remove(path)
        else:
            path.replace(kept / path.name)
    part.replace(database)
    moves = directory.path / MOVES
    if moves.is_file():
        directory.traffic.create()
        moves.chmod(0o600)
        moves.replace(directory.traffic.database)
    sync(directory.path)
    (directory.path / IMPORTING).unlink(missing_ok=True)  # what was imported is in the former data
    mark.unlink()
    return kept if kept.is_dir() else None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
