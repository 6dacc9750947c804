"""Builds the executor of operations as a part of a process."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

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
from quickcomm.kernel.saga.durable import Durable
from quickcomm.kernel.saga.executors import InTransaction
from quickcomm.kernel.saga.running import Runner
from quickcomm.kernel.site_pack import SitePack
from quickcomm.kernel.storage import Database
from quickcomm.operations.adapters.erasing import erasing_answers
from quickcomm.operations.adapters.journal import SqlJournal
from quickcomm.operations.adapters.webhook import post
from quickcomm.operations.declaration import OperationsSettings, steps_of
from quickcomm.operations.definitions import DISPATCH, OPERATIONS
from quickcomm.operations.service.desk import Desk
from quickcomm.operations.service.notices import Notices
from quickcomm.operations.service.on_demand import OnDemand

log = structlog.get_logger(__name__)


def load(app: App, _settings: Settings, _pack: SitePack) -> None:
    """Import what executes durably, where operations cross processes; it takes long."""
    if app.alone:
        import dbos  # noqa: F401, PLC0415 - beside the rest of the start


def build(context: Context, _loaded: None) -> Part:
    settings = context.settings.of(OperationsSettings)
    journal = SqlJournal(context.database)
    rpc = context.messaging.rpc
    runner = Runner(OPERATIONS, rpc, context.clock)
    notices = Notices(rpc, post, settings, context.clock)
    steps = steps_of(settings, context.site)
    durable = Durable(runner, journal, steps, digest(OPERATIONS.values()))
    answers = [*notices.answers(), *erasing_answers(context.database, OPERATIONS, steps, executed=True)]

    def check(operation: str) -> None:
        if operation == DISPATCH:
            notices.check()

    if context.app.alone:
        desk = Desk(OPERATIONS, journal, None, durable, context.clock, check)

        async def work() -> None:
            await desk.open()
            await durable.run()

        part = _part(desk, journal, work, answers, durable.aclose)
    else:
        here = InTransaction(runner, journal, context.database, context.clock)
        on_demand = OnDemand(durable, context.site.part(NAME).create)
        desk = Desk(OPERATIONS, journal, here, on_demand, context.clock, check)

        async def work() -> None:
            await desk.open()
            await _take_over(journal, on_demand)

        part = _part(desk, journal, work, answers, on_demand.aclose)
    durable.told = desk.told
    return part


async def _take_over(journal: SqlJournal, on_demand: OnDemand) -> None:
    """Go on with what the process before left unfinished. Where that fails, the process serves without."""
    if any(each.status != "parked" for each in await journal.unfinished()):
        try:
            await on_demand.open()
        except Exception:
            log.exception("operations.not_taken_over")


def stored_answers(database: Database, clock: Clock) -> Sequence[Answer]:
    """Return what can be answered on a database that no server has open: how operations stand."""
    journal = SqlJournal(database)
    journal.migrate()
    desk = Desk(OPERATIONS, journal, None, None, clock)
    return [(ListOperations, desk.list), (GetOperation, desk.get)]


def erasing(database: Database, settings: Settings, site: DataDirectory) -> Sequence[Answer]:
    """Return what is answered about erasure on a database that no executor has open now."""
    SqlJournal(database).migrate()
    steps = steps_of(settings.of(OperationsSettings), site)
    return erasing_answers(database, OPERATIONS, steps, executed=False)


def _part(
    desk: Desk,
    journal: SqlJournal,
    work: Callable[[], Awaitable[None]],
    answers: Sequence[Answer],
    close: Callable[[], Awaitable[None]],
) -> Part:
    async def status() -> dict[str, Any]:
        return {"parked": len(list(desk.alarms()))}

    return Part(
        name=NAME,
        answers=[*desk.answers(), *answers],
        open=journal.migrate,
        work={NAME: work},
        close=close,
        alarms=desk.alarms,
        status=status,
        live_status=InstanceStatus,
        purge=journal.purge,
    )
