"""`backup`: a whole site in one file, taken while it runs, in every deployment.

The file is what `serve` would have: databases of services become one, and what is in the store (conversations,
messages, keys) becomes tables. So `restore` and the movers of `up` can go on from it in any deployment. The command
reads by itself, beside the running processes, and takes no time from them. See docs/adr/0025.
"""

import asyncio
import contextlib
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from quickcomm import __version__
from quickcomm.contracts.commands import GetWhereabouts
from quickcomm.contracts.routes import group_of
from quickcomm.kernel.errors import ConfigurationError, InvalidInputError
from quickcomm.kernel.messaging.bus.home import HomeInStore, home_in
from quickcomm.kernel.messaging.bus.redis_link import BusRefusedError, Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag
from quickcomm.kernel.runtime.releases import releases_of
from quickcomm.operate.backup_file import (
    CARDS_COPIED,
    HOME,
    INTELLIGENCE,
    RESULTS_COPIED,
    TRAFFIC,
    Elsewhere,
    Manifest,
    Recordings,
    Rows,
    Tell,
    add_messages,
    add_tables,
    check,
    copy_database,
    forget_home,
    lacks_copy,
    seal,
    sync,
)
from quickcomm.operate.erasures import note_backup

if TYPE_CHECKING:
    from quickcomm.kernel.storage import Database

LIVE_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")
WHOLE: Final = "whole.sqlite"
OWN: Final = "own.sqlite"
TALKS: Final = "talks.sqlite"
MIND: Final = "mind.sqlite"


