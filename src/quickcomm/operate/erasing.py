"""`erase`: what was said is deleted on all sides of a site, part by part; a file in the data directory is the receipt.

A part tells every process of a module, and then works on each database of the module's that is there: also on that of a
side which does not run. Each may be done again: the second time it finds nothing. Where a site runs, the parts are
steps of an operation; else the command does one after the other. See docs/erase.md.
"""

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import aiohttp
import msgspec

from quickcomm.contracts.commands import STORE, Command
from quickcomm.contracts.erasing import (
    Erase,
    EraseAudio,
    Erased,
    EraseDashboard,
    EraseIntelligence,
    EraseMessages,
    EraseOperations,
    ErasureKind,
    FindDashboard,
    FindMessages,
    FindOperations,
    Part,
    Scope,
    Wanted,
)
from quickcomm.contracts.saga import OPERATIONS
from quickcomm.kernel.errors import ConfigurationError, InvalidInputError, QuickCommError, UnavailableError
from quickcomm.kernel.messaging.bus.home import home_in
from quickcomm.kernel.runtime.admin_socket import Rows, UnknownCommandError, ask, rows_of
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag, is_trusted
from quickcomm.operate.erasures import Erasures, Receipt, copies
from quickcomm.operate.up.layout import Layout
from quickcomm.operations.declaration import steps_file

if TYPE_CHECKING:
    from quickcomm.kernel.messaging.rpc import Answer, LocalRpc
    from quickcomm.kernel.storage import Database

ANSWERS_WITHIN_S: Final = 120.0
"""Longer than a module takes for a part of an erasure, or the store for its file."""
SETTLE_S: Final = 3.0
"""After so long, what was in hand when it was erased has come out, and is erased at the second round."""
FILES: Final = "files of databases"
MODULES: Final[Mapping[str, type[Erase]]] = {
    "audio": EraseAudio,
    "intelligence": EraseIntelligence,
    "dashboard": EraseDashboard,
    OPERATIONS: EraseOperations,
}
"""Audio first: a conversation that goes on ends, and nothing more comes of it."""
WITH_STORE: Final = frozenset({STORE, "audio"})
"""Modules that have their data in the store, where a site has one: a process of theirs must answer."""
FIRST_TABLES: Final = {
    "audio": "audio_conversations",
    "intelligence": "intelligence_results",
    "dashboard": "dashboard_utterances",
    OPERATIONS: "operations_journal",
}
"""A database has data of a module if it has this table."""
TOMBSTONES: Final = "SELECT site, at_ns, conversation_id, utterance_id FROM {}"


class Here(NamedTuple):
    """The process of the site in which an erasure is done: its modules are asked directly."""

    rpc: "LocalRpc"
    database: Path


class HangsError(UnavailableError):
    """A process is there, and does not answer. What was erased so far stays erased."""

    code = "erasure.hangs"


