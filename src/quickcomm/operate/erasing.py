"""`erase`: what was said is deleted on all sides of a site, step by step; a file in the data directory says how far.

A step tells every process of a module, and then works on each database of the module's that is there: also on that of a
side which does not run. Each step may be done again: the second time it finds nothing. See docs/erase.md.
"""

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

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
    FindDashboard,
    FindMessages,
    Scope,
    Wanted,
)
from quickcomm.kernel.errors import MALFORMED, ConfigurationError, InvalidInputError, NotFoundError, UnavailableError
from quickcomm.kernel.messaging.bus.home import home_in
from quickcomm.kernel.runtime.admin_socket import Rows, UnknownCommandError, ask
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag, is_trusted
from quickcomm.operate.up.layout import Layout

if TYPE_CHECKING:
    from quickcomm.kernel.messaging.rpc import Answer
    from quickcomm.kernel.storage import Database

FOLDER: Final = "erasures"
ANSWERS_WITHIN_S: Final = 120.0
"""Longer than a module takes for a part of an erasure, or the store for its file."""
SETTLE_S: Final = 3.0
"""After so long, what was in hand when it was erased has come out, and is erased at the second round."""
ROUNDS: Final = 2
MODULES: Final[tuple[type[Erase], ...]] = (EraseAudio, EraseIntelligence, EraseDashboard)
"""Audio first: a conversation that goes on ends, and nothing more comes of it."""
FIRST_TABLES: Final = {
    "audio": "audio_conversations",
    "intelligence": "intelligence_results",
    "dashboard": "dashboard_utterances",
}
"""A database has data of a module if it has this table."""
TOMBSTONES: Final = "SELECT site, at_ns, conversation_id, utterance_id FROM {}"


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """A backup or the data from before a restore, which an erasure does not change."""

    where: str
    taken_at: str
    kept_until: str = ""
    """By the site's retention; empty: until it is deleted by hand."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased. It has ids and figures, and no word of what was said."""

    id: str
    kind: Literal["conversation", "name", "time", "again"]
    asked_ns: int
    by: str
    scope: Scope
    state: Literal["running", "done"] = "running"
    done_ns: int = 0
    erased: tuple[Erased, ...] = ()
    copies: tuple[Copy, ...] = ()


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
    ) -> None:
        """Raise `ConfigurationError` where the site's store is needed and does not run."""
        self._answers_within_s = answers_within_s
        self._directory = directory = DataDirectory(data_dir)
        self._layout = Layout(directory)
        self._sleep = sleep
        self.erasures = Erasures(directory.path)
        if not directory.database.is_file():
            raise ConfigurationError(f"There is no site in {directory.path}.")
        if home_in(directory.database) is not None and not self._layout.is_owned():
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
        for row in await self._ask_all(FindDashboard(wanted=wanted, utterances=found.utterances)):
            found = found.joined(msgspec.convert(row, Scope))
        return found

    async def erase(self, wanted: Wanted, scope: Scope, by: str) -> Receipt:
        """Erase what was found; return the receipt."""
        kind: Any = "conversation" if wanted.conversation else "name" if wanted.name else "time"
        return await self.finish(self._begun(kind, scope, by))

    async def again(self, by: str, source: Path | None = None) -> list[Receipt]:
        """Erase once more whatever was erased before, by the tombstones here or in the data directory `source`."""
        found = []
        for scope, _ in tombstones(databases(DataDirectory(source) if source else self._directory)):
            found.append(await self.finish(self._begun("again", scope, by)))
        return found

    async def finish(self, receipt: Receipt) -> Receipt:
        """Do the steps of an erasure; those that were done before it was cut off find nothing more."""
        counts: Counter[tuple[str, str]] = Counter()
        gone: dict[tuple[str, str], str] = {}
        for round_ in range(ROUNDS):
            if round_ and self.runs:
                await self._sleep(SETTLE_S)
            for line in await self._round(receipt, last=round_ == ROUNDS - 1):
                counts[line.store, line.what] += line.count
                gone[line.store, line.what] = line.gone or gone.get((line.store, line.what), "")
        left = await self._without_traces()
        lines = [
            Erased(store=store, what=what, count=count, gone=gone[store, what] or _left(left, store))
            for (store, what), count in counts.items()
        ]
        done = msgspec.structs.replace(
            receipt, state="done", done_ns=time.time_ns(), erased=tuple(lines), copies=copies(self._directory)
        )
        self.erasures.save(done)
        return done

    # -- inside -----------------------------------------------------------------------------------------------------

    def _begun(self, kind: Any, scope: Scope, by: str) -> Receipt:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        receipt = Receipt(id=name, kind=kind, asked_ns=time.time_ns(), by=by, scope=scope)
        self.erasures.save(receipt)
        return receipt

    async def _round(self, receipt: Receipt, *, last: bool) -> list[Erased]:
        rows: Rows = []
        at_ns = time.time_ns()
        parts = receipt.scope.parts()
        for place, part in enumerate(parts):
            for kind in MODULES:
                rows += await self._ask_all(kind(erasure=receipt.id, at_ns=at_ns, scope=part, traces=False))
            written_anew = last and place == len(parts) - 1
            rows += await self._ask_all(EraseMessages(scope=part, traces=written_anew))
        return [msgspec.convert(row, Erased) for row in rows]

    async def _ask_all(self, request: Command) -> Rows:
        """Return the rows of all that answer: every process, and every database."""
        rows: Rows = []
        is_answered = False
        for socket in self._sockets(request.module):
            try:
                rows += await ask(socket, request, self._answers_within_s)
                is_answered = True
            except TimeoutError as error:
                raise HangsError(
                    f"A process does not answer on {socket}: it may still have in memory what is to be erased. See "
                    f"`quickcomm status`; once it answers or is gone: quickcomm erase resume"
                    f"{data_dir_flag(self._directory.path)}"
                ) from error
            except (aiohttp.ClientConnectionError, UnknownCommandError):
                continue  # it was killed, or has another module
        if request.module == STORE and is_answered:
            return rows
        for where in databases(self._directory):
            async with _opened(where, request.module) as answers:
                for kind, handle in answers:
                    if kind is type(request):
                        found = await handle(request)
                        rows += msgspec.to_builtins(found) if isinstance(found, list) else [msgspec.to_builtins(found)]
        return rows

    def _sockets(self, module: str) -> list[Path]:
        directory, layout = self._directory, self._layout
        if module == STORE:
            control = layout.control
            found = [control] if is_trusted(control, directory.path) else [directory.socket, directory.dashboard.socket]
        else:
            found = [*layout.administrations(module), *layout.administrations("monolith"), directory.socket]
            found.append(directory.part(module).socket)
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


