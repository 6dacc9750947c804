"""`import`: what another site has exported is added to a site that does not run.

The file is verified before anything is written. What is written goes through the table copier, a page with its mark in
one transaction: an import that was cut off goes on where it was. No server starts in between. See docs/adr/0053.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from quickcomm.contracts.erasing import Scope
from quickcomm.kernel.errors import MALFORMED, InvalidInputError
from quickcomm.kernel.runtime.data_directory import IMPORTING, DataDirectory, data_dir_flag
from quickcomm.operate.backup_file import Tell, connect, copy_database, reading, sync
from quickcomm.operate.erasing import bury_in, databases, tombstones
from quickcomm.operate.exporting import NAMED, opened
from quickcomm.operate.moving import check_here
from quickcomm.operate.restore import alone
from quickcomm.operate.transfer import exported, places
from quickcomm.operate.transfer_file import (
    Talk,
    TransferManifest,
    check,
    keep_site,
    names,
    recordings,
    totals,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from quickcomm.kernel.copier.copier import Values
    from quickcomm.kernel.copier.transfer import ModuleTables, TransferTarget
    from quickcomm.kernel.storage import Database

PART: Final = "import.part.sqlite"
"""The copy of the file that is read: brought to this version, and without what was erased here."""
WITH_TALKS: Final = ("audio_conversations", "dashboard_conversations", "dashboard_utterances")


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """`rows`: of each table of the export. `again`: True where all of it was imported before."""

    manifest: TransferManifest
    rows: dict[str, int]
    again: bool


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    """The mark of an import that has begun. `id`: of the export, with the site if only one is taken."""

    id: str
    file: str


async def import_site(file: Path, directory: DataDirectory, tell: Tell, site: str | None = None) -> Imported:
    """Add what the file has to the site of the directory. `site`: only what belongs to this one.

    Cut off, it leaves a directory that no server uses until the import is done again.

    Raises:
        InvalidInputError: the file is damaged, or of a newer version, or has conversations that are here already;
            nothing was changed.
        ConfigurationError: the site runs, or keeps its conversations in a store; nothing was changed.

    """
    tell("Checking the export", 0, 0)
    modules = exported()
    manifest = await asyncio.to_thread(check, file, modules)
    with alone(directory, (IMPORTING,)):
        begun = _begin(directory, file, manifest, site)
        check_here(directory)
        try:
            return await _Import(directory, begun, modules, tell).run(file, manifest, site)
        except MALFORMED as error:
            raise InvalidInputError(f"{file} has rows that cannot be read: {error}") from error
        except (OSError, sqlite3.Error) as error:
            raise InvalidInputError(f"{file} could not be imported into {directory.path}: {error}") from error
        finally:
            for suffix in ("", "-wal", "-shm"):
                (directory.path / f"{PART}{suffix}").unlink(missing_ok=True)


# -- inside -----------------------------------------------------------------------------------------------------------


def _begin(directory: DataDirectory, file: Path, manifest: TransferManifest, site: str | None) -> _Begun:
    """Return what the mark of this import says. Raises `InvalidInputError` where another one was cut off."""
    begun = _Begun(id=manifest.id if site is None else f"{manifest.id}:{site}", file=str(file.absolute()))
    other = _begun_in(directory)
    if other is not None and other.id != begun.id:
        raise InvalidInputError(
            f"The import of {other.file} was cut off. Finish it first: quickcomm import {other.file}"
            f"{data_dir_flag(directory.path)}"
        )
    return begun


def _begun_in(directory: DataDirectory) -> _Begun | None:
    try:
        return msgspec.json.decode((directory.path / IMPORTING).read_bytes(), type=_Begun)
    except FileNotFoundError:
        return None


class _Import:
    def __init__(self, directory: DataDirectory, begun: _Begun, modules: Sequence["ModuleTables"], tell: Tell) -> None:
        self._directory = directory
        self._begun = begun
        self._modules = modules
        self._tell = tell
        self._part = directory.path / PART
        self._places = places(directory)

    async def run(self, file: Path, manifest: TransferManifest, site: str | None) -> Imported:
        await asyncio.to_thread(self._take, file, site)
        erased = tombstones(databases(self._directory))
        async with opened(self._part) as part:
            for module in self._modules:
                module.prepare(part)
        if erased:
            await bury_in(self._part, erased)
        rows = await asyncio.to_thread(self._rows)
        async with AsyncExitStack() as stack:
            part = await stack.enter_async_context(opened(self._part))
            targets = await self._open(stack)
            if again := await self._is_done(targets):
                self._unmark()
                return Imported(manifest=manifest, rows=rows, again=again)
            await self._check_new(part)
            self._mark()
            for module in self._modules:
                await self._copy(module, part, targets[module.module], rows)
        await self._bury(tombstones([self._part]))
        await asyncio.to_thread(self._add_recordings, [scope for scope, _ in erased])
        self._unmark()
        return Imported(manifest=manifest, rows=rows, again=False)

    def _take(self, file: Path, site: str | None) -> None:
        """Copy the file, which is not changed."""
        self._part.unlink(missing_ok=True)
        self._part.touch(mode=0o600)
        copy_database(file, self._part, self._tell)
        if site is not None:
            with contextlib.closing(connect(self._part)) as connection:
                keep_site(connection, names(self._modules), site)

    def _rows(self) -> dict[str, int]:
        with reading(self._part) as part:
            return {name: total.rows for name, total in totals(part, names(self._modules)).items()}

    async def _open(self, stack: AsyncExitStack) -> dict[str, "Database"]:
        """Open the database of each module, with its tables."""
        from quickcomm.kernel.copier.transfer import prepare_marks  # noqa: PLC0415 - not needed for --help

        found: dict[Path | str, Database] = {}
        for module in self._modules:
            where = self._places[module.module]
            if module.module == "dashboard" and where != self._directory.database:
                self._directory.dashboard.create()  # says that cards are not with the rest
            if where not in found:
                found[where] = await stack.enter_async_context(opened(where))
                prepare_marks(found[where])
            module.prepare(found[where])
        return {module: found[where] for module, where in self._places.items()}

    async def _is_done(self, targets: Mapping[str, "Database"]) -> bool:
        from quickcomm.kernel.copier.copier import ALL  # noqa: PLC0415 - not needed for --help

        marks = [await self._target(module, targets[module.module], {}).mark(ALL) for module in self._modules]
        return all(mark.done for mark in marks) and not (self._directory.path / IMPORTING).exists()

    async def _check_new(self, part: "Database") -> None:
        """Raise `InvalidInputError` where conversations are here already, and not from this import."""
        if (self._directory.path / IMPORTING).exists():
            return
        wanted, here = await part.read(_talks), set()
        for where in dict.fromkeys([*databases(self._directory), *self._places.values()]):
            async with opened(where) as database:
                here |= wanted & await database.read(_talks)
        if here:
            named = ", ".join(f"{conversation} ({site})" for site, conversation in sorted(here)[:NAMED])
            more = f" and {len(here) - NAMED} more" if len(here) > NAMED else ""
            raise InvalidInputError(
                f"{len(here)} conversations of the export are in {self._directory.path} already: {named}{more}. "
                "Nothing was imported. Import it into another --data-dir."
            )

    async def _copy(self, module: "ModuleTables", part: "Database", database: "Database", rows: dict[str, int]) -> None:
        from quickcomm.kernel.copier.copier import Copier  # noqa: PLC0415 - not needed for --help
        from quickcomm.kernel.copier.sql import SqlSource  # noqa: PLC0415

        target = self._target(module, database, rows)
        kept = module.kept if await _has_own(module, target, database) else ()
        tables = [table for table in module.tables if table.name not in kept]
        await Copier(SqlSource(part, tables), target, tables, sleep=None).run()
        await database.write(module.finish)

    def _target(self, module: "ModuleTables", database: "Database", rows: Mapping[str, int]) -> "TransferTarget":
        from quickcomm.kernel.copier.transfer import TransferTarget, stored  # noqa: PLC0415 - not needed for --help

        of = sum(rows.get(stored(table).name, 0) for table in module.tables)
        done = 0

        def write(connection: "Connection", name: str, page: "list[Values]") -> None:
            nonlocal done
            module.write(connection, name, page)
            done += len(page)
            self._tell(f"Importing {module.module}", min(done, of), of)

        return TransferTarget(database, f"{self._begun.id}/{module.module}", write)

    async def _bury(self, found: list[tuple[Scope, int]]) -> None:
        """Erase here what was erased there, and keep it erased."""
        if found:
            for where in dict.fromkeys(self._places.values()):
                await bury_in(where, found)

    def _add_recordings(self, erased: Sequence[Scope]) -> None:
        with reading(self._part) as part:
            for name, content in recordings(part, erased):
                path = self._directory.recordings / name
                if path.exists():
                    continue
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                whole = path.with_name(f"{path.name}.part")
                whole.write_bytes(content)
                whole.replace(path)

    def _mark(self) -> None:
        mark = self._directory.path / IMPORTING
        mark.write_bytes(msgspec.json.encode(self._begun))
        sync(mark)
        sync(self._directory.path)

    def _unmark(self) -> None:
        (self._directory.path / IMPORTING).unlink(missing_ok=True)
        sync(self._directory.path)


async def _has_own(module: "ModuleTables", target: "TransferTarget", database: "Database") -> bool:
    """Return True where the site has rows of its own in tables that are not mixed with those of another site."""
    from quickcomm.kernel.copier.copier import Mark  # noqa: PLC0415 - not needed for --help
    from quickcomm.kernel.copier.transfer import stored  # noqa: PLC0415

    if any([await target.mark(name) != Mark() for name in module.kept]):
        return False  # what is there came with this import
    queries = [stored(module.table(name)).select().limit(1) for name in sorted(module.kept)]
    return await database.read(lambda connection: any(connection.execute(query).first() for query in queries))


def _talks(connection: "Connection") -> set[Talk]:
    """Return the conversations of which anything is in a database."""
    import sqlalchemy as sa  # noqa: PLC0415 - not needed for --help

    there = set(sa.inspect(connection).get_table_names())
    found: set[Talk] = set()
    for name in WITH_TALKS:
        if name in there:
            rows = connection.exec_driver_sql(f"SELECT DISTINCT site, conversation_id FROM {name}")  # noqa: S608 - ours
            found |= {(row[0], row[1]) for row in rows}
    return found
