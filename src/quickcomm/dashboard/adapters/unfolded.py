"""Finds decisions that the records of this dashboard do not show, by folding them again without writing."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.checking import Compare, Key
from quickcomm.contracts.decisions import (
    ClosingDecision,
    CopyDecision,
    Decision,
    DispatchDecision,
    TaskDecision,
    TextDecision,
)
from quickcomm.dashboard.adapters.tables import (
    closing_record,
    closings,
    decided_in,
    decisions,
    task_record,
    tasks,
    utterance_record,
    utterances,
)
from quickcomm.dashboard.model.decisions import task_as_decided
from quickcomm.dashboard.model.projections import wanted_tasks
from quickcomm.dashboard.model.records import Closing, TaskRecord, UtteranceRecord
from quickcomm.kernel.checking.gathering import within

_OF_DECISION: Final = sa.and_(
    utterances.c.site == decisions.c.site, utterances.c.utterance_id == decisions.c.utterance_id
)


class _Records(NamedTuple):
    """Stored records that decisions are about."""

    tasks: dict[Key, TaskRecord]
    closings: dict[tuple[str, str, int], Closing]


def unfolded(connection: Connection, request: Compare, until: Key | None) -> Iterator[Decision]:
    """Yield the decisions about complete utterances of a range that would change a record."""
    which = within(decisions.c.site, decisions.c.utterance_id, request, until)
    query = sa.select(utterances, decisions.c.payload).join_from(decisions, utterances, _OF_DECISION)
    query = query.where(which, utterances.c.heard, utterances.c.found.is_not(None))
    decided = [(utterance_record(row), decided_in(row.payload)) for row in connection.execute(query)]
    if decided:
        yield from _differing(decided, _records(connection, request, until))


def _records(connection: Connection, request: Compare, until: Key | None) -> _Records:
    of_tasks = sa.select(tasks).where(within(tasks.c.site, tasks.c.utterance_id, request, until))
    of_closings = sa.select(closings).where(within(closings.c.site, closings.c.utterance_id, request, until))
    closed = map(closing_record, connection.execute(of_closings))
    return _Records(
        tasks={(task.site, task.task_id): task for task in map(task_record, connection.execute(of_tasks))},
        closings={(each.site, each.utterance_id, each.insight_index): each for each in closed},
    )


def _differing(decided: Iterable[tuple[UtteranceRecord, Decision]], records: _Records) -> Iterator[Decision]:
    return (decision for record, decision in decided if not _is_folded(record, decision, records))


def _is_folded(record: UtteranceRecord, decision: Decision, records: _Records) -> bool:
    what = decision.what
    if isinstance(what, CopyDecision):
        return what.copy_of == record.copy_of
    if isinstance(what, TextDecision):
        standing = 0 if record.corrected is None else record.corrected.number
        return standing >= what.number if what.state == "in_force" else standing != what.number
    if isinstance(what, ClosingDecision):
        closing = records.closings.get((decision.site, what.utterance_id, what.insight_index))
        return closing is None or (closing.task_id, closing.pinned) == (what.task_id, what.pinned)
    if isinstance(what, DispatchDecision):
        return True  # no record shows it
    assert isinstance(what, TaskDecision)  # noqa: S101 - there are no other kinds
    assert record.heard is not None and record.found is not None  # noqa: S101, PT018 - only complete ones are asked for
    existing = records.tasks.get((decision.site, what.task_id))
    wanted = wanted_tasks(record.heard, record.found) if record.copy_of is None else {}
    return task_as_decided(existing, wanted.get(what.task_id), decision) == existing