class Erasing:
    """Erases on one site, running or not."""

    def __init__(
        self,
        data_dir: Path,
        sleep: Callable[[float], Any] = asyncio.sleep,
        answers_within_s: float = ANSWERS_WITHIN_S,
        here: Here | None = None,
    ) -> None:
        """`here`: the process in which it is done, where that is one of the site's.

        Raises `ConfigurationError` where the site's store is needed and does not run.
        """
        self._answers_within_s = answers_within_s
        self._directory = directory = DataDirectory(data_dir)
        self._layout = Layout(directory)
        self._sleep = sleep
        self._here = here
        self.erasures = Erasures(directory.path)
        if not directory.database.is_file():
            raise ConfigurationError(f"There is no site in {directory.path}.")
        self._in_store = home_in(directory.database) is not None
        if self._in_store and not self._layout.is_owned():
            raise ConfigurationError(
                f"Messages and conversations of {directory.path} are in the store of `quickcomm up`, which does not "
                f"run. Start it first: quickcomm up{data_dir_flag(directory.path)}"
            )

    @property
    def runs(self) -> bool:
        return self._directory.running() is not None or self._layout.is_owned()

    async def find(self, wanted: Wanted) -> Scope:
        """Return what a name, a time or a conversation stands for. Raises `InvalidInputError`."""
        if not wanted.is_one:
            raise InvalidInputError("Give one of the three: a conversation, a name, or a time range.")
        waiting = [] if wanted.conversation else await self._ask_all(FindMessages(wanted=wanted))
        found = Scope(site=wanted.site)
        for row in waiting:
            found = found.joined(msgspec.convert(row, Scope))
        for request in (FindDashboard(wanted=wanted, utterances=found.utterances), FindOperations(wanted=wanted)):
            for row in await self._ask_all(request):
                found = found.joined(msgspec.convert(row, Scope))
        return found

    def receipt(self, wanted: Wanted, scope: Scope, by: str) -> Receipt:
        """Return the receipt of an erasure that is not begun."""
        kind: ErasureKind = "conversation" if wanted.conversation else "name" if wanted.name else "time"
        return _receipt(kind, scope, by)

    def begin(self, wanted: Wanted, scope: Scope, by: str) -> Receipt:
        """Write the receipt of an erasure that is to be done."""
        return self._saved(self.receipt(wanted, scope, by))

    def begin_again(self, by: str, source: Path | None = None) -> list[Receipt]:
        """Write receipts for whatever was erased before, by the tombstones here or in the data directory `source`."""
        found = tombstones(databases(DataDirectory(source) if source else self._directory))
        return [self._saved(_receipt("again", scope, by)) for scope, _ in found]

    async def finish(self, receipt: Receipt) -> Receipt:
        """Do all parts of an erasure; those that were done before it was cut off find nothing more."""
        lines: list[Erased] = []
        for part in get_args(Part):
            lines += await self.part(receipt, part)
        return self.keep(receipt, lines)

    async def part(self, receipt: Receipt, part: Part) -> list[Erased]:
        """Do one part. Raises `UnavailableError` where it is to be tried again."""
        if part == "files":
            left = await self._without_traces()
            return [Erased(store=name, what=FILES, count=0, gone=why) for name, why in left.items()]
        if part != "again":
            return await self._erase(receipt, part, last=False)
        if self.runs:
            await self._sleep(SETTLE_S)
        return [line for store in (*MODULES, "messages") for line in await self._erase(receipt, store, last=True)]

    def keep(self, receipt: Receipt, lines: Iterable[Erased]) -> Receipt:
        """Write what was erased into the receipt."""
        counts: Counter[tuple[str, str]] = Counter()
        gone: dict[tuple[str, str], str] = {}
        left = {}
        for line in lines:
            if line.what == FILES:
                left[line.store] = line.gone
                continue
            counts[line.store, line.what] += line.count
            gone[line.store, line.what] = line.gone or gone.get((line.store, line.what), "")
        erased = tuple(
            Erased(store=store, what=what, count=count, gone=gone[store, what] or _left(left, store))
            for (store, what), count in counts.items()
        )
        done = msgspec.structs.replace(
            receipt, state="done", done_ns=time.time_ns(), erased=erased, copies=copies(self._directory)
        )
        self.erasures.save(done)
        return done

    # -- inside -----------------------------------------------------------------------------------------------------

    def _saved(self, receipt: Receipt) -> Receipt:
        self.erasures.save(receipt)
        return receipt

    async def _erase(self, receipt: Receipt, store: str, *, last: bool) -> list[Erased]:
        """`last`: nothing more is erased from this store."""
        rows: Rows = []
        at_ns = time.time_ns()
        scopes = receipt.scope.parts()
        for place, scope in enumerate(scopes):
            written_anew = last and place == len(scopes) - 1
            kind = MODULES.get(store)
            if kind is None:
                rows += await self._ask_all(EraseMessages(scope=scope, traces=written_anew))
            else:
                rows += await self._ask_all(kind(erasure=receipt.id, at_ns=at_ns, scope=scope, traces=False))
        return [msgspec.convert(row, Erased) for row in rows]

    async def _ask_all(self, request: Command) -> Rows:
        """Return the rows of all that answer: every process, and every database."""
        rows: Rows = []
        is_answered = is_here = self._here is not None and type(request) in self._here.rpc.answers
        if self._here is not None and is_here:
            rows += await rows_of(self._here.rpc, request)
        for socket in [] if is_here else self._sockets(request.module):
            found = await self._asked(socket, request)
            is_answered |= found is not None
            rows += found or []
        if request.module in WITH_STORE and self._in_store and not is_answered:
            raise UnavailableError(f"No process of {request.module} answers. See: quickcomm status")
        if request.module == STORE and is_answered:
            return rows
        own = self._here.database if self._here is not None and is_here else None
        for where in (each for each in databases(self._directory) if each != own):
            async with _opened(where, request.module, self._directory) as answers:
                for kind, handle in answers:
                    if kind is type(request):
                        reply = await handle(request)
                        rows += msgspec.to_builtins(reply) if isinstance(reply, list) else [msgspec.to_builtins(reply)]
        return rows

    async def _asked(self, socket: Path, request: Command) -> Rows | None:
        """Return what a process answers; None where none listens, or it has another module.

        Raises `UnavailableError` where it is there and did not do it: then it is asked again.
        """
        try:
            return await ask(socket, request, self._answers_within_s)
        except (aiohttp.ClientConnectorError, UnknownCommandError):
            return None
        except (TimeoutError, aiohttp.ClientConnectionError) as error:
            raise HangsError(
                f"A process does not answer on {socket}: it may still have in memory what is to be erased. A running "
                f"site tries it again. See `quickcomm status`; once it answers or is gone: quickcomm erase resume"
                f"{data_dir_flag(self._directory.path)}"
            ) from error
        except QuickCommError as error:
            raise UnavailableError(f"A process did not erase: {error}") from error

    def _sockets(self, module: str) -> list[Path]:
        directory, layout = self._directory, self._layout
        if module == STORE:
            control = layout.control
            found = [control] if is_trusted(control, directory.path) else [directory.socket, directory.dashboard.socket]
        else:
            found = [*layout.administrations(module), *layout.administrations("monolith"), directory.socket]
            found += [part.socket for part in directory.parts(module)]
        return [socket for socket in found if is_trusted(socket, directory.path)]

    async def _without_traces(self) -> dict[str, str]:
        """Remove what deleted rows leave behind in files; return by when it is gone where it is not now, by file."""
        from quickcomm.kernel.erasing.traces import remove_file_traces, remove_traces  # noqa: PLC0415 - for --help
        from quickcomm.kernel.storage import Database  # noqa: PLC0415 - as above

        left = {}
        for where in databases(self._directory):
            if isinstance(where, Path):
                left[str(where)] = await asyncio.to_thread(remove_file_traces, where)
                continue
            database = Database(where)
            database.open()
            try:
                left[database.name] = await remove_traces(database, await database.read(_tables))
            finally:
                await database.aclose()
        return {name: why for name, why in left.items() if why}


