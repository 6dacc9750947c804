"""The migration as the page shows and steers it: asked of the controller, which runs in a process of its own."""

import asyncio
from typing import Any, Final

import msgspec

from quickcomm.contracts.migration import (
    GetMigration,
    MigrationDone,
    MigrationStatus,
    MoveAction,
    OfTraffic,
    asked_for,
)
from quickcomm.kernel.errors import ForbiddenError, NotFoundError
from quickcomm.kernel.keys import OPERATORS, Principal
from quickcomm.kernel.messaging.rpc import Rpc
from quickcomm.kernel.messaging.rpc.port import DeadlineError, UnansweredError, UnsupportedError

ANSWER_S: Final = 3.0
"""A change that takes longer goes on; the page sees it come."""
ENTRIES: Final = 50
NONE: Final = MigrationStatus(version=0, epoch=0, in_force=False, modules=(), followers=None)
"""Where no controller runs. No error: every page asks, and a browser reports each error on its console."""


class NotMovingError(NotFoundError):
    code = "migration.none"


def require_operator(caller: Principal) -> None:
    """Raise `ForbiddenError` for a key of another site: modules are moved for all sites of a server at once."""
    if caller.site != OPERATORS:
        raise ForbiddenError(
            f"Moving a module concerns all sites of this server: it needs an admin key of the site {OPERATORS!r}; "
            f"yours is of {caller.site!r}. On the server's machine, there is: quickcomm migrate"
        )


class Migration:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._under_way: set[asyncio.Task[tuple[str, ...]]] = set()

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
        return await self.ask(asked_for(action, name, by=by, why=why, force=force))

    async def ask(self, request: OfTraffic) -> MigrationStatus:
        """Have the controller do it; return how it is then, with what there is to know of it.

        Raises what the controller raises within seconds, and `NotMovingError` where none runs.
        """
        if not (await self.status()).modules:
            raise NotMovingError("No module is being moved. Begin with: quickcomm migrate start dashboard")
        task = asyncio.create_task(self._ask(request))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        done, _ = await asyncio.wait([task], timeout=ANSWER_S)
        notes = await task if done else ()
        return msgspec.structs.replace(await self.status(), notes=notes)

    async def _ask(self, request: OfTraffic) -> tuple[str, ...]:
        """Return the notes of all that was done."""
        reply: Any = await self._rpc.call(request)
        done = msgspec.convert(reply if isinstance(reply, list) else [reply], list[MigrationDone])
        return tuple(note for each in done for note in each.notes)
