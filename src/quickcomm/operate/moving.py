"""Where a data directory's conversations, messages and keys are kept: in its database, or, once moved, in a Valkey.

`up` moves them before it starts anything that needs them; a monolith with `redis_url` makes sure. A move that was cut
off at any moment goes on: until Valkey says that it has everything, the database still does.
"""

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.messaging.bus.home import Home, HomeInStore, first_row, home_in
from quickcomm.kernel.messaging.bus.port import BusFullError
from quickcomm.kernel.messaging.bus.redis_link import BusRefusedError, Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from quickcomm.kernel.copier.valkey import Moved
    from quickcomm.kernel.storage import Database

REPLACES: Final = "restored_over"
"""A table of a restored database: which state of the site its store may still have."""
ALONE: Final = "serve"
"""One process without a store."""
ANEW: Final = "To begin with an empty store (what it has of QuickComm is deleted): quickcomm up --new-store"


class ElsewhereError(ConfigurationError):
    """What belongs to a data directory is not where it is looked for."""

    code = "data_directory.elsewhere"


async def prepare(directory: DataDirectory, redis_url: str | None) -> None:
    """Have conversations and messages where a monolith looks for them. Raises `ElsewhereError`."""
    if redis_url is None:
        check_here(directory)
    else:
        await settle(directory, redis_url)
    check_shape(directory, "monolith" if redis_url else ALONE)


def check_here(directory: DataDirectory) -> None:
    """For whoever works with the database alone. Raises `ElsewhereError` where it was moved to a Valkey."""
    if home_in(directory.database) is not None:
        raise ElsewhereError(
            f"The conversations of {directory.path} are kept in the store of `quickcomm up`. Start it with: "
            f"quickcomm up{data_dir_flag(directory.path)}. {_back(directory)}"
        )


def check_shape(directory: DataDirectory, shape: str) -> None:
    """Raises `ElsewhereError` where cards and tasks have gone to a dashboard of its own, and the shape has none.

    `shape`: of `up`, or `ALONE`.
    """
    if directory.dashboard.is_moving:
        if shape != "monolith":
            raise ElsewhereError(
                f"Modules of {directory.path} are on their way between one process and services. Start it with: "
                f"quickcomm up --deployment monolith{data_dir_flag(directory.path)}"
            )
    elif shape in {"monolith", ALONE} and directory.dashboard.path.is_dir():
        raise ElsewhereError(
            f"The cards and tasks of {directory.path} are kept by a dashboard of its own, in its folder "
            f"{directory.dashboard.path.name}. Start it with: "
            f"quickcomm up --deployment services{data_dir_flag(directory.path)}. {_back(directory)}"
        )


def _back(directory: DataDirectory) -> str:
    flag = data_dir_flag(directory.path)
    return (
        f"To go back to one process, take a backup while it runs, stop it, and restore the backup: "
        f"quickcomm backup FILE{flag}; quickcomm down{flag}; quickcomm restore FILE{flag}"
    )


def replace_state(database: Path, state: str | None) -> None:
    """Have the restored database replace that state of the site, which its store may still have."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {REPLACES}")
        if state is not None:
            connection.execute(f"CREATE TABLE {REPLACES} (id TEXT NOT NULL)")
            connection.execute(f"INSERT INTO {REPLACES} VALUES (?)", (state,))  # noqa: S608 - our name
        connection.commit()


def state_in_store(database: Path) -> str | None:
    """Return the id of the state that the site's store may have; None for a site that never had one."""
    home = home_in(database)
    return _replaced(database) if home is None else home.id


def _replaced(database: Path) -> str | None:
    """Return the id of the state that this database replaces; None unless it was restored."""
    row = first_row(database, REPLACES, "id")
    return None if row is None else str(row[0])


async def settle(directory: DataDirectory, url: str, *, anew: bool = False, prefix: str = PREFIX) -> None:
    """Have everything in that Valkey, moved there if need be. The caller owns the directory.

    Waits for an unavailable server. `anew`: what the server has is deleted before.

    Raises:
        ElsewhereError: the server has another directory's data, or not what this directory had moved.
        ConfigurationError: the server does not let this user in, or has no memory left.

    """
    link = Link(url)

    async def run() -> None:
        try:
            await _Settling(directory, link, prefix).run(anew=anew)
        except BusRefusedError as error:
            raise ConfigurationError(f"{error} See: quickcomm trust acl") from error
        except BusFullError as error:
            raise ConfigurationError(str(error)) from error

    try:
        await link.patiently(run)
    finally:
        await link.aclose()


