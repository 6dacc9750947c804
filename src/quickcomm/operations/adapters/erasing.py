"""Erases names of people in the records of operations: in the journal, and in what DBOS has of their steps.

That an operation was done about a conversation, when, and how it ended, stays.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.erasing import Erased, EraseOperations, FindOperations, Scope, Wanted
from quickcomm.kernel.erasing.reading import has_name
from quickcomm.kernel.erasing.traces import WITH_SERVER, remove_traces
from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.saga import Operation, Progress
from quickcomm.kernel.saga.durable import SQLITE, forget
from quickcomm.kernel.storage import Database
from quickcomm.operations.adapters.journal import journal

NAMELESS: Final = "erased"
"""Stands in place of who started it."""
ERRORS: Final = frozenset({"failed", "kept"})
"""Their text is no name."""
_decode: Final = msgspec.json.Decoder(Progress).decode


def erasing_answers(
    database: Database, operations: Mapping[str, Operation], steps: str, *, executed: bool
) -> Sequence[Answer]:
    """Return what is answered about erasure.

    `steps`: where DBOS has the steps, if there is something. `executed`: an executor is at work on this journal.
    """
    named = {name: each for name, each in operations.items() if each.nameless is not None}

    async def find(request: FindOperations) -> Scope:
        found = await database.read(lambda connection: tuple(_with_name(connection, request.wanted, tuple(named))))
        return Scope(site=request.wanted.site, operations=found)

    async def erase(request: EraseOperations) -> list[Erased]:
        about, changed = await database.write(
            lambda connection: _erase(connection, request.scope, named, executed=executed)
        )
        if about:
            await asyncio.to_thread(forget, steps, about)
        gone = "" if steps.startswith(SQLITE) else WITH_SERVER
        if request.traces:
            gone = await remove_traces(database, [journal.name]) or gone
        return [Erased(store=f"operations, {database.name}", what="names", count=changed, gone=gone)]

    return [(FindOperations, find), (EraseOperations, erase)]


def _with_name(connection: Connection, wanted: Wanted, operations: Sequence[str]) -> Iterator[str]:
    if not wanted.name:
        return
    query = sa.select(journal.c.id, journal.c.progress)
    query = query.where(journal.c.site == wanted.site, journal.c.name.in_(operations))
    for operation_id, payload in connection.execute(query):
        if has_name(payload, wanted.name):
            yield operation_id


def _erase(
    connection: Connection, scope: Scope, operations: Mapping[str, Operation], *, executed: bool
) -> tuple[list[str], int]:
    """Return the ids of the operations that are meant, and how many of them had a name.

    Raises `BusyError` while one goes on: its executor would write down again what it has in memory.
    """
    touched = set(scope.touched())
    here = sa.and_(journal.c.site == scope.site, journal.c.name.in_(tuple(operations)))
    rows = connection.execute(sa.select(journal.c.id, journal.c.subject, journal.c.progress).where(here)).all()
    about, changed = [], 0
    for row in rows:
        # What it is about is a conversation, a task, or a correction: an utterance and a number.
        utterances = (row.subject.rpartition(":")[0], row.subject.partition("#")[0])
        is_meant = row.subject in touched or any(scope.has(scope.site, each) for each in utterances)
        if not is_meant and row.id not in scope.operations:
            continue
        progress = _decode(row.progress)
        if executed and not progress.rests:
            raise BusyError(f"The operation {progress.id} is at work: what it has can be erased once it rests.")
        after = _nameless(operations[progress.operation], progress)
        if after != progress:
            stored = journal.update().where(journal.c.id == progress.id)
            connection.execute(stored.values(progress=msgspec.json.encode(after)))
            changed += 1
        about.append(progress.id)
    return about, changed


def _nameless(operation: Operation, progress: Progress) -> Progress:
    assert operation.nameless is not None, "only those are asked for"  # noqa: S101 - a programming error
    given = operation.nameless(msgspec.json.decode(progress.input, type=operation.input))
    history = tuple(
        event if event.what in ERRORS else msgspec.structs.replace(event, text="") for event in progress.history
    )
    return msgspec.structs.replace(
        progress, input=msgspec.Raw(msgspec.json.encode(given)), by=NAMELESS, history=history
    )