def _receipt(kind: ErasureKind, scope: Scope, by: str) -> Receipt:
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    return Receipt(id=name, kind=kind, asked_ns=time.time_ns(), by=by, scope=scope)


def databases(directory: DataDirectory) -> list[Path | str]:
    """Return the databases of a site that are there, used or not: files, and addresses of its settings."""
    from quickcomm.dashboard.ports import DashboardSettings  # noqa: PLC0415 - not needed for --help
    from quickcomm.intelligence.model.settings import StoreSettings  # noqa: PLC0415
    from quickcomm.operate.settings import load_settings  # noqa: PLC0415

    settings = load_settings(directory.path)
    own = directory.part(OPERATIONS)
    moved = [part.database for module in ("dashboard", "intelligence") for part in directory.parts(module)]
    parts = [directory.database, *moved]
    parts += [own.database, steps_file(own)]
    urls = {settings.of(DashboardSettings).database_url, settings.of(StoreSettings).database_url}
    return [*(path for path in parts if path.is_file()), *sorted(url for url in urls if url)]


@contextlib.asynccontextmanager
async def _opened(where: Path | str, module: str, site: DataDirectory) -> AsyncIterator["Sequence[Answer]"]:
    """Give what a module answers about erasure on a database; nothing where it has no data in it."""
    from quickcomm.kernel.storage import Database  # noqa: PLC0415 - not needed for --help

    database = Database(where)
    database.open()
    try:
        has = set(await database.read(_tables))
        if module == STORE:
            yield _messages(database) if "bus_messages" in has else []
        else:
            # In a thread: it imports the module, and its tables are brought up to date.
            yield await asyncio.to_thread(_answers, module, database, site) if FIRST_TABLES[module] in has else []
    finally:
        await database.aclose()


def _tables(connection: Any) -> list[str]:
    import sqlalchemy as sa  # noqa: PLC0415 - not needed for --help

    return [name for name in sa.inspect(connection).get_table_names() if not name.startswith("dashboard_fts_")]


def _messages(database: "Database") -> "Sequence[Answer]":
    from quickcomm.kernel.clock import SystemClock  # noqa: PLC0415 - not needed for --help
    from quickcomm.kernel.messaging.bus.sql import SqlBus  # noqa: PLC0415
    from quickcomm.kernel.runtime.store_commands import letter_answers  # noqa: PLC0415

    return letter_answers(SqlBus(database, SystemClock()))