class Whereabouts(msgspec.Struct, frozen=True, kw_only=True):
    """Where all of a site is. `store`: the address of its Valkey, as the user `up`; None where it has none."""

    directory: DataDirectory
    store: str | None = None
    recordings: str | None = None
    """A folder, or the address of a bucket; None: in the data directory."""
    elsewhere: tuple[Elsewhere, ...] = ()

    def page(self, own: Path) -> Path | None:
        """Return the database of a dashboard service, where the site's own (or its copy) has no cards, or stale ones.

        While the dashboard moves, both have all.
        """
        page = self.directory.dashboard
        is_second = page.is_moving and not lacks_copy(own, CARDS_COPIED)
        return page.database if page.database.is_file() and not is_second else None

    @property
    def deployment(self) -> str:
        if self.directory.dashboard.path.is_dir() and not self.directory.dashboard.is_moving:
            return "services"
        return "serve" if self.store is None else "monolith"


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was written and verified."""

    file: str
    bytes: int
    manifest: Manifest


async def back_up(site: Whereabouts, file: Path, tell: Tell, *, force: bool = False, prefix: str = PREFIX) -> Taken:
    """Write the whole site to the file, which appears only when it is complete and verified.

    Raises:
        InvalidInputError: the file exists and `force` is not given, or cannot be written.
        ConfigurationError: a part of the site cannot be read.

    """
    refuse(site, file, force=force)
    with folder_beside(file) as folder:
        part = folder / WHOLE
        rows = await fill(site, folder, tell, prefix)
        recordings = await asyncio.to_thread(_recordings, site)
        manifest = Manifest(
            version=__version__,
            taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
            deployment=site.deployment,
            rows=rows,
            recordings=recordings,
            elsewhere=site.elsewhere,
        )
        await asyncio.to_thread(seal, part, manifest)
        tell("Checking the backup", 0, 0)
        await asyncio.to_thread(check, part)
        refuse(site, file, force=force)
        size = await asyncio.to_thread(publish, part, file)
        note_backup(site.directory, file)
        return Taken(file=str(file), bytes=size, manifest=manifest)


# -- inside -----------------------------------------------------------------------------------------------------------


def refuse(site: Whereabouts, file: Path, *, force: bool) -> None:
    """Raise `InvalidInputError` where the file must not be written."""
    parts = [site.directory.part(name) for name in ("dashboard", "intelligence", "traffic")]
    live = [site.directory.database, *(part.database for part in parts)]
    if file.resolve() in {Path(f"{path.resolve()}{suffix}") for path in live for suffix in LIVE_SUFFIXES}:
        raise InvalidInputError(f"{file} is the database itself; give another file.")
    if not force and file.exists():
        raise InvalidInputError(f"{file} exists already. Give another name, or --force to replace it.")


@contextlib.contextmanager
def folder_beside(file: Path) -> Iterator[Path]:
    """Give an empty folder for this user alone on the same disk; afterwards it is gone."""
    try:
        with tempfile.TemporaryDirectory(prefix=f"{file.name}.", suffix=".part", dir=file.parent) as name:
            yield Path(name)
    except (OSError, sqlite3.Error) as error:
        raise InvalidInputError(f"{file} could not be written: {error}") from error


def publish(part: Path, file: Path) -> int:
    """Give the file its name; return its size."""
    part.chmod(0o600)
    part.replace(file)
    sync(file.parent)
    return file.stat().st_size


async def fill(site: Whereabouts, folder: Path, tell: Tell, prefix: str) -> Rows:
    """Write all parts of the site into one database in the folder, `WHOLE`; return the rows that were read.

    Without what a service keeps elsewhere. Raises `ConfigurationError` where a part cannot be read.
    """
    if not site.directory.database.is_file():
        raise ConfigurationError(f"There is no site in {site.directory.path}.")
    await asyncio.to_thread(_check_history, site)
    if site.store is None:
        await asyncio.to_thread(_copy_mind, site, folder, tell)
        rows = await asyncio.to_thread(_copy_own, site, folder, tell)
        rows = await asyncio.to_thread(_join, site, folder, rows, tell)
    else:
        rows = await _fill_with_store(site, site.store, folder, tell, prefix)
    with contextlib.closing(sqlite3.connect(folder / WHOLE, isolation_level=None)) as connection:
        forget_home(connection)
    return rows | ({HOME: 0} if HOME in rows else {})


def _copy_mind(site: Whereabouts, folder: Path, tell: Tell) -> None:
    """Copy the database of an intelligence that moves out of a monolith, if there is one."""
    found = site.directory.intelligence.database
    if found.is_file():
        copy_database(found, folder / MIND, tell)


def _copy_own(site: Whereabouts, folder: Path, tell: Tell) -> Rows:
    """Copy the site's own database, which all but the dashboard of services write to."""
    return copy_database(site.directory.database, folder / OWN, tell)


def _join(site: Whereabouts, folder: Path, rows: Rows, tell: Tell) -> Rows:
    """Copy the database of a dashboard service, if cards are there, and join all copies; return the rows of all."""
    own, mind, whole = folder / OWN, folder / MIND, folder / WHOLE
    page, is_mind_newer = site.page(own), lacks_copy(own, RESULTS_COPIED)
    if page is None:
        own.replace(whole)
    else:
        rows = copy_database(page, whole, tell)
        rows |= add_tables(own, whole, tell)
    if mind.is_file():
        rows |= add_messages(mind, whole)  # its answers that nobody has yet, whichever database has the others
        if is_mind_newer:
            rows |= add_tables(mind, whole, tell, INTELLIGENCE)
    if site.directory.traffic.database.is_file():
        rows |= add_tables(site.directory.traffic.database, whole, tell, TRAFFIC)
    return rows


async def _fill_with_store(site: Whereabouts, url: str, folder: Path, tell: Tell, prefix: str) -> Rows:
    link = Link(url)
    try:
        await _check_store(site, link, prefix)
        return await _StoreCopy(site, link, tell, prefix).fill(folder)
    except BusRefusedError as error:
        raise ConfigurationError(f"{error} See: quickcomm trust acl") from error
    finally:
        await link.aclose()


