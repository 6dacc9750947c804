"""What a site's operator can ask, over the local socket beside a running server, or on its data when none runs."""

import asyncio
import importlib
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import click

from quickcomm.contracts.commands import STORE, Command, DeployPrompt, RollBackPrompt
from quickcomm.contracts.saga import OPERATIONS
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.messaging.rpc import Answer, LocalRpc, NotOwnerError
from quickcomm.kernel.runtime.admin_socket import CALL_TIMEOUT_S, Rows, UnknownCommandError, ask, rows_of
from quickcomm.kernel.runtime.data_directory import DataDirectory, DataDirectoryBusyError, data_dir_flag, is_trusted
from quickcomm.kernel.runtime.store_commands import key_answers, letter_answers
from quickcomm.operate.backup_file import CARDS_COPIED, RESULTS_COPIED, lacks_copy

if TYPE_CHECKING:  # SQLAlchemy takes longer than all the rest; asking a running server does without
    from quickcomm.kernel.clock import Clock
    from quickcomm.kernel.site_pack import SitePack
    from quickcomm.kernel.storage import Database

AUDIO: Final = "audio"
INTELLIGENCE: Final = "intelligence"
DASHBOARD: Final = "dashboard"
START_S: Final = 300.0
"""How long a command waits for a server that is starting; the very first start of all takes a minute."""
LOOK_EVERY_S: Final = 0.25
OFFLINE: Final = ("quickcomm.kernel.messaging.bus.sql", "quickcomm.kernel.keys.sql", "quickcomm.operate.moving")
"""Takes seconds to load on a busy machine: done before the directory is taken, for which others may wait."""


async def administer(
    data_dir: Path,
    request: Command,
    *,
    needs_server: bool = False,
    timeout_s: float | None = CALL_TIMEOUT_S,
) -> Rows:
    """Ask the running server; where none runs, work on the directory itself (unless only a server can answer).

    Where there are services, the one is asked that the request names. A server that is just starting is waited for:
    whoever took its directory meanwhile would stop it.
    """
    directory = DataDirectory(data_dir)
    # Two databases have prompts then, of which one decides.
    needs_server |= isinstance(request, DeployPrompt | RollBackPrompt) and directory.intelligence.is_moving
    own = _own(directory, request)
    deadline = time.monotonic() + START_S
    is_first = True
    while True:
        had_started = own.running() is not None
        answer = await _ask_any(_answering(directory, own, request), request, timeout_s)
        if answer is not None:
            return answer
        if needs_server:
            raise ConfigurationError(_silent(directory, own))
        try:
            if not _is_site_starting(directory, own, request):
                for name in OFFLINE:
                    importlib.import_module(name)
                with own.own(wait_s=0):
                    return await _offline(own, directory.path, request)
        except DataDirectoryBusyError:
            if had_started:
                raise  # and yet it does not answer
        if time.monotonic() >= deadline:
            raise ConfigurationError(_silent(directory, own))
        if is_first:
            click.echo(f"Waiting for QuickComm on {directory.path}, which is starting or stopping …", err=True)
        is_first = False
        await asyncio.sleep(LOOK_EVERY_S)  # the other process tells nobody when it is ready


async def _ask_any(sockets: list[Path], request: Command, timeout_s: float | None) -> Rows | None:
    """Return the answer of the first that listens, knows, and is to decide; None if none does.

    Raises `NotOwnerError` where none that listens is to decide now.
    """
    passed_on: NotOwnerError | None = None
    for socket in sockets:
        try:
            return await ask(socket, request, timeout_s)
        except (aiohttp.ClientConnectionError, UnknownCommandError):
            continue  # such as of a killed server
        except NotOwnerError as error:
            passed_on = error
    if passed_on is not None:
        raise NotOwnerError(f"{passed_on} That one does not answer now. See: quickcomm status") from passed_on
    return None


def _silent(directory: DataDirectory, own: DataDirectory) -> str:
    from quickcomm.operate.up.layout import Layout  # noqa: PLC0415 - as below

    if own.path != directory.path:
        return f"The dashboard of {directory.path} does not answer. See: quickcomm status"
    if directory.is_owned() or Layout(directory).is_owned():
        return f"QuickComm on {directory.path} is starting or stopping. Try again in a moment."
    start = f"quickcomm serve{data_dir_flag(directory.path)}"
    return f"No QuickComm is running on {directory.path}. Start one with: {start}"


def _is_site_starting(directory: DataDirectory, own: DataDirectory, request: Command) -> bool:
    """Return True if `up` is at work, and who has the answer is not there: it starts, or is just being replaced."""
    from quickcomm.operate.up.layout import Layout  # noqa: PLC0415 - as below

    return (request.module == STORE or not own.is_owned()) and Layout(directory).is_owned()


def _own(directory: DataDirectory, request: Command) -> DataDirectory:
    """Return the directory whose local socket may answer, and whose data where no process runs."""
    page = directory.dashboard
    if request.module != DASHBOARD or not page.path.is_dir():
        return directory
    is_second = page.is_moving and not lacks_copy(directory.database, CARDS_COPIED)
    return directory if is_second else page


