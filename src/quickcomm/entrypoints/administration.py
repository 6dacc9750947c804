"""What a site's operator can ask, over the local socket beside a running server, or on its data when none runs."""

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp
import click
import msgspec

from quickcomm.contracts.conversations import ConversationChanged, Ledger
from quickcomm.kernel.errors import ConfigurationError, NotFoundError
from quickcomm.kernel.runtime.admin_socket import CALL_TIMEOUT_S, Administration, Answer, Arguments, Command, ask
from quickcomm.kernel.runtime.data_directory import DataDirectory, DataDirectoryBusyError, data_dir_flag, is_trusted

if TYPE_CHECKING:  # SQLAlchemy takes longer than all the rest; asking a running server does without
    from quickcomm.kernel.bus import DeadLetter
    from quickcomm.kernel.keys import KeyStore

START_S: Final = 300.0
"""How long a command waits for a server that is starting; the very first start of all takes a minute."""
LOOK_EVERY_S: Final = 0.25
OFFLINE: Final = ("quickcomm.kernel.bus.sql", "quickcomm.kernel.keys.sql", "quickcomm.entrypoints.moving")
"""Takes seconds to load on a busy machine: done before the directory is taken, for which others may wait."""
OF_THE_PAGE: Final = frozenset({"report", "trace"})
"""Commands that need what the dashboard keeps."""
OF_THE_STORE: Final = frozenset({"keys", "dead-letters"})
"""Commands about what is in the store: under `up`, it is `up` itself that answers."""
INTELLIGENCE: Final = "intelligence"
OF_ONE_OF_MANY: Final[Mapping[str, str]] = {"ledger": "audio", "prompts": INTELLIGENCE}
"""Commands that any process of a service can answer, where there are services."""
Ledgers = Callable[[str | None], Awaitable[list[ConversationChanged]]]


class Letters(Protocol):
    """A bus, as far as its dead letters go."""

    async def dead_letters(self) -> list["DeadLetter"]: ...

    async def replay(self, dead_letter_id: int) -> None: ...

    async def drop(self, dead_letter_id: int) -> None: ...


def keys_of(keys: "KeyStore") -> Mapping[str, Command]:
    async def create(arguments: Arguments) -> Answer:
        role, name, site = arguments["role"], arguments.get("name") or "", arguments.get("site") or "main"
        return [msgspec.to_builtins(await keys.create(role, name, site))]

    async def listed(_arguments: Arguments) -> Answer:
        return [msgspec.to_builtins(key) for key in await keys.list()]

    async def revoke(arguments: Arguments) -> Answer:
        await keys.revoke(arguments["id"])
        return [{"id": arguments["id"], "revoked": True}]

    return {"keys.create": create, "keys.list": listed, "keys.revoke": revoke}


def dead_letters(bus: "Letters") -> Mapping[str, Command]:
    async def listed(_arguments: Arguments) -> Answer:
        return [
            {
                "id": letter.id,
                "stream": letter.stream,
                "group": letter.group,
                "conversation_id": letter.key,
                "reason": letter.reason,
                "attempts": letter.attempts,
                "bytes": len(letter.payload),
            }
            for letter in await bus.dead_letters()
        ]

    async def replay(arguments: Arguments) -> Answer:
        await bus.replay(int(arguments["id"]))
        return [{"id": int(arguments["id"]), "replayed": True}]

    async def drop(arguments: Arguments) -> Answer:
        await bus.drop(int(arguments["id"]))
        return [{"id": int(arguments["id"]), "dropped": True}]

    return {"dead-letters.list": listed, "dead-letters.replay": replay, "dead-letters.drop": drop}


def ledgers_of(ledgers: Ledgers) -> Mapping[str, Command]:
    async def ledger(arguments: Arguments) -> Answer:
        found = await ledgers(arguments.get("conversation_id"))
        if not found and arguments.get("conversation_id"):
            raise NotFoundError(f"There is no conversation {arguments['conversation_id']}.")
        return [_ledger_row(change) for change in found]

    return {"ledger": ledger}


def _ledger_row(change: ConversationChanged) -> dict[str, Any]:
    total = sum(change.ledgers, Ledger())
    return {
        "site": change.site,
        "conversation_id": change.conversation_id,
        "channel": change.channel,
        "state": change.state,
        "sample_rate": change.sample_rate,
        **msgspec.to_builtins(total),
        "balanced": all(ledger.balanced for ledger in change.ledgers),
        "speakers": msgspec.to_builtins(change.ledgers),
    }


