"""Which utterances a page shows first: all open work, what nobody has classified, and the newest of the rest."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, get_args

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.insight import Urgency
from quickcomm.dashboard.adapters.tables import Row, tasks, utterances
from quickcomm.dashboard.ports import Board, LeftOut

NS_PER_MS: Final = 10**6
AT_ONCE: Final = 500
"""Names in one IN list."""
MOST_URGENT_FIRST: Final[tuple[Urgency, ...]] = tuple(reversed(get_args(Urgency)))
# Written out, not bound: only then does a database see that a partial index has these rows.
_DONE: Final = tasks.c.status == sa.literal_column("'done'")
_UNFINISHED: Final = tasks.c.status != sa.literal_column("'done'")
_UNCLASSIFIED: Final = utterances.c.found.is_(None)


def rows_named(connection: Connection, site: str, utterance_ids: Iterable[str]) -> list[Row]:
    """Return the heard utterances of these names, in no order."""
    names = list(utterance_ids)
    rows: list[Row] = []
    for start in range(0, len(names), AT_ONCE):
        some = utterances.c.utterance_id.in_(names[start : start + AT_ONCE])
        # Asked for heard ones, SQLite would rather walk through all of those than look the names up.
        query = sa.select(utterances).where(utterances.c.site == site, some)
        rows += (row for row in connection.execute(query).all() if row.heard)
    return rows


class FirstState:
    """The rows of one site's board, oldest first, and what there is beside them. All of one transaction."""

    def __init__(self, connection: Connection, site: str, board: Board) -> None:
        self._connection = connection
        self._site = site
        self._board = board
        self._mine = sa.and_(utterances.c.site == site, utterances.c.heard)
        recent, self._older = self._recent()
        open_work = self._open()
        unclassified = self._unclassified()
        known = {row.utterance_id for row in (*recent, *unclassified)}
        named = dict.fromkeys([*open_work, *self._done()])
        rows = {row.id: row for row in (*recent, *unclassified)}
        rows |= {row.id: row for row in rows_named(connection, site, (name for name in named if name not in known))}
        self.rows: Final = sorted(rows.values(), key=lambda row: (row.spoken_ns, row.id))
        self._full = len(open_work) >= board.open
        self._all_unclassified = len(unclassified) < board.open

    def left_out(self, shown: Sequence[Urgency]) -> LeftOut:
        """`shown`: the urgency of each unfinished task on the board."""
        left = dict.fromkeys(MOST_URGENT_FIRST, 0)
        if self._full:
            query = sa.select(tasks.c.urgency, sa.func.count()).where(tasks.c.site == self._site, _UNFINISHED)
            for urgency, count in self._connection.execute(query.group_by(tasks.c.urgency)):
                left[urgency] = max(0, count - shown.count(urgency))
        unclassified = 0
        if not self._all_unclassified:
            query = sa.select(sa.func.count()).select_from(utterances).where(self._mine, _UNCLASSIFIED)
            unclassified = self._connection.execute(query).scalar_one() - sum(row.found is None for row in self.rows)
        return LeftOut(older=self._older, unclassified=unclassified, **left)

    def _recent(self) -> tuple[list[Row], bool]:
        """Return the newest by time, and whether there are older ones."""
        newest = (utterances.c.spoken_ns.desc(), utterances.c.id.desc())
        spoken = sa.select(utterances.c.spoken_ns).where(self._mine).order_by(*newest)
        edge = self._connection.execute(spoken.offset(self._board.recent - 1).limit(2)).scalars().all()
        since = utterances.c.spoken_ns >= _millisecond(edge)
        query = sa.select(utterances).where(self._mine, since).order_by(*newest).limit(2 * self._board.recent)
        return list(self._connection.execute(query).all()), len(edge) > 1

    def _done(self) -> Sequence[str]:
        """Return utterances with a task that is among those done last."""
        done = sa.and_(tasks.c.site == self._site, _DONE)
        latest = sa.select(tasks.c.completed_ns).where(done).order_by(tasks.c.completed_ns.desc())
        edge = self._connection.execute(latest.offset(self._board.done - 1).limit(1)).scalars().all()
        query = sa.select(tasks.c.utterance_id).where(done, tasks.c.completed_ns >= _millisecond(edge))
        query = query.order_by(tasks.c.completed_ns.desc()).limit(2 * self._board.done)
        return self._connection.execute(query).scalars().all()

    def _open(self) -> list[str]:
        """Return the utterances of unfinished tasks, the most urgent first, of those the newest, one name a task."""
        found: list[str] = []
        for urgency in MOST_URGENT_FIRST:
            query: sa.Select[Any] = sa.select(tasks.c.utterance_id).where(
                tasks.c.site == self._site, tasks.c.urgency == urgency, _UNFINISHED
            )
            query = query.order_by(tasks.c.created_ns.desc(), tasks.c.id.desc())
            found += self._connection.execute(query.limit(self._board.open - len(found))).scalars().all()
        return found

    def _unclassified(self) -> list[Row]:
        """Return the newest of those: somebody must read them."""
        query = sa.select(utterances).where(self._mine, _UNCLASSIFIED).order_by(utterances.c.spoken_ns.desc())
        return list(self._connection.execute(query.limit(self._board.open)).all())


def _millisecond(edge: Sequence[int]) -> int:
    """Return when the millisecond of an edge began: a page knows no shorter times. 0: there is no edge."""
    return edge[0] // NS_PER_MS * NS_PER_MS if edge else 0
