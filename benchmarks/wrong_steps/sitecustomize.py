"""Plants a defect in the steps of operations, in each process of a site that answers them.

Python imports this by itself where its folder is in `PYTHONPATH`. `BENCH_PLANTED` names the defect:

- `no-key`: a step forgets its idempotency key, and has its effect again each time it is asked for;
- `undo-twice`: a compensation is not idempotent: it takes back again what it has taken back;
- `early-answer`: a step answers before its commit, which follows half a second later.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

PLANTED = os.environ.get("BENCH_PLANTED", "")
LATE_S = 0.5
ANSWERING = {"audio", "intelligence", "dashboard", "operations"}


class RolledBackError(Exception):
    """The effect was only tried."""


if PLANTED and ANSWERING & set(sys.orig_argv):
    from quickcomm.kernel.saga import answering
    from quickcomm.kernel.saga.keys import _FIND, _UNDO, undo
    from quickcomm.kernel.storage import Database

    in_transaction = answering.in_transaction
    late: set[asyncio.Task[Any]] = set()

    def without_key(_connection: Connection, _key: str, _now_ns: int, effect: Callable[[], bytes]) -> bytes:
        return effect()

    def undo_again(connection: Connection, key: str, now_ns: int, effect: Callable[[bytes], None]) -> bool:
        known = connection.execute(_FIND, {"key": key}).one_or_none()
        if known is None or not known.reply:
            return undo(connection, key, now_ns, effect)
        effect(bytes(known.reply))
        connection.execute(_UNDO, {"undone_key": key})
        return True

    async def answer_early(database: Database, work: Callable[[answering.Transaction], Any]) -> Any:
        tried: list[Any] = []

        def attempt(connection: Connection) -> None:
            tried.append(work(answering.Transaction(connection)))
            raise RolledBackError

        async def commit() -> None:
            await asyncio.sleep(LATE_S)
            await in_transaction(database, work)

        try:
            await database.write(attempt)
        except RolledBackError:
            late.add(asyncio.create_task(commit()))
        return tried[0]

    defects: dict[str, tuple[str, Any]] = {
        "no-key": ("once", without_key),
        "undo-twice": ("undo", undo_again),
        "early-answer": ("in_transaction", answer_early),
    }
    setattr(answering, *defects[PLANTED])