class _Settling:
    def __init__(self, directory: DataDirectory, link: Link, prefix: str) -> None:
        self._directory = directory
        self._link = link
        self._prefix = prefix
        self._store = HomeInStore(link, prefix)

    async def run(self, *, anew: bool) -> None:
        here = await asyncio.to_thread(home_in, self._directory.database)
        there = await self._store.read()
        is_settled = not anew and here is not None and here.whole and here == there
        if is_settled and await asyncio.to_thread(first_row, self._directory.database, "kernel_keys") is None:
            return
        if anew:
            here = there = None
            await self._store.release()
        elif not is_settled and not await self._is_replaced(there):
            await self._check(here, there)
        # Heavy, and not needed where all is in its place.
        from quickcomm.kernel.storage import Database  # noqa: PLC0415

        database = Database(self._directory.database)
        database.open()
        try:
            await self._move(database, here, there)
        finally:
            await database.aclose()

    async def _is_replaced(self, there: Home | None) -> bool:
        """Return True if the store has the state that a restore has replaced."""
        return there is not None and there.id == await asyncio.to_thread(_replaced, self._directory.database)

    async def _check(self, here: Home | None, there: Home | None) -> None:
        empty = there is None and await self._store.is_empty()
        if here is not None and here.whole and empty:
            raise ElsewhereError(
                f"The conversations of {self._directory.path} are kept in another store: this one is empty. "
                f"Give the --redis-url of the other one. {ANEW}"
            )
        goes_on = here is not None and there is not None and here.id == there.id and not here.whole
        if not empty and not goes_on:
            raise ElsewhereError(
                f"This store has conversations of another site, or of another state of {self._directory.path}. "
                f"Give another --redis-url. {ANEW}"
            )

    async def _move(self, database: "Database", here: Home | None, there: Home | None) -> None:
        from quickcomm.audio.module import Audio  # noqa: PLC0415 - as above
        from quickcomm.kernel.clock import SystemClock  # noqa: PLC0415
        from quickcomm.kernel.keys import moving as keys_moving  # noqa: PLC0415
        from quickcomm.kernel.keys.sql import SqlKeys  # noqa: PLC0415
        from quickcomm.kernel.messaging.bus import moving  # noqa: PLC0415
        from quickcomm.kernel.messaging.bus.sql import SqlBus  # noqa: PLC0415

        clock = SystemClock()
        SqlBus(database, clock).migrate()
        Audio.migrate_tables(database)
        SqlKeys(database, clock).migrate()
        begun = Home(id=here.id if here else uuid.uuid4().hex, whole=False)
        done = Home(id=begun.id, whole=True)
        late = here == there == done  # keys stayed behind when a former version moved the rest
        tables = keys_moving.moved(clock.now_ns(), self._prefix)
        if not late:
            tables += [*Audio.moved(clock, self._prefix), *moving.moved(self._prefix)]
        if there != done:
            await database.write(partial(moving.mark, home=begun))
            if not await self._claim(begun, there):
                if here is None:
                    await database.write(partial(moving.mark, home=None))
                raise ElsewhereError(f"Another site has begun to use this store. Give another --redis-url. {ANEW}")
        if late or there != done:
            await self._copy(database, begun, tables)
        await self._store.write(done)

        def leave(connection: "Connection") -> None:
            for moved in tables:
                connection.execute(moved.home.delete())
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {REPLACES}")
            moving.mark(connection, done)

        await database.write(leave)

    async def _claim(self, begun: Home, there: Home | None) -> bool:
        """Return True if the store is this site's now, and has nothing but what was copied before it was cut off."""
        if await self._is_replaced(there):
            await self._store.write(begun)  # the store is this state's at every moment
        if not await self._store.claim(begun):
            return False
        if not await self._link.call("EXISTS", self._store.copy_marks(begun)):
            await self._store.wipe()
            await self._store.write(begun)
        return True

    async def _copy(self, database: "Database", home: Home, tables: "Sequence[Moved]") -> None:
        from quickcomm.kernel.copier.copier import Copier, CopyError  # noqa: PLC0415 - as above
        from quickcomm.kernel.copier.sql import SqlSource  # noqa: PLC0415
        from quickcomm.kernel.copier.valkey import ValkeyTarget  # noqa: PLC0415

        marks = self._store.copy_marks(home)
        copied = [moved.table for moved in tables]
        target = ValkeyTarget(self._link, marks, tables)
        try:
            await Copier(SqlSource(database, copied), target, copied, sleep=None).run()
        except CopyError:
            await self._link.call("UNLINK", marks)  # it is begun anew
            raise
        # First of all: until the store is whole, one without marks is begun anew.
        await self._link.call("UNLINK", marks)
