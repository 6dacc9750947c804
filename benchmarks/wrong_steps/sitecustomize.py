"""Loses each third reply of a step, and plants a defect in the steps of a dispatch.

Python imports this by itself where its folder is in `PYTHONPATH`. `BENCH_PLANTED`: `lost-replies` alone, which harms no
operation, or a defect that it brings to light:

- `no-key`: a step forgets its idempotency key, and has its effect again each time it is asked for;
- `undo-twice`: a compensation is not idempotent: it takes back again what it has taken back.
"""

import os
import random
import sys
from typing import Any

import msgspec

PLANTED = os.environ.get("BENCH_PLANTED", "")
LOST = 0.3

if PLANTED and "operations" in sys.orig_argv:
    from quickcomm.contracts.saga import StepRequest
    from quickcomm.kernel.errors import UnavailableError
    from quickcomm.kernel.messaging.rpc.local import LocalRpc

    call = LocalRpc.call

    async def lose(self: LocalRpc, request: Any) -> Any:
        reply = await call(self, request)
        if isinstance(request, StepRequest) and random.random() < LOST:  # noqa: S311 - not to be secret
            raise UnavailableError("The reply is lost.")
        return reply

    LocalRpc.call = lose  # type: ignore[method-assign]

if PLANTED and "dashboard" in sys.orig_argv:
    from quickcomm.contracts.dispatching import ReleaseTask, Reserved, ReserveTask
    from quickcomm.contracts.saga import Undone
    from quickcomm.dashboard.service import dispatching
    from quickcomm.dashboard.service.decider import Decider

    reserve, release = dispatching.reserve, dispatching.release

    def reserve_again(decider: Decider, request: ReserveTask) -> Reserved:
        before = dispatching._dispatch(decider, request.site, request.task_id)  # noqa: SLF001 - as the step does
        if before.key == request.key:
            decider.by = request.by
            decider.decide(request.site, msgspec.structs.replace(before, reserved_ns=decider.now_ns))
        return reserve(decider, request)

    def release_again(decider: Decider, request: ReleaseTask) -> Undone:
        before = dispatching._dispatch(decider, request.site, request.task_id)  # noqa: SLF001 - as the step does
        if request.key in before.undone:
            decider.by = request.by
            decider.decide(request.site, msgspec.structs.replace(before, undone=(*before.undone, request.key)))
        return release(decider, request)

    if PLANTED == "no-key":
        dispatching.reserve = reserve_again
    if PLANTED == "undo-twice":
        dispatching.release = release_again
