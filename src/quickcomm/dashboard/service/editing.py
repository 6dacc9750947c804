"""People's edits, on whichever side they come in: the side with the lease makes the decision, and answers."""

from collections.abc import Callable
from typing import ClassVar, Final, Protocol

from quickcomm.contracts.messaging import Request
from quickcomm.dashboard.model.edits import Edit
from quickcomm.dashboard.model.views import Task
from quickcomm.dashboard.ports import Commands, NotDecidingError
from quickcomm.dashboard.service.standing import MODULE, Standing
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.rpc import Answer, Rpc
from quickcomm.kernel.messaging.rpc.port import NotOwnerError, UnansweredError

ATTEMPTS: Final = 20
RETRY_S: Final = 0.1
"""While the lease moves, neither side may have it for a moment."""


class EditTask(Request[Task], frozen=True, kw_only=True, tag="tasks.edit"):
    """From the side where a person works to the one that decides."""

    module: ClassVar = MODULE
    to: ClassVar = "owner"
    callers: ClassVar = (MODULE,)
    within_s: ClassVar = 5.0
    about: ClassVar = "what becomes of a task"

    site: str
    task_id: str
    edit: Edit


class Tasks(Commands, Protocol):
    """The tasks of this side."""

    async def until_folded(self, site: str, task: Task) -> None:
        """Wait a moment until a decision that was made elsewhere is folded here."""
        ...


class Editing:
    """Implements `Commands`."""

    def __init__(
        self, tasks: Tasks, rpc: Rpc, standing: Standing, clock: Clock, on_refused: Callable[[], None]
    ) -> None:
        """`on_refused`: called when no side makes a decision that a person waits for."""
        self._on_refused = on_refused
        self._tasks = tasks
        self._rpc = rpc
        self._standing = standing
        self._clock = clock

    async def edit_task(self, site: str, task_id: str, edit: Edit) -> Task:
        if self._standing.decides:
            try:
                return await self._tasks.edit_task(site, task_id, edit)
            except NotDecidingError:
                pass  # the lease has just moved
        task = await self._elsewhere(EditTask(site=site, task_id=task_id, edit=edit))
        await self._tasks.until_folded(site, task)
        return task

    def painted(self, site: str, utterance_id: str, painted_ms: float) -> None:
        self._tasks.painted(site, utterance_id, painted_ms)

    def answers(self) -> list[Answer]:
        """Return what the other side asks."""
        return [(EditTask, self._answer)]

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _answer(self, request: EditTask) -> Task:
        try:
            return await self._tasks.edit_task(request.site, request.task_id, request.edit)
        except NotDecidingError as error:
            raise NotOwnerError(str(error)) from error

    async def _elsewhere(self, request: EditTask) -> Task:
        """Ask again while the lease moves: an edit that was made is not made twice, by its version."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._rpc.call(request)
            except UnansweredError:
                await self._clock.sleep(RETRY_S)
        try:
            return await self._rpc.call(request)
        except UnansweredError:
            self._on_refused()
            raise
