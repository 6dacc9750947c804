"""Builds the executor of operations as a part of a process."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from quickcomm.contracts.link import InstanceStatus
from quickcomm.contracts.operations import GetOperation, ListOperations
from quickcomm.contracts.saga import OPERATIONS as NAME
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.declaration import App
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.saga.definition import digest
from quickcomm.kernel.saga.executors import InProcess, InTransaction
from quickcomm.kernel.saga.running import Runner
from quickcomm.kernel.site_pack import SitePack
from quickcomm.kernel.storage import Database
from quickcomm.operations.adapters.erasing import erasing_answers
from quickcomm.operations.adapters.journal import SqlJournal
from quickcomm.operations.declaration import OperationsSettings, steps_file, steps_of
from quickcomm.operations.definitions import OPERATIONS
from quickcomm.operations.service.desk import Desk


def load(app: App, _settings: Settings, _pack: SitePack) -> None:
    """Import what executes durably, where operations cross processes; it takes long."""
    if app.alone:
        import dbos  # noqa: F401, PLC0415 - beside the rest of the start


def build(context: Context, _loaded: None) -> Part:
    journal = SqlJournal(context.database)
    runner = Runner(OPERATIONS, context.messaging.rpc, context.clock)
    if not context.app.alone:
        here = InTransaction(runner, journal, context.database, context.clock)
        others = InProcess(runner, journal, context.clock)
        desk = Desk(OPERATIONS, journal, here, others, context.clock)
        others.told = desk.told
        return _part(desk, journal, erasing_answers(context.database, OPERATIONS, None, executed=True), others.run)
    from quickcomm.kernel.saga.durable import Durable  # noqa: PLC0415 - see `load`

    steps = steps_of(context.settings.of(OperationsSettings), context.site)
    durable = Durable(runner, journal, steps, digest(OPERATIONS.values()))
    desk = Desk(OPERATIONS, journal, None, durable, context.clock)
    durable.told = desk.told
    erasing = erasing_answers(context.database, OPERATIONS, steps, executed=True)
    return msgspec.structs.replace(_part(desk, journal, erasing, durable.run), close=durable.aclose)


def stored_answers(database: Database, clock: Clock) -> Sequence[Answer]:
    """Return what can be answered on a database that no server has open: how operations stand."""
    journal = SqlJournal(database)
    journal.migrate()
    desk = Desk(OPERATIONS, journal, None, None, clock)
    return [(ListOperations, desk.list), (GetOperation, desk.get)]


def erasing(database: Database, settings: Settings, site: DataDirectory) -> Sequence[Answer]:
    """Return what is answered about erasure on a database that no executor has open now."""
    SqlJournal(database).migrate()
    own = site.part(NAME)
    steps = None
    if not database.shared and database.path == own.database and steps_file(own).is_file():
        steps = steps_of(settings.of(OperationsSettings), site)
    return erasing_answers(database, OPERATIONS, steps, executed=False)


def _part(desk: Desk, journal: SqlJournal, erasing: Sequence[Answer], execute: Callable[[], Awaitable[None]]) -> Part:
    async def status() -> dict[str, Any]:
        return {"parked": len(list(desk.alarms()))}

    async def work() -> None:
        await desk.open()
        await execute()

    return Part(
        name=NAME,
        answers=[*desk.answers(), *erasing],
        open=journal.migrate,
        work={NAME: work},
        alarms=desk.alarms,
        status=status,
        live_status=InstanceStatus,
        purge=journal.purge,
    )
