"""The migration as the page shows and steers it: asked of the controller, which runs in a process of its own."""

import asyncio
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from quickcomm.contracts.migration import (
    AutoMigration,
    GetMigration,
    MigrationStatus,
    OfTraffic,
    PauseMigration,
    PromoteMigration,
    ResumeMigration,
    RollBackMigration,
    StartMigration,
    StepMigration,
)
from quickcomm.contracts.routes import MONOLITH, SERVICE
from quickcomm.kernel.errors import NotFoundError
from quickcomm.kernel.messaging.rpc import Rpc
from quickcomm.kernel.messaging.rpc.port import DeadlineError, UnansweredError, UnsupportedError

MoveAction = Literal["start", "return", "step", "promote", "rollback", "pause", "resume", "auto", "manual"]
ANSWER_S: Final = 3.0
"""A change that takes longer goes on; the page sees it come."""
ENTRIES: Final = 50
NONE: Final = MigrationStatus(version=0, epoch=0, in_force=False, modules=(), followers=None)
"""Where no controller runs. No error: every page asks, and a browser reports each error on its console."""


class NotMovingError(NotFoundError):
    code = "migration.none"


class Migration:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._under_way: set[asyncio.Task[object]] = set()

    async def status(self) -> MigrationStatus:
        """Return how far it is; without modules where no controller runs. Raises `DeadlineError` where it is late."""
        try:
            return msgspec.convert(await self._rpc.call(GetMigration(entries=ENTRIES)), MigrationStatus)
        except DeadlineError:
            raise
        except (UnansweredError, UnsupportedError):
            return NONE

    async def act(self, name: str, action: MoveAction, by: str, why: str, *, force: bool) -> MigrationStatus:
        """As `ask`."""
        return await self.ask(_request(name, action, by, why, force=force))

    async def ask(self, request: OfTraffic) -> MigrationStatus:
        """Have the controller do it; return how it is then.

        Raises what the controller raises within seconds, and `NotMovingError` where none runs.
        """
        if not (await self.status()).modules:
            raise NotMovingError("No module is being moved. Begin with: quickcomm migrate start dashboard")
        task: asyncio.Task[object] = asyncio.create_task(self._ask(request))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        done, _ = await asyncio.wait([task], timeout=ANSWER_S)
        if done:
            await task
        return await self.status()

    async def _ask(self, request: OfTraffic) -> None:
        await self._rpc.call(request)


def _request(name: str, action: MoveAction, by: str, why: str, *, force: bool) -> OfTraffic:
    asked: dict[MoveAction, Callable[[], OfTraffic]] = {
        "start": lambda: StartMigration(name=name, by=by, goal=SERVICE, force=force),
        "return": lambda: StartMigration(name=name, by=by, goal=MONOLITH, force=force),
        "step": lambda: StepMigration(name=name, by=by, why=why, force=force),
        "promote": lambda: PromoteMigration(name=name, by=by, why=why, force=force),
        "rollback": lambda: RollBackMigration(name=name, by=by, why=why),
        "pause": lambda: PauseMigration(name=name, by=by),
        "resume": lambda: ResumeMigration(name=name, by=by),
        "auto": lambda: AutoMigration(name=name, by=by, on=True),
        "manual": lambda: AutoMigration(name=name, by=by, on=False),
    }
    return asked[action]()