def _answering(directory: DataDirectory, own: DataDirectory, request: Command) -> list[Path]:
    """Return the sockets where it may be known, the best one first."""
    from quickcomm.operate.up.layout import Layout  # noqa: PLC0415 - it needs this module's neighbours

    layout, is_stored = Layout(directory), request.module == STORE
    found = [layout.control] if is_stored else layout.administrations(request.module)
    found += [own.socket, directory.dashboard.socket] if is_stored else [own.socket]
    if request.module == OPERATIONS:
        found.insert(0, directory.part(OPERATIONS).socket)
    if request.module == INTELLIGENCE:  # one that has moved out of the monolith
        found += [part.socket for part in directory.parts(INTELLIGENCE)]
    return [socket for socket in found if is_trusted(socket, directory.path)]


def _database(directory: DataDirectory, site: Path, request: Command) -> Path | str:
    """Where it is kept: where there are services, what intelligence has may be in a database elsewhere."""
    moved = DataDirectory(site).intelligence
    if request.module == INTELLIGENCE and moved.is_moving and lacks_copy(directory.database, RESULTS_COPIED):
        return moved.database
    if request.module == INTELLIGENCE and DataDirectory(site).dashboard.path.is_dir():
        from quickcomm.intelligence.declaration import INTELLIGENCE as DECLARED  # noqa: PLC0415
        from quickcomm.intelligence.model.settings import StoreSettings  # noqa: PLC0415
        from quickcomm.kernel.runtime.settings import read_sections  # noqa: PLC0415

        url = read_sections([DECLARED], site, {}).of(StoreSettings).database_url
        if url is not None:
            return url
    apart = DataDirectory(site).part(OPERATIONS).database
    return apart if request.module == OPERATIONS and apart.is_file() else directory.database


async def _offline(directory: DataDirectory, site: Path, request: Command) -> Rows:
    """`site`: the data directory of all of it, where the settings are."""
    from quickcomm.kernel.clock import SystemClock  # noqa: PLC0415
    from quickcomm.kernel.keys.sql import SqlKeys  # noqa: PLC0415
    from quickcomm.kernel.messaging.bus.sql import SqlBus  # noqa: PLC0415 - see above
    from quickcomm.kernel.storage import Database  # noqa: PLC0415

    if request.module in {STORE, AUDIO}:
        from quickcomm.operate.moving import check_here  # noqa: PLC0415 - as above

        check_here(directory)
    rpc = LocalRpc(clock := SystemClock())
    where = _database(directory, site, request)
    database = Database(where)
    database.open()
    try:
        keys = SqlKeys(database, clock)
        bus = SqlBus(database, clock)
        if request.module != DASHBOARD and isinstance(where, Path):
            keys.migrate()
            bus.migrate()
        rpc.serve([*key_answers(keys), *letter_answers(bus), *_stored(request.module, database, clock, site)])
        return await rows_of(rpc, request)
    finally:
        await database.aclose()


@cache
def _pack(name: str) -> "SitePack":
    """Load a site pack once: a check asks many times."""
    from quickcomm.kernel.site_pack import load_pack  # noqa: PLC0415 - other commands do without

    return load_pack(name)


def _stored(module: str, database: "Database", clock: "Clock", site: Path) -> "Sequence[Answer]":
    """Return what a module answers on a database that no server has open. Imports the whole module."""
    if module == AUDIO:
        from quickcomm.audio.module import Audio  # noqa: PLC0415 - other commands do without
        from quickcomm.kernel.runtime.data_directory import recordings_of  # noqa: PLC0415 - as above
        from quickcomm.kernel.runtime.settings import read_sections  # noqa: PLC0415 - as above

        where = recordings_of(read_sections([], site, {}).storage, DataDirectory(site))
        folder = None if where is None or "://" in str(where) else Path(where)
        return Audio.stored_answers(database, clock, folder)
    if module == INTELLIGENCE:
        from quickcomm.intelligence.declaration import INTELLIGENCE as DECLARED  # noqa: PLC0415
        from quickcomm.intelligence.module import Intelligence  # noqa: PLC0415
        from quickcomm.kernel.runtime.settings import read_sections  # noqa: PLC0415

        return Intelligence.stored_answers(database, _pack(read_sections([DECLARED], site, {}).pack), clock)
    if module == OPERATIONS:
        from quickcomm.operations.assembly import stored_answers  # noqa: PLC0415

        return stored_answers(database, clock)
    if module == DASHBOARD:
        from quickcomm.dashboard.module import Dashboard  # noqa: PLC0415
        from quickcomm.intelligence.model.settings import LlmSettings  # noqa: PLC0415
        from quickcomm.kernel.telemetry.settings import budget_with_model  # noqa: PLC0415
        from quickcomm.operate.settings import load_settings  # noqa: PLC0415

        settings = load_settings(site)
        llm = settings.of(LlmSettings)
        budget = budget_with_model(settings.budgets, llm.budget_s if llm.url else 0.0)
        return Dashboard.stored_answers(database, budget)
    return []
