"""Lists and look-ups for REST and for pages that connect; every query is bounded and stays within one site."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.dashboard.adapters.board import AT_ONCE, FirstState
from quickcomm.dashboard.adapters.changed import (
    Changing,
    changed_rows,
    changing_conversations,
    changing_tasks,
    changing_utterances,
    check_places,
    lasting,
    now_of,
)
from quickcomm.dashboard.adapters.dialect import Dialect
from quickcomm.dashboard.adapters.dialects import dialect_of, terms_of
from quickcomm.dashboard.adapters.tables import (
    Row,
    changes,
    conversation_record,
    conversations,
    tag,
    task_record,
    tasks,
    utterance_record,
    utterances,
)
from quickcomm.dashboard.model.places import After, Cursor
from quickcomm.dashboard.model.records import TaskRecord, TaskStatus, UtteranceRecord
from quickcomm.dashboard.model.views import (
    Card,
    Channel,
    Conversation,
    Task,
    card_view,
    conversation_view,
    rfc3339,
    task_view,
)
from quickcomm.dashboard.ports import Board, Listed, Page, Replay, UtteranceFilter
from quickcomm.kernel.errors import NotFoundError
from quickcomm.kernel.storage import Database

T = TypeVar("T")
MAX_CHANNELS: Final = 1000
LIVE_STATES: Final = ("live", "interrupted")
MAX_LIVE: Final = 1000
RECENT: Final = 5000
DONE: Final = "done"


_NEWEST: Final = sa.select(changes.c.site, changes.c.change)


class SqlQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def utterances(self, site: str, wanted: UtteranceFilter, page: Page) -> Listed[Card]:
        """Newest first: by time, or with a query or a department by arrival, as the full-text index keeps them."""

        def statement(connection: Connection) -> sa.Select[Any] | None:
            match = match_expression(dialect_of(connection), site, wanted)
            if match is None:
                return _by_time(site, wanted, page)
            return _by_match(connection, site, match, wanted, page) if match else None

        def load(connection: Connection) -> Listed[Card]:
            found = _listed(connection, site, page, changing_utterances(site, wanted), statement, "spoken_ns")
            return _of(found, _cards(connection, site, found.items))

        return await self._database.read(load)

    async def utterance(self, site: str, utterance_id: str) -> Card:
        query = sa.select(utterances).where(
            utterances.c.site == site, utterances.c.utterance_id == utterance_id, utterances.c.heard
        )
        cards = await self._database.read(lambda connection: _cards(connection, site, list(connection.execute(query))))
        if not cards:
            raise NotFoundError(f"There is no utterance {utterance_id!r}.")
        return cards[0]

    async def conversations(
        self, site: str, state: str | None, channel: str | None, page: Page
    ) -> Listed[Conversation]:
        query = sa.select(conversations).where(conversations.c.site == site)
        if state is not None:
            query = query.where(conversations.c.state == state)
        if channel is not None:
            query = query.where(conversations.c.channel == channel)
        found = await self._page(site, changing_conversations(site, channel), query, conversations, "started_ns", page)
        return _of(found, [conversation_view(conversation_record(row)) for row in found.items])

    async def conversation(self, site: str, conversation_id: str) -> Conversation:
        query = sa.select(conversations).where(
            conversations.c.site == site, conversations.c.conversation_id == conversation_id
        )
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise NotFoundError(f"There is no conversation {conversation_id!r}.")
        return conversation_view(conversation_record(row))

    async def tasks(self, site: str, status: TaskStatus | None, department: str | None, page: Page) -> Listed[Task]:
        query = sa.select(tasks).where(tasks.c.site == site)
        if status is not None:
            query = query.where(tasks.c.status == status)
        if department is not None:
            query = query.where(tasks.c.department == department)
        found = await self._page(site, changing_tasks(site), query, tasks, "created_ns", page)
        return _of(found, [task_view(task_record(row)) for row in found.items])

    async def channels(self, site: str) -> list[Channel]:
        live = sa.cast(sa.func.sum(sa.case((conversations.c.state.in_(LIVE_STATES), 1), else_=0)), sa.BigInteger)
        totals = (
            sa.select(
                conversations.c.channel,
                live.label("live"),
                sa.func.count().label("conversations"),
                sa.cast(sa.func.sum(conversations.c.utterances), sa.BigInteger).label("utterances"),
                sa.func.max(conversations.c.last_spoken_ns).label("last_ns"),
            )
            .where(conversations.c.site == site)
            .group_by(conversations.c.channel)
            .order_by(conversations.c.channel)
            .limit(MAX_CHANNELS)
        )
        undone = (
            sa.select(tasks.c.channel, sa.func.count().label("open_tasks"))
            .where(tasks.c.site == site, tasks.c.status != sa.literal_column("'done'"))
            .group_by(tasks.c.channel)
        )

        def load(connection: Connection) -> list[Channel]:
            open_tasks = {row.channel: row.open_tasks for row in connection.execute(undone)}
            return [
                Channel(
                    channel=row.channel,
                    live=row.live,
                    conversations=row.conversations,
                    utterances=row.utterances,
                    open_tasks=open_tasks.get(row.channel, 0),
                    last_utterance_at=rfc3339(row.last_ns) if row.last_ns else None,
                )
                for row in connection.execute(totals)
            ]

        return await self._database.read(load)

    async def changes(self) -> dict[str, int]:
        rows = await self._database.read(lambda connection: connection.execute(_NEWEST).all())
        return {row.site: row.change for row in rows}

    async def replay(self, site: str, after: After | None, limit: int, board: Board) -> Replay:
        live = (
            sa.select(conversations)
            .where(conversations.c.site == site, conversations.c.state.in_(LIVE_STATES))
            .order_by(conversations.c.started_ns)
            .limit(MAX_LIVE)
        )

        def load(connection: Connection) -> Replay:
            now = now_of(connection, site)
            known = after is not None and after.is_known(now)
            missed = _missed(connection, site, after.whole, limit) if after is not None and known else None
            if missed is not None:
                cards, left_out = _cards(connection, site, missed), None
            else:
                first = FirstState(connection, site, board)
                cards = _cards(connection, site, first.rows)
                left_out = first.left_out(
                    [task.urgency for card in cards for task in card.tasks if task.status != DONE]
                )
            return Replay(
                side=now.side or "",
                change=now.change,
                foreign=after is not None and not known,
                cards=cards,
                conversations=[conversation_view(conversation_record(row)) for row in connection.execute(live)],
                left_out=left_out,
            )

        return await self._database.read(load)

    async def _page(
        self, site: str, changing: Changing, query: sa.Select[Any], table: sa.Table, time: str, page: Page
    ) -> Listed[Row]:
        query = _paged(query, table, time, page)
        return await self._database.read(
            lambda connection: _listed(connection, site, page, changing, lambda _: query, time)
        )


def _listed(
    connection: Connection,
    site: str,
    page: Page,
    changing: Changing,
    statement: Callable[[Connection], sa.Select[Any] | None],
    time: str,
) -> Listed[Row]:
    """Return rows of one moment: what `page.after` asks for, or the page of `statement`; None: there is nothing."""
    now = now_of(connection, site)
    check_places(page, now)
    if page.after is not None:
        return changed_rows(connection, changing, page, now)
    query = statement(connection)
    rows = [] if query is None else list(connection.execute(query))
    shown, more = rows[: page.limit], len(rows) > page.limit
    return Listed(
        items=shown,
        cursor=Cursor(side=now.side, time_ns=getattr(shown[-1], time), row=shown[-1].id) if more else None,
        after=now if page.cursor is None else None,  # what changed since the first page, the later ones do not tell
        more=more,
    )


def _of(found: Listed[Row], items: list[T]) -> Listed[T]:
    return Listed(items=items, cursor=found.cursor, after=found.after, more=found.more)


def _missed(connection: Connection, site: str, after: int, limit: int) -> list[Row] | None:
    """Return what changed after `after`, in that order; None where it is more than `limit`."""
    query = sa.select(utterances).where(utterances.c.site == site, utterances.c.heard, utterances.c.change > after)
    rows = list(connection.execute(query.order_by(utterances.c.change).limit(limit + 1)))
    return rows if len(rows) <= limit else None


def match_expression(dialect: Dialect, site: str, wanted: UtteranceFilter) -> str | None:
    """What to ask the full-text index; None if it is not needed, empty if nothing can match."""
    if wanted.query is None and wanted.department is None:
        return None
    kinds = {"s": site, "c": wanted.channel, "k": wanted.conversation, "d": wanted.department}
    tags = [tag(kind, value) for kind, value in kinds.items() if value is not None]
    terms = terms_of(wanted.query or "")
    if wanted.query is not None and not terms:
        return ""
    return dialect.expression(tags, terms)


def _by_time(site: str, wanted: UtteranceFilter, page: Page) -> sa.Select[Any]:
    query = sa.select(utterances).where(utterances.c.site == site, utterances.c.heard, *lasting(wanted))
    return _paged(query, utterances, "spoken_ns", page)


def _by_match(connection: Connection, site: str, match: str, wanted: UtteranceFilter, page: Page) -> sa.Select[Any]:
    """In the order of the index, so that a common word costs no more than a rare one."""
    dialect = dialect_of(connection)
    place = dialect.searched.c.rowid
    query = (
        sa.select(utterances)
        .join_from(dialect.searched, utterances, utterances.c.id == place)
        .where(dialect.matches(match), utterances.c.site == site)
        .order_by(place.desc())
        .limit(page.limit + 1)
    )
    if page.cursor is not None:
        query = query.where(place < page.cursor.row)
    if wanted.since_ns is not None:
        query = query.where(utterances.c.spoken_ns >= wanted.since_ns)
        first = _first(connection, site, wanted)
        query = query if first is None else query.where(place >= first)
    return query


def _first(connection: Connection, site: str, wanted: UtteranceFilter) -> int | None:
    """Where in the index the time begins, if that is recent; else None: then matches are soon found from the end."""
    recent = (
        sa.select(utterances.c.id)
        .where(utterances.c.site == site, utterances.c.heard, utterances.c.spoken_ns >= wanted.since_ns)
        .limit(RECENT + 1)
        .subquery()
    )
    count, first = connection.execute(sa.select(sa.func.count(), sa.func.min(recent.c.id))).one()
    return int(first or 0) if count <= RECENT else None


def _paged(query: sa.Select[Any], table: sa.Table, time: str, page: Page) -> sa.Select[Any]:
    if page.cursor is not None:
        place = (sa.literal(part, sa.BigInteger) for part in (page.cursor.time_ns, page.cursor.row))
        query = query.where(sa.tuple_(table.c[time], table.c.id) < sa.tuple_(*place))
    return query.order_by(table.c[time].desc(), table.c.id.desc()).limit(page.limit + 1)


def _cards(connection: Connection, site: str, rows: Sequence[Row]) -> list[Card]:
    by_utterance: dict[str, list[TaskRecord]] = {row.utterance_id: [] for row in rows}
    names = list(by_utterance)
    for start in range(0, len(names), AT_ONCE):
        # Sorted by us: asked for an order, SQLite would rather walk the index that has it through all tasks.
        some = tasks.c.utterance_id.in_(names[start : start + AT_ONCE])
        for row in connection.execute(sa.select(tasks).where(tasks.c.site == site, some)).all():
            by_utterance[row.utterance_id].append(task_record(row))
    copies = _copies(connection, site, names)
    return [
        card_view(
            utterance_record(row),
            tuple(sorted(by_utterance[row.utterance_id], key=lambda task: task.order)),
            copies.get(row.utterance_id, ()),
        )
        for row in rows
    ]


def _copies(connection: Connection, site: str, names: Sequence[str]) -> dict[str, list[UtteranceRecord]]:
    """Return the copies of these utterances, by the name of the first."""
    found: dict[str, list[UtteranceRecord]] = {}
    for start in range(0, len(names), AT_ONCE):
        some = utterances.c.copy_of.in_(names[start : start + AT_ONCE])
        query = sa.select(utterances).where(utterances.c.site == site, utterances.c.copy_of.is_not(None), some)
        for row in connection.execute(query):
            found.setdefault(row.copy_of, []).append(utterance_record(row))
    return found