async def administer(
    data_dir: Path,
    command: str,
    arguments: Arguments,
    *,
    needs_server: bool = False,
    timeout_s: float | None = CALL_TIMEOUT_S,
) -> Answer:
    """Ask the running server; where none runs, work on the directory itself (unless only a server can answer).

    Where there are services, the one is asked that knows. A server that is just starting is waited for: whoever took
    its directory meanwhile would stop it.
    """
    directory = DataDirectory(data_dir)
    own = _own(directory, command)
    deadline = time.monotonic() + START_S
    is_first = True
    while True:
        had_started = own.running() is not None
        answer = await _ask_any(_answering(directory, own, command), command, arguments, timeout_s)
        if answer is not None:
            return answer
        if needs_server:
            raise ConfigurationError(_silent(directory, own))
        try:
            if not _is_site_starting(directory, command):
                for name in OFFLINE:
                    importlib.import_module(name)
                with own.own(wait_s=0):
                    return await _offline(own, directory.path, command, arguments)
        except DataDirectoryBusyError:
            if had_started:
                raise  # and yet it does not answer
        if time.monotonic() >= deadline:
            raise ConfigurationError(_silent(directory, own))
        if is_first:
            click.echo(f"Waiting for QuickComm on {directory.path}, which is starting or stopping …", err=True)
        is_first = False
        await asyncio.sleep(LOOK_EVERY_S)  # the other process tells nobody when it is ready


async def _ask_any(sockets: list[Path], command: str, arguments: Arguments, timeout_s: float | None) -> Answer | None:
    """Return the answer of the first that listens; None if none does."""
    for socket in sockets:
        try:
            return await ask(socket, command, arguments, timeout_s)
        except aiohttp.ClientConnectionError:
            pass  # left behind by a server that was killed
    return None


def _silent(directory: DataDirectory, own: DataDirectory) -> str:
    if own.path != directory.path:
        return f"The dashboard of {directory.path} does not answer. See: quickcomm status"
    if directory.is_owned():
        return f"QuickComm on {directory.path} is starting or stopping. Try again in a moment."
    start = f"quickcomm serve{data_dir_flag(directory.path)}"
    return f"No QuickComm is running on {directory.path}. Start one with: {start}"


def _is_site_starting(directory: DataDirectory, command: str) -> bool:
    """Return True if the answer is in a store that `up` has not started yet, or has just stopped."""
    from quickcomm.entrypoints.up.layout import Layout  # noqa: PLC0415 - as below

    return command.partition(".")[0] in OF_THE_STORE and Layout(directory).is_owned()


def _own(directory: DataDirectory, command: str) -> DataDirectory:
    """Whose local socket may answer, and whose data where nobody runs."""
    page = directory.dashboard
    return page if command.partition(".")[0] in OF_THE_PAGE and page.path.is_dir() else directory


def _answering(directory: DataDirectory, own: DataDirectory, command: str) -> list[Path]:
    """Sockets where somebody may know, the best one first."""
    from quickcomm.entrypoints.up.layout import Layout  # noqa: PLC0415 - it needs this module's neighbours

    layout, what = Layout(directory), command.partition(".")[0]
    found = [layout.control] if what in OF_THE_STORE else []
    if what in OF_ONE_OF_MANY:
        found += layout.administrations(OF_ONE_OF_MANY[what])
    found.append(own.socket)
    if what == "keys":
        found.append(directory.dashboard.socket)
    return [socket for socket in found if is_trusted(socket, directory.path)]


def _database(directory: DataDirectory, site: Path, command: str) -> Path | str:
    """Where it is kept: where there are services, what intelligence has may be in a database elsewhere."""
    if OF_ONE_OF_MANY.get(command.partition(".")[0]) == INTELLIGENCE and DataDirectory(site).dashboard.path.is_dir():
        from quickcomm.entrypoints.intelligence_settings import load_intelligence_settings  # noqa: PLC0415

        url = load_intelligence_settings(site, {}).intelligence.database_url
        if url is not None:
            return url
    return directory.database


async def _offline(directory: DataDirectory, site: Path, command: str, arguments: Arguments) -> Answer:
    """`site`: the data directory of all of it, where the settings are."""
    from quickcomm.kernel.bus.sql import SqlBus  # noqa: PLC0415 - see above
    from quickcomm.kernel.clock import SystemClock  # noqa: PLC0415
    from quickcomm.kernel.keys.sql import SqlKeys  # noqa: PLC0415
    from quickcomm.kernel.storage import Database  # noqa: PLC0415

    if command == "ledger" or command.startswith(("dead-letters.", "keys.")):
        from quickcomm.entrypoints.moving import check_here  # noqa: PLC0415 - as above

        check_here(directory)
    clock = SystemClock()
    where = _database(directory, site, command)
    database = Database(where)
    database.open()
    try:
        keys = SqlKeys(database, clock)
        bus = SqlBus(database, clock)
        if command != "trace" and isinstance(where, Path):
            keys.migrate()
            bus.migrate()

        async def ledgers(conversation_id: str | None) -> list[ConversationChanged]:
            from quickcomm.audio.module import Audio  # noqa: PLC0415 - the whole server; other commands do without

            return await Audio.stored_ledgers(database, clock, conversation_id)

        more: Mapping[str, Command] = {}
        if command.startswith("prompts."):
            from quickcomm.entrypoints.prompt_administration import offline_commands  # noqa: PLC0415 - as above

            more = offline_commands(database, clock, site)
        elif command == "trace":
            from quickcomm.entrypoints.trace_administration import offline_trace  # noqa: PLC0415 - as above

            more = offline_trace(database, site)
        commands = (
            keys_of(keys),
            dead_letters(bus),
            ledgers_of(ledgers),
            more,
        )
        return await Administration(*commands).call(command, arguments)
    finally:
        await database.aclose()