def _answers(module: str, database: "Database", site: DataDirectory) -> "Sequence[Answer]":
    from quickcomm.kernel.clock import SystemClock  # noqa: PLC0415 - not needed for --help

    if module == "audio":
        from quickcomm.audio.module import Audio, Places  # noqa: PLC0415 - as above

        return Audio.erasing(database, SystemClock(), Places(**_recordings(database)))
    if module == "intelligence":
        from quickcomm.intelligence.module import Intelligence  # noqa: PLC0415 - as above

        return Intelligence.erasing(database)
    if module == OPERATIONS:
        from quickcomm.operate.settings import load_settings  # noqa: PLC0415 - as above
        from quickcomm.operations.assembly import erasing  # noqa: PLC0415

        return erasing(database, load_settings(site.path), site)
    from quickcomm.dashboard.module import Dashboard  # noqa: PLC0415 - as above

    return Dashboard.erasing(database)


def _recordings(database: "Database") -> dict[str, Any]:
    """Return where recordings are, of the site whose database this is."""
    from quickcomm.kernel.runtime.data_directory import recordings_of  # noqa: PLC0415 - not needed for --help
    from quickcomm.operate.settings import load_settings  # noqa: PLC0415

    directory = DataDirectory(database.path.parent)
    storage = load_settings(directory.path).storage
    where = recordings_of(storage, directory) or (directory.recordings if directory.recordings.is_dir() else None)
    return {"recordings": where, "recordings_endpoint": storage.recordings_endpoint}


def _left(left: dict[str, str], store: str) -> str:
    return next((why for name, why in left.items() if store.endswith(name)), "")


# -- tombstones, for a restore ----------------------------------------------------------------------------------------


def tombstones(found: Iterable[Path | str]) -> list[tuple[Scope, int]]:
    """Return what was erased before, with when, by the tombstones in these databases. Raises `StorageError`."""
    names: dict[tuple[str, int], set[tuple[str, str]]] = {}
    for where in found:
        for site, at_ns, conversation, utterance in _tombstones_in(where):
            names.setdefault((site, at_ns), set()).add((conversation, utterance))
    scopes = []
    for (site, at_ns), ids in sorted(names.items()):
        whole = tuple(sorted(conversation for conversation, utterance in ids if not utterance))
        single = tuple(sorted(utterance for _, utterance in ids if utterance))
        scopes.append((Scope(site=site, conversations=whole, utterances=single), at_ns))
    return scopes


def _tombstones_in(where: Path | str) -> list[tuple[Any, ...]]:
    if isinstance(where, str) and "://" in where:
        return _on_server(where)
    path = Path(where)
    if not path.is_file():
        return []
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name GLOB '*_erased'").fetchall()
        return [row for (table,) in tables for row in connection.execute(TOMBSTONES.format(table))]


def _on_server(url: str) -> list[tuple[Any, ...]]:
    import sqlalchemy as sa  # noqa: PLC0415 - not needed for --help

    from quickcomm.kernel.storage.postgres import Postgres  # noqa: PLC0415

    server = Postgres(url)
    engine = server.reader(1)
    try:
        with engine.connect() as connection:
            tables = [name for name in sa.inspect(connection).get_table_names() if name.endswith("_erased")]
            return [tuple(row) for table in tables for row in connection.exec_driver_sql(TOMBSTONES.format(table))]
    except sa.exc.SQLAlchemyError as error:
        failure = server.failure(f"Reading what was erased in {server.name} failed", error, starting=True)
        raise failure from failure.__cause__
    finally:
        engine.dispose()


async def bury_in(where: Path | str, found: Sequence[tuple[Scope, int]]) -> None:
    """Erase what was erased before in a database that no process has open, and keep its tombstones there."""
    site = DataDirectory(where.parent if isinstance(where, Path) else Path())
    for module, kind in MODULES.items():
        async with _opened(where, module, site) as answers:
            for answered, handle in answers:
                if answered is kind:
                    for scope, at_ns in found:
                        for part in scope.parts():
                            await handle(kind(erasure="restored", at_ns=at_ns, scope=part, traces=False))
    if isinstance(where, Path):
        from quickcomm.kernel.erasing.traces import remove_file_traces  # noqa: PLC0415 - not needed for --help

        await asyncio.to_thread(remove_file_traces, where)