def _check_history(site: Whereabouts) -> None:
    """Refuse while the dashboard service does not have yet what the monolith's dashboard had."""
    own = site.directory.database
    page = site.page(own)
    if page is None:
        return
    with contextlib.closing(sqlite3.connect(f"{own.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("ATTACH ? AS page", (f"{page.absolute().as_uri()}?mode=ro",))
        tables = {name for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")}
        if "dashboard_utterances" not in tables:
            return
        is_empty = connection.execute("SELECT 1 FROM main.dashboard_utterances").fetchone() is None
        done = "SELECT 1 FROM page.dashboard_backfill WHERE table_name = 'all' AND state = 'done'"
        if is_empty or connection.execute(done).fetchone() is not None:
            return
    raise ConfigurationError(
        "The dashboard is still taking over the cards of the monolith (`copy.progress` in its log). "
        "Take the backup when that is finished (`copy.finished`)."
    )


async def _check_store(site: Whereabouts, link: Link, prefix: str) -> None:
    here, there = home_in(site.directory.database), await HomeInStore(link, prefix).read()
    if here is None or here != there or not here.whole:
        raise ConfigurationError(
            f"The store does not have the conversations and keys of {site.directory.path}: it was emptied, or is the "
            "store of another site. A backup would lack them. See: quickcomm status"
        )


class _StoreCopy:
    """A site with a store: its databases and what the store has, in one database.

    All of it goes on meanwhile. What writes a message is copied before what handles it, and the bus is looked at in
    between: a message that was not handled then is in the backup, one that was is in the copy of who handled it.
    """

    def __init__(self, site: Whereabouts, link: Link, tell: Tell, prefix: str) -> None:
        self._site = site
        self._link = link
        self._tell = tell
        self._prefix = prefix

    async def fill(self, folder: Path) -> Rows:
        # Heavy, and not needed for a site without a store.
        from quickcomm.dashboard.declaration import DASHBOARD, DECIDERS, GROUP  # noqa: PLC0415
        from quickcomm.intelligence.declaration import INTELLIGENCE as UNDERSTANDING  # noqa: PLC0415
        from quickcomm.kernel.keys.moving import export_keys  # noqa: PLC0415
        from quickcomm.kernel.messaging.bus.export import MessageExport  # noqa: PLC0415

        # With one database, what follows from a message is decided as it is folded.
        # Of two sides, what one of them has not handled yet is still to be done, whichever copy it is.
        releases = releases_of(self._site.directory.path)
        joined = {
            group_of(each.name, side): each.name
            for module in (DASHBOARD, UNDERSTANDING)
            for each in module.consumes
            for side in releases.sides(module.name)
        }
        messages = MessageExport(self._link, self._prefix, {**joined, DECIDERS: GROUP})
        await messages.look()
        talks = await self._conversations(folder / TALKS)
        await messages.look()
        await asyncio.to_thread(_copy_mind, self._site, folder, self._tell)
        await messages.look()
        rows = await asyncio.to_thread(_copy_own, self._site, folder, self._tell)
        await messages.look()
        rows = await asyncio.to_thread(_join, self._site, folder, rows, self._tell)
        await messages.look()
        rows |= await asyncio.to_thread(add_tables, folder / TALKS, folder / WHOLE, self._tell)
        async with self._opened(folder / WHOLE) as database:
            rows |= await database.write(messages.write)
            rows |= await export_keys(database, self._link, self._prefix)
        return rows | talks

    async def _conversations(self, path: Path) -> Rows:
        from quickcomm.audio.module import Audio  # noqa: PLC0415 - as above

        def tell(done: int, of: int) -> None:
            self._tell("Copying conversations", done, of)

        async with self._opened(path) as database:
            Audio.migrate_tables(database)
            return await Audio.export(database, self._link, tell, prefix=self._prefix)

    @contextlib.asynccontextmanager
    async def _opened(self, path: Path) -> AsyncIterator["Database"]:
        from quickcomm.kernel.storage import Database  # noqa: PLC0415 - as above

        database = Database(path)
        database.open()
        try:
            yield database
        finally:
            await database.aclose()


def _recordings(site: Whereabouts) -> Recordings | None:
    """Count what is kept of the sound itself."""
    where = site.recordings or str(site.directory.recordings)
    if "://" in where:
        return Recordings(where=where)
    files = size = 0
    for folder, _, names in os.walk(where):
        for name in names:
            with contextlib.suppress(OSError):  # it was deleted just now
                size += (Path(folder) / name).stat().st_size
                files += 1
    return Recordings(where=where, files=files, bytes=size) if files else None


def whereabouts(data_dir: Path) -> Whereabouts:
    """Find all parts of a site: as `up` has them where one runs, else by the settings.

    Raises `ConfigurationError` where conversations and keys are in a store that does not run.
    """
    from quickcomm.dashboard.ports import DashboardSettings  # noqa: PLC0415 - not needed for --help
    from quickcomm.intelligence.model.settings import StoreSettings  # noqa: PLC0415
    from quickcomm.operate.settings import load_settings  # noqa: PLC0415
    from quickcomm.operate.up.client import NotRunningError, tell  # noqa: PLC0415

    directory = DataDirectory(data_dir)
    try:
        [told] = tell(data_dir, GetWhereabouts())
    except NotRunningError:
        settings = load_settings(data_dir)
        told = {
            "store": _store_without_up(directory, settings.redis_url),
            "recordings": settings.storage.recordings_url,
            "elsewhere": elsewhere(
                settings.of(DashboardSettings).database_url, settings.of(StoreSettings).database_url
            ),
        }
    found = msgspec.convert(told["elsewhere"], tuple[Elsewhere, ...])
    site = Whereabouts(directory=directory, store=told["store"], recordings=told["recordings"])
    return msgspec.structs.replace(site, elsewhere=tuple(part for part in found if _is_used(site, part)))


def _is_used(site: Whereabouts, part: Elsewhere) -> bool:
    """Return True if what a service keeps elsewhere is not in the site's own database, too."""
    if site.deployment == "services":
        return True
    marks = {"dashboard": CARDS_COPIED, "intelligence": RESULTS_COPIED}[part.service]
    return site.deployment == "monolith" and lacks_copy(site.directory.database, marks)


def elsewhere(dashboard: str | None, intelligence: str | None) -> list[dict[str, str]]:
    """Name the services that keep their data where their setting says: an address without its password, or a file."""
    from quickcomm.kernel.storage.postgres import SCHEMES, Postgres  # noqa: PLC0415 - as above

    urls = {"dashboard": dashboard, "intelligence": intelligence}
    return [
        {
            "service": service,
            "database": Postgres(url).name.replace(":***@", "@")
            if url.startswith(SCHEMES)
            else str(Path(url).absolute()),
        }
        for service, url in urls.items()
        if url is not None
    ]


def _store_without_up(directory: DataDirectory, redis_url: str | None) -> str | None:
    """Return where the store is if no `up` answers: none, another server's, or one that a killed `up` has left."""
    if home_in(directory.database) is None:
        return None
    from quickcomm.kernel.messaging.bus.redis_address import for_user  # noqa: PLC0415
    from quickcomm.operate.up import store  # noqa: PLC0415 - needs the extra `up`
    from quickcomm.operate.up.access import UP  # noqa: PLC0415
    from quickcomm.operate.up.layout import Layout  # noqa: PLC0415

    if redis_url is not None:
        return for_user(redis_url, UP)
    layout = Layout(directory)
    if Path(layout.socket(store.NAME)).exists():
        return for_user(store.url(layout), UP)
    raise ConfigurationError(
        f"The conversations and keys of {directory.path} are in the store of `quickcomm up`, which does not run. "
        f"Start it, then take the backup: quickcomm up --detach{data_dir_flag(directory.path)}"
    )
