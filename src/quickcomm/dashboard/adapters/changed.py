"""What changed after a point, in the order of the changes, for clients that poll; and the name of this side."""

import secrets
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.dashboard.adapters.tables import Row, changes, conversations, sides, tasks, utterances
from quickcomm.dashboard.model.places import RESET, After, CursorResetError
from quickcomm.dashboard.ports import Listed, Page, UtteranceFilter

# Built once: every list asks for them.
_SIDE: Final = sa.select(sides.c.id)
_CHANGE: Final = sa.select(changes.c.change).where(changes.c.site == sa.bindparam("site"))
LOOKED_THROUGH: Final = 5000
"""Changes that are looked through for one answer, where only some of them are wanted."""


class Changing(NamedTuple):
    """The items of a site, with a column `change`.

    `place`: which one of the items of a change it is. `only`: conditions on what never changes of an item.
    """

    items: sa.Select[Any]
    change: sa.Column[int]
    place: sa.Column[int] | None = None
    only: tuple[sa.ColumnElement[bool], ...] = ()


def changing_utterances(site: str, wanted: UtteranceFilter) -> Changing:
    items = sa.select(utterances).where(utterances.c.site == site, utterances.c.heard)
    return Changing(items, utterances.c.change, only=lasting(wanted))


def lasting(wanted: UtteranceFilter) -> tuple[sa.ColumnElement[bool], ...]:
    """Return what is wanted of all that never changes of an utterance."""
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.channel is not None:
        conditions.append(utterances.c.channel == wanted.channel)
    if wanted.conversation is not None:
        conditions.append(utterances.c.conversation_id == wanted.conversation)
    if wanted.since_ns is not None:
        conditions.append(utterances.c.spoken_ns >= wanted.since_ns)
    return tuple(conditions)


def changing_conversations(site: str, channel: str | None) -> Changing:
    only = () if channel is None else (conversations.c.channel == channel,)
    items = sa.select(conversations).where(conversations.c.site == site)
    return Changing(items, conversations.c.change, only=only)


def changing_tasks(site: str) -> Changing:
    """A task changes with its card."""
    card = sa.and_(utterances.c.site == tasks.c.site, utterances.c.utterance_id == tasks.c.utterance_id)
    items = sa.select(tasks, utterances.c.change).join_from(utterances, tasks, card)
    return Changing(
        items.where(utterances.c.site == site, utterances.c.heard), utterances.c.change, place=tasks.c.insight_index
    )


def now_of(connection: Connection, site: str) -> After:
    """Return the newest change of the site."""
    side = connection.execute(_SIDE).scalar_one()
    return After(side=side, change=connection.execute(_CHANGE, {"site": site}).scalar() or 0)


def renew_side(connection: Connection) -> None:
    """Have all cursors of clients end: rows have come whose numbers they may be past already."""
    connection.execute(sides.update().values(id=secrets.token_hex(8)))


def check_places(page: Page, now: After) -> None:
    """Raise `CursorResetError` for a place that this side did not give."""
    if page.cursor is not None and page.cursor.side not in {None, now.side}:
        raise CursorResetError(f"This `cursor` is not of this dashboard. {RESET}.")
    if page.after is not None and not page.after.is_known(now):
        raise CursorResetError(f"This `after` is not of this dashboard. {RESET}.")


def changed_rows(
    connection: Connection, changing: Changing, page: Page, now: After, looked_through: int = LOOKED_THROUGH
) -> Listed[Row]:
    """Return what changed after `page.after`, or after the beginning, and the point up to which that is all."""
    limit = page.limit
    query = changing.items.where(_behind(changing, page.after or After(change=0)))
    edge = _edge(connection, query, changing, looked_through) if changing.only else None
    if edge is not None:
        query = query.where(changing.change < edge)
    order = [changing.change] if changing.place is None else [changing.change, changing.place]
    rows = list(connection.execute(query.where(*changing.only).order_by(*order).limit(limit + 1)))
    if len(rows) > limit:
        return Listed(items=rows[:limit], after=_between(rows[limit - 1], rows[limit], now), more=True)
    if edge is not None:
        return Listed(items=rows, after=After(side=now.side, change=edge - 1), more=True)
    return Listed(items=rows, after=now)


def _behind(changing: Changing, after: After) -> sa.ColumnElement[bool]:
    if changing.place is None or after.index is None:
        return changing.change > after.whole
    later = sa.or_(changing.change > after.change, changing.place > after.index)
    return sa.and_(changing.change >= after.change, later)


def _edge(connection: Connection, query: sa.Select[Any], changing: Changing, looked_through: int) -> int | None:
    """Return the first change that is not looked at any more."""
    found = query.with_only_columns(changing.change).order_by(changing.change).offset(looked_through).limit(1)
    edge: int | None = connection.execute(found).scalar()
    return edge


def _between(last: Row, following: Row, now: After) -> After:
    index = last.insight_index if last.change == following.change else None
    return After(side=now.side, change=last.change, index=index)
