"""The beginning of the log of an open conversation is forgotten, in SQL as in Valkey (`redis_scripts.py`)."""

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.audio.adapters.log_limits import LogLimits, settled
from quickcomm.audio.adapters.tables import OPEN_STATES, conversations, events
from quickcomm.audio.model.checkpoint import decode_checkpoints


def forget(connection: Connection, key: tuple[str, str], now_ns: int, limits: LogLimits) -> None:
    """Delete what is older than the limits, but nothing that may be published again."""
    here = sa.and_(conversations.c.site == key[0], conversations.c.conversation_id == key[1])
    row = connection.execute(sa.select(conversations).where(here)).one()
    if row.state not in OPEN_STATES:
        return
    mine = sa.and_(events.c.site == key[0], events.c.conversation_id == key[1])
    first = connection.execute(sa.select(sa.func.min(events.c.seq)).where(mine)).scalar() or 1
    every_ns, most, margin = limits.arguments()
    cut, passed_ns = row.mark, now_ns - row.marked_ns
    if row.seq - first + 1 > most + most / 4 and passed_ns >= every_ns / 6:
        cut = row.seq - most
    elif passed_ns < every_ns:
        return
    at = decode_checkpoints(row.checkpoints)
    said = sa.select(events.c.seq, events.c.utterance_id).where(mine, events.c.seq <= cut, events.c.kind == "utterance")
    for seq, utterance_id in connection.execute(said.order_by(events.c.seq)):
        if not settled(utterance_id, at, margin):
            cut = seq - 1
            break
    connection.execute(events.delete().where(mine, events.c.seq <= cut))
    connection.execute(conversations.update().where(here).values(mark=row.seq, marked_ns=now_ns))
