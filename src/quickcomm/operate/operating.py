"""Has the executor of a running site do an operation, and waits for its end, however often the executor is away."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from quickcomm.contracts.operations import ResumeOperation, StartOperation
from quickcomm.contracts.saga import OperationView
from quickcomm.kernel.errors import BusyError, ConfigurationError, QuickCommError, UnavailableError
from quickcomm.operate.administration import administer

AWAY_S: Final = 300.0
"""As long as a site may take to start."""
ASKED_S: Final = 60.0
LOOK_EVERY_S: Final = 0.5


class StoppedError(QuickCommError):
    """It waits for an operator."""

    code = "operations.stopped"


async def operate(
    data_dir: Path, request: StartOperation, tell: Callable[[str], None], *, resume: bool = False
) -> OperationView:
    """Return how it stands when it is done. `tell`: is called with each step that is done. `resume`: also if parked.

    Raises `StoppedError` where it has stopped, and `UnavailableError` where the executor stays away.
    """
    told = 0
    until_s = time.monotonic() + AWAY_S
    asked: StartOperation | ResumeOperation = request
    while True:
        try:
            [row] = await administer(data_dir, asked, needs_server=True, timeout_s=ASKED_S)
        except (BusyError, ConfigurationError, TimeoutError) as error:
            if time.monotonic() >= until_s:
                raise UnavailableError(f"It goes on once operations are executed again. {error}") from error
            await asyncio.sleep(LOOK_EVERY_S)  # the other process tells nobody when it is ready
            continue
        found = msgspec.convert(row, OperationView)
        done = [event.step for event in found.history if event.what == "done"]
        for step in done[told:]:
            tell(step)
        told = len(done)
        until_s = time.monotonic() + AWAY_S
        asked = request
        if found.status == "done":
            return found
        if found.status == "parked" and resume:
            asked, resume = ResumeOperation(id=found.id, by=request.by, wait_s=request.wait_s), False
        elif found.status not in ("running", "compensating"):
            raise StoppedError(
                f"It has stopped at {found.step}: {found.why} Go on with: quickcomm sagas resume {found.id}"
            )
