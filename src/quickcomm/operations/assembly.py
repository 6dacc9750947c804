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
from quickcomm.kernel.runtime.declaration import App
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.saga.definition import digest
from quickcomm.kernel.saga.executors import InTransaction
from quickcomm.kernel.saga.running import Runner
from quickcomm.kernel.site_pack import SitePack
from quickcomm.kernel.storage import Database
from quickcomm.operations.adapters.journal import SqlJournal
from quickcomm.operations.declaration import OperationsSettings
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
        desk = Desk(OPERATIONS, journal, here, None, context.clock)
        return _part(desk, journal, desk.open)
    from quickcomm.kernel.saga.durable import Durable  # noqa: PLC0415 - see `load`

    url = context.settings.of(OperationsSettings).database_url
    where = url or f"sqlite:///{context.site.part(NAME).path / 'steps.sqlite'}"
    durable = Durable(runner, journal, where, digest(OPERATIONS.values()))
    desk = Desk(OPERATIONS, journal, None, durable, context.clock)
    durable.told = desk.told

    async def work() -> None:
        await desk.open()
        await durable.run()

    return msgspec.structs.replace(_part(desk, journal, work), close=durable.aclose)


def stored_answers(database: Database, clock: Clock) -> Sequence[Answer]:
    """Return what can be answered on a database that no server has open: how operations stand."""
    journal = SqlJournal(database)
    journal.migrate()
    desk = Desk(OPERATIONS, journal, None, None, clock)
    return [(ListOperations, desk.list), (GetOperation, desk.get)]


def _part(desk: Desk, journal: SqlJournal, work: Callable[[], Awaitable[None]]) -> Part:
    async def status() -> dict[str, Any]:
        return {"parked": len(list(desk.alarms()))}

    return Part(
        name=NAME,
        answers=desk.answers(),
        open=journal.migrate,
        work={NAME: work},
        alarms=desk.alarms,
        status=status,
        live_status=InstanceStatus,
        purge=journal.purge,
    )
