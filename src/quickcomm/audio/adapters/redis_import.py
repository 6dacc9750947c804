"""How conversations become keys of a Valkey, with all that a client may still ask for."""

from collections.abc import Iterator
from itertools import groupby
from typing import Final

import sqlalchemy as sa

from quickcomm.audio.adapters.redis_rows import SessionNames, offsets
from quickcomm.audio.adapters.redis_sessions import REPLAY_S
from quickcomm.audio.adapters.tables import BLANK, OPEN_STATES, conversations, events
from quickcomm.audio.model.checkpoint import decode_checkpoints
from quickcomm.kernel.copier.copier import CopiedTable, Values
from quickcomm.kernel.copier.valkey import Command, Moved
from quickcomm.kernel.messaging.bus.redis_link import Argument

OWNER: Final = "monolith#before"
"""So that the next monolith adopts them."""
NS: Final = 1_000_000_000
_SAME: Final = sa.and_(
    conversations.c.site == events.c.site, conversations.c.conversation_id == events.c.conversation_id
)
LOGGED: Final = (
    sa.select(events, conversations.c.state, conversations.c.updated_ns)
    .join_from(events, conversations, _SAME)
    .subquery("logged")
)
_FIRST: Final = sa.select(sa.func.coalesce(sa.func.min(events.c.seq), 1)).where(_SAME).scalar_subquery()
TALKS: Final = sa.select(conversations, (_FIRST - 1).label("base")).subquery("talks")
"""`base`: what comes before the first event of the log."""


def moved(now_ns: int, prefix: str) -> list[Moved]:
    """Return the tables. Event logs that are too old to be replayed stay behind."""
    names = SessionNames(prefix)

    def is_kept(row: Values) -> bool:
        return row["state"] in OPEN_STATES or left_s(row) > 0

    def left_s(row: Values) -> int:
        seconds: int = REPLAY_S - (now_ns - row["updated_ns"]) // NS
        return seconds

    def add_events(rows: list[Values]) -> Iterator[Command]:
        for name, group in groupby(filter(is_kept, rows), _name):
            part = list(group)
            yield "RPUSH", names.log(name), *(f"{event['utterance_id']}\n{event['payload']}" for event in part)
            yield "HSET", names.said(name), *(each for event in part for each in _place(event))
            if part[0]["state"] not in OPEN_STATES:
                for key in (names.log(name), names.said(name)):
                    yield "EXPIRE", key, left_s(part[0])

    def add_conversations(rows: list[Values]) -> Iterator[Command]:
        for row in rows:
            name = _name(row)
            where = offsets(decode_checkpoints(row["checkpoints"]))
            fields = row | {"owner": OWNER, "version": 1, "offsets": where, "base": row["base"] if is_kept(row) else 0}
            yield "HSET", names.conversation(name), *(each for field in fields.items() for each in field)
            yield "ZADD", names.open if row["state"] in OPEN_STATES else names.closed, row["updated_ns"], name

    logged = CopiedTable("events", LOGGED, ("site", "conversation_id", "seq"), repeatable=False)
    talks = CopiedTable("conversations", TALKS, ("site", "conversation_id"))
    return [Moved(logged, add_events, events), Moved(talks, add_conversations, conversations)]


def _name(row: Values) -> str:
    return f"{row['site']}:{row['conversation_id']}"


def _place(event: Values) -> tuple[Argument, Argument]:
    """Return where an event is; of several revisions, the last one counts."""
    if event["kind"] == BLANK:
        return f"x:{event['utterance_id']}", event["seq"]
    if event["kind"] == "utterance":
        return f"u:{event['utterance_id']}", event["seq"]
    return f"i:{event['utterance_id']}", f"{event['revision']} {event['seq']}"