def databases(directory: DataDirectory) -> list[Path | str]:
    """Return the databases of a site that are there, used or not: files, and addresses of its settings."""
    from quickcomm.dashboard.ports import DashboardSettings  # noqa: PLC0415 - not needed for --help
    from quickcomm.intelligence.model.settings import StoreSettings  # noqa: PLC0415
    from quickcomm.operate.settings import load_settings  # noqa: PLC0415

    settings = load_settings(directory.path)
    parts = [directory.database, directory.dashboard.database, directory.intelligence.database]
    urls = {settings.of(DashboardSettings).database_url, settings.of(StoreSettings).database_url}
    return [*(path for path in parts if path.is_file()), *sorted(url for url in urls if url)]


@contextlib.asynccontextmanager
async def _opened(where: Path | str, module: str) -> AsyncIterator["Sequence[Answer]"]:
    """Give what a module answers about erasure on a database; nothing where it has no data in it."""
    from quickcomm.kernel.storage import Database  # noqa: PLC0415 - not needed for --help

    database = Database(where)
    database.open()
    try:
        has = set(await database.read(_tables))
        if module == STORE:
            yield _messages(database) if "bus_messages" in has else []
        else:
            yield _answers(module, database) if FIRST_TABLES[module] in has else []
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


def _answers(module: str, database: "Database") -> "Sequence[Answer]":
    from quickcomm.kernel.clock import SystemClock  # noqa: PLC0415 - not needed for --help

    if module == "audio":
        from quickcomm.audio.module import Audio, Places  # noqa: PLC0415 - as above

        return Audio.erasing(database, SystemClock(), Places(**_recordings(database)))
    if module == "intelligence":
        from quickcomm.intelligence.module import Intelligence  # noqa: PLC0415 - as above

        return Intelligence.erasing(database)
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
    for module, kind in (("audio", EraseAudio), ("intelligence", EraseIntelligence), ("dashboard", EraseDashboard)):
        async with _opened(where, module) as answers:
            for answered, handle in answers:
                if answered is kind:
                    for scope, at_ns in found:
                        for part in scope.parts():
                            await handle(kind(erasure="restored", at_ns=at_ns, scope=part, traces=False))
    if isinstance(where, Path):
        from quickcomm.kernel.erasing.traces import remove_file_traces  # noqa: PLC0415 - not needed for --help

        await asyncio.to_thread(remove_file_traces, where)


# -- copies that are not changed --------------------------------------------------------------------------------------

BACKUPS: Final = "backups.jsonl"
"""What `quickcomm backup` has written, a line each."""


def note_backup(directory: DataDirectory, file: Path) -> None:
    """Remember a backup, so that the receipt of an erasure can name it."""
    line = Copy(where=str(file.absolute()), taken_at=datetime.now(UTC).isoformat(timespec="seconds"))
    with contextlib.suppress(OSError), (directory.path / BACKUPS).open("ab") as lines:
        lines.write(msgspec.json.encode(line) + b"\n")


def copies(directory: DataDirectory) -> tuple[Copy, ...]:
    """Return the backups that are still where they were written, and data from before a restore."""
    from quickcomm.operate.settings import load_settings  # noqa: PLC0415 - not needed for --help

    days = load_settings(directory.path).storage.retention_days
    found = []
    with contextlib.suppress(OSError):
        for line in (directory.path / BACKUPS).read_bytes().splitlines():
            with contextlib.suppress(*MALFORMED):
                found.append(msgspec.json.decode(line, type=Copy))
    for path in directory.path.glob("before-restore-*"):
        taken = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        found.append(Copy(where=str(path), taken_at=taken))
    there = {each.where: each for each in found if Path(each.where).exists()}
    return tuple(msgspec.structs.replace(each, kept_until=_until(each.taken_at, days)) for each in there.values())


def _until(taken_at: str, days: int) -> str:
    """Return when all that a copy has is older than the site's retention."""
    if not days:
        return ""
    taken = datetime.fromisoformat(taken_at)
    return datetime.fromtimestamp(taken.timestamp() + days * 86_400, UTC).isoformat(timespec="seconds")
