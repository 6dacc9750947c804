"""`export`: what people said and did, in one file that another site can import, taken while the site runs.

Everything that a backup has is copied first, then the tables that modules export, with the table copier; what services
keep in PostgreSQL is read in one snapshot. Live conversations, keys and messages are not in it. See docs/adr/0053.
"""

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from quickcomm import __version__
from quickcomm.kernel.errors import ConfigurationError, InvalidInputError
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.operate.backup import WHOLE, Whereabouts, fill, folder_beside, publish, refuse
from quickcomm.operate.backup_file import Tell, connect, seal
from quickcomm.operate.erasures import note_backup
from quickcomm.operate.transfer import addresses, exported
from quickcomm.operate.transfer_file import (
    EXPORT,
    LeftOut,
    Talk,
    TransferManifest,
    add_recordings,
    check,
    compact,
    forget_secrets,
    keep_site,
    leave_out,
    make_recordings,
    names,
    totals,
    under_way,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from quickcomm.kernel.copier.copier import Values
    from quickcomm.kernel.copier.transfer import ModuleTables
    from quickcomm.kernel.storage import Database
    from quickcomm.kernel.storage.database import Reads

PART: Final = "export.sqlite"
NAMED: Final = 10
"""So many conversations are named in an error."""


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`site`: only what belongs to it. `live_left_out`: go on without the conversations that are under way."""

    site: str | None = None
    live_left_out: bool = False
    recordings: bool = False
    force: bool = False


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """An export that was written and verified."""

    file: str
    bytes: int
    manifest: TransferManifest


async def export_site(
    site: Whereabouts, file: Path, tell: Tell, options: ExportOptions, *, prefix: str = PREFIX
) -> Exported:
    """Write what modules export to the file, which appears only when it is complete and verified.

    Raises:
        InvalidInputError: the file exists and `force` is not given, or cannot be written; conversations are under way
            and not to be left out; recordings are wanted and in a bucket.
        ConfigurationError: a part of the site cannot be read.

    """
    refuse(site, file, force=options.force)
    folder_of_sound = _recordings_folder(site) if options.recordings else None
    began_ns, modules = time.time_ns(), exported()
    with folder_beside(file) as folder:
        await fill(site, folder, tell, prefix)
        part = folder / PART
        unhandled = await _copy(site, modules, folder, tell)
        (folder / WHOLE).unlink()
        tell("Leaving out what is under way", 0, 0)
        manifest = await asyncio.to_thread(_finish, site, part, modules, options, unhandled, began_ns, folder_of_sound)
        tell("Checking the export", 0, 0)
        await asyncio.to_thread(check, part, modules)
        refuse(site, file, force=options.force)
        size = await asyncio.to_thread(publish, part, file)
        note_backup(site.directory, file)
        return Exported(file=str(file), bytes=size, manifest=manifest)


# -- inside -----------------------------------------------------------------------------------------------------------


def _recordings_folder(site: Whereabouts) -> Path:
    where = site.recordings or str(site.directory.recordings)
    if "://" in where:
        raise InvalidInputError(
            f"The recordings are in {where}. Leave --recordings out, and copy them with the tools of the bucket."
        )
    return Path(where)


async def _copy(site: Whereabouts, modules: Sequence["ModuleTables"], folder: Path, tell: Tell) -> set[Talk]:
    """Copy all tables; return the conversations of messages that are not handled yet."""
    from quickcomm.kernel.clock import SystemClock  # noqa: PLC0415 - not needed for --help
    from quickcomm.kernel.copier.copier import Copier  # noqa: PLC0415
    from quickcomm.kernel.copier.sql import SqlSource  # noqa: PLC0415
    from quickcomm.kernel.copier.transfer import TransferTarget, prepare_marks  # noqa: PLC0415
    from quickcomm.kernel.messaging.bus.sql import SqlBus  # noqa: PLC0415

    async with opened(folder / WHOLE) as whole, opened(folder / PART) as part:
        SqlBus(whole, SystemClock()).migrate()
        prepare_marks(part)
        for module in modules:
            module.prepare(whole)
            module.prepare(part)
            target = TransferTarget(part, "", _writing(module, tell))
            async with _source(site, module, whole) as source:
                await Copier(SqlSource(source, module.tables), target, module.tables, sleep=None).run()
            await part.write(_forget_marks)
        return await whole.read(_unhandled)


def _writing(module: "ModuleTables", tell: Tell) -> "Callable[[Connection, str, list[Values]], None]":
    """Return what writes a page of the module's tables into the file.

    Rows are numbered anew, so that sites with the same content have exports with the same digests.
    """
    from quickcomm.kernel.copier.transfer import stored  # noqa: PLC0415 - not needed for --help

    done: Counter[str] = Counter()

    def write(connection: "Connection", name: str, rows: "list[Values]") -> None:
        if isinstance(rows[0].get("id"), int):
            step = -1 if module.table(name).newest_first else 1
            numbers = count(step * (done[name] + 1), step)
            rows = [row | {"id": number} for row, number in zip(rows, numbers, strict=False)]
        connection.execute(stored(module.table(name)).insert(), rows)
        done[name] += len(rows)
        tell(f"Exporting {module.module}: {done.total():,} rows", 0, 0)

    return write


def _forget_marks(connection: "Connection") -> None:
    """Make room for the marks of the next module."""
    from quickcomm.kernel.copier.transfer import MARKS  # noqa: PLC0415 - not needed for --help

    connection.execute(MARKS.delete())


@contextlib.asynccontextmanager
async def _source(site: Whereabouts, module: "ModuleTables", whole: "Database") -> AsyncIterator["Reads"]:
    """Give what has the module's tables: the copy of the site, or one moment of a service's own database."""
    if module.module not in {part.service for part in site.elsewhere}:
        yield whole
        return
    url = addresses(site.directory).get(module.module)
    if url is None:
        raise ConfigurationError(
            f"The database of {module.module} is elsewhere, and no setting says where. Run the command with the "
            f"setting {module.module}.database_url that `up` has."
        )
    async with opened(url) as database, database.snapshot() as snapshot:
        await snapshot.read(lambda connection: _require_ready(connection, module, database.name))
        yield snapshot


def _require_ready(connection: "Connection", module: "ModuleTables", name: str) -> None:
    from quickcomm.kernel.copier.sql import lacks_copy  # noqa: PLC0415 - not needed for --help
    from quickcomm.kernel.storage.migrations import is_current  # noqa: PLC0415

    if not is_current(connection, module.module, module.migrations):
        raise ConfigurationError(
            f"{name} has tables of another version of {module.module}. Start the site with this one, then export it."
        )
    if module.copied is not None and lacks_copy(connection, module.copied):
        raise ConfigurationError(
            f"The service of {module.module} is still taking over what the monolith had (`copy.progress` in its log). "
            "Export the site when that is finished (`copy.finished`)."
        )


@contextlib.asynccontextmanager
async def opened(where: Path | str) -> AsyncIterator["Database"]:
    """Give a database by its file or address."""
    from quickcomm.kernel.storage import Database  # noqa: PLC0415 - not needed for --help

    database = Database(where)
    database.open()
    try:
        yield database
    finally:
        await database.aclose()


def _unhandled(connection: "Connection") -> set[Talk]:
    import sqlalchemy as sa  # noqa: PLC0415 - not needed for --help

    from quickcomm.kernel.erasing.reading import about  # noqa: PLC0415
    from quickcomm.kernel.messaging.bus.sql_tables import groups, messages  # noqa: PLC0415

    waits = sa.exists().where(
        groups.c.stream == messages.c.stream, groups.c.part == messages.c.part, groups.c.acked_id < messages.c.id
    )
    found = set()
    for payload in connection.execute(sa.select(messages.c.payload).where(waits)).scalars():
        if (message := about(payload)) is not None and message.conversation:
            found.add((message.site, message.conversation))
    return found


def _finish(
    site: Whereabouts,
    part: Path,
    modules: Sequence["ModuleTables"],
    options: ExportOptions,
    unhandled: set[Talk],
    began_ns: int,
    recordings: Path | None,
) -> TransferManifest:
    """Leave out what does not go with an export, and seal the file."""
    tables = names(modules)
    with contextlib.closing(connect(part)) as connection:
        make_recordings(connection)
        forget_secrets(connection)
        if options.site is not None:
            keep_site(connection, tables, options.site)
        left = under_way(connection, unhandled, began_ns)
        if options.site is not None:
            left = [each for each in left if each[0] == options.site]
        if left and not options.live_left_out:
            raise _under_way(left)
        leave_out(connection, tables, left)
        if recordings is not None:
            add_recordings(connection, recordings, left, options.site)
        compact(connection)
        found = totals(connection, tables)
    manifest = TransferManifest(
        id=uuid.uuid4().hex,
        version=__version__,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        deployment=site.deployment,
        tables=found,
        site=options.site,
        left_out=tuple(LeftOut(site=name, conversation_id=conversation) for name, conversation in left),
    )
    seal(part, manifest, EXPORT)
    return manifest


def _under_way(left: Sequence[Talk]) -> InvalidInputError:
    named = ", ".join(conversation for _, conversation in left[:NAMED])
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    return InvalidInputError(
        f"{len(left)} conversations are under way: {named}{more}. Close them (`quickcomm close ID`), or export all "
        "others with --live-left-out."
    )
