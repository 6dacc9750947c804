"""The numbers of a shift report, by SQL: counts and times come from an index alone, and only few rows are read."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.dashboard.adapters.dialects import Greatest, Least
from quickcomm.dashboard.adapters.tables import task_record, tasks, utterances
from quickcomm.dashboard.model.report import Emergency, ShiftReport, TimedTask, Times, counted, times
from quickcomm.dashboard.model.views import rfc3339, task_view
from quickcomm.dashboard.ports import Shift
from quickcomm.kernel.storage import Database

NS: Final = 10**9
HOUR_S: Final = 3_600
MAX_OPEN: Final = 20
MAX_SLOW: Final = 10
MAX_EMERGENCIES: Final = 20
MAX_RANKED: Final = 10_000
CRITICAL: Final = "critical"
UNFINISHED: Final = ("open", "acknowledged")

_DONE_AFTER: Final = tasks.c.completed_ns - tasks.c.created_ns
_ACKNOWLEDGED_AFTER: Final = tasks.c.acknowledged_ns - tasks.c.created_ns
_SEEN_NS: Final = Least(
    sa.func.coalesce(tasks.c.acknowledged_ns, tasks.c.completed_ns),
    sa.func.coalesce(tasks.c.completed_ns, tasks.c.acknowledged_ns),
)
_SEEN_AFTER: Final = _SEEN_NS - tasks.c.created_ns


class SqlReports:
    """Implements `Reports`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def shift(self, site: str, shift: Shift) -> ShiftReport:
        return await self._database.read(lambda connection: _Reading(connection, site, shift).report())


class _Reading:
    """One report, all of one moment."""

    def __init__(self, connection: Connection, site: str, shift: Shift) -> None:
        self._connection = connection
        self._site = site
        self._shift = shift
        self._within = sa.and_(
            tasks.c.site == site, tasks.c.created_ns >= shift.since_ns, tasks.c.created_ns < shift.until_ns
        )
        self._critical = sa.and_(self._within, tasks.c.urgency == CRITICAL)

    def report(self) -> ShiftReport:
        shift = self._shift
        groups = self._groups()
        open_now, oldest = self._open()
        emergencies = sum(row.requests for row in groups if row.urgency == CRITICAL)
        seen = self._seen()
        return ShiftReport(
            since=rfc3339(shift.since_ns),
            until=rfc3339(shift.until_ns),
            hours=round((shift.until_ns - shift.since_ns) / NS / HOUR_S, 2),
            generated_at=rfc3339(shift.now_ns),
            utterances=self._utterances(),
            requests=sum(row.requests for row in groups),
            by_department=counted([(row.department, row.requests, row.done) for row in groups]),
            by_intent=counted([(row.intent, row.requests, row.done) for row in groups]),
            by_urgency=counted([(row.urgency, row.requests, row.done) for row in groups]),
            done=self._times(_DONE_AFTER),
            acknowledged=self._times(_ACKNOWLEDGED_AFTER),
            slowest=self._slowest(),
            open_now=open_now,
            open=oldest,
            emergencies=emergencies,
            emergencies_unseen=emergencies - seen.count,
            emergencies_seen=seen,
            emergency=self._emergency(),
        )

    def _utterances(self) -> int:
        query = sa.select(sa.func.count()).where(
            utterances.c.site == self._site,
            utterances.c.heard,
            utterances.c.spoken_ns >= self._shift.since_ns,
            utterances.c.spoken_ns < self._shift.until_ns,
        )
        return int(self._connection.execute(query).scalar_one())

    def _groups(self) -> list[sa.Row[Any]]:
        names = (tasks.c.department, tasks.c.intent, tasks.c.urgency)
        query = sa.select(
            *names, sa.func.count().label("requests"), sa.func.count(tasks.c.completed_ns).label("done")
        ).where(self._within)
        return list(self._connection.execute(query.group_by(*names)))

    def _times(self, after: sa.ColumnElement[Any]) -> Times:
        """By nearest rank, to the second: counting is quicker than sorting."""
        second = Greatest(after, sa.literal_column("0", sa.BigInteger)) // sa.literal_column(str(NS), sa.BigInteger)
        query = sa.select(second, sa.func.count()).where(self._within, after.is_not(None))
        return times([(took, count) for took, count in self._connection.execute(query.group_by(sa.text("1")))])

    def _seen(self) -> Times:
        """How fast dangers were seen; there are few of them."""
        query = sa.select(_SEEN_AFTER).where(self._critical, _SEEN_AFTER.is_not(None)).limit(MAX_RANKED)
        return times([(_seconds(took), 1) for took in self._connection.execute(query).scalars()])

    def _slowest(self) -> tuple[TimedTask, ...]:
        """Which ones they are, the index knows; only then are their rows read."""
        longest = (
            sa.select(tasks.c.id)
            .where(self._within, tasks.c.completed_ns.is_not(None))
            .order_by(_DONE_AFTER.desc(), tasks.c.id)
            .limit(MAX_SLOW)
        )
        query = sa.select(tasks, _DONE_AFTER.label("took")).where(tasks.c.id.in_(longest))
        query = query.order_by(_DONE_AFTER.desc(), tasks.c.id)
        return tuple(_timed(row, row.took) for row in self._connection.execute(query))

    def _open(self) -> tuple[int, tuple[TimedTask, ...]]:
        total = 0
        rows: list[sa.Row[Any]] = []
        for status in UNFINISHED:
            mine = sa.and_(tasks.c.site == self._site, tasks.c.status == status)
            total += self._connection.execute(sa.select(sa.func.count()).select_from(tasks).where(mine)).scalar_one()
            oldest = sa.select(tasks).where(mine).order_by(tasks.c.created_ns, tasks.c.id).limit(MAX_OPEN)
            rows += self._connection.execute(oldest)
        rows.sort(key=lambda row: (row.created_ns, row.id))
        return total, tuple(_timed(row, self._shift.now_ns - row.created_ns) for row in rows[:MAX_OPEN])

    def _emergency(self) -> tuple[Emergency, ...]:
        query = (
            sa.select(tasks, _SEEN_AFTER.label("took"))
            .where(self._critical)
            .order_by(tasks.c.created_ns.desc(), tasks.c.id.desc())
            .limit(MAX_EMERGENCIES)
        )
        return tuple(
            Emergency(task=_timed(row, 0).task, seen_after_s=None if row.took is None else _seconds(row.took))
            for row in self._connection.execute(query)
        )


def _timed(row: sa.Row[Any], took_ns: int) -> TimedTask:
    return TimedTask(task=task_view(task_record(row)), seconds=_seconds(took_ns))


def _seconds(ns: int) -> float:
    return round(max(0, ns) / NS, 1)
