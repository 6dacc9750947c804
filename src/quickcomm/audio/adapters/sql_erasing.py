"""Erases conversations and utterances in the SQL session store."""

from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.audio.adapters.event_log import blanked
from quickcomm.audio.adapters.redis_rows import at_rest
from quickcomm.audio.adapters.tables import BLANK, OPEN_STATES, conversations, erased, events
from quickcomm.audio.model.checkpoint import decode_checkpoints, encode_checkpoints
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged
from quickcomm.contracts.erasing import EraseAudio
from quickcomm.kernel.erasing.messages import erase_messages
from quickcomm.kernel.erasing.tombstones import bury
from quickcomm.kernel.messaging.bus.sql_tables import append

REASON = "erased"
Change = Callable[[sa.Row[Any], str, int, str], ConversationChanged]


def erase(connection: Connection, request: EraseAudio, now_ns: int, change: Change) -> dict[str, int]:
    """Delete the logs of conversations, and blank the events of utterances; return how much it was.

    A conversation that is going on ends: its owner is fenced. What is left of one are its figures.
    """
    scope = request.scope
    bury(connection, erased, request)
    counts = {"logged events": 0, "live conversations": 0}
    for name in scope.conversations:
        here = sa.and_(conversations.c.site == scope.site, conversations.c.conversation_id == name)
        mine = sa.and_(events.c.site == scope.site, events.c.conversation_id == name)
        counts["logged events"] += connection.execute(events.delete().where(mine)).rowcount
        row = connection.execute(sa.select(conversations).where(here)).one_or_none()
        if row is None:
            continue
        values: dict[str, Any] = {"checkpoints": encode_checkpoints(at_rest(decode_checkpoints(row.checkpoints)))}
        if row.state in OPEN_STATES:
            counts["live conversations"] += 1
            values |= {"state": "ended", "epoch": row.epoch + 1, "updated_ns": now_ns}
            ended = msgspec.json.encode(change(row, "ended", now_ns, REASON))
            append(connection, CONVERSATIONS, row.conversation_id, ended)
        connection.execute(conversations.update().where(here).values(values))
    said = sa.and_(events.c.site == scope.site, events.c.utterance_id.in_(scope.utterances), events.c.kind != BLANK)
    for row in connection.execute(sa.select(events).where(said)).all():
        place = sa.and_(
            events.c.site == row.site, events.c.conversation_id == row.conversation_id, events.c.seq == row.seq
        )
        blank = {"kind": BLANK, "revision": row.seq, "payload": blanked(row.payload).decode()}
        connection.execute(events.update().where(place).values(blank))
        counts["logged events"] += 1
    return counts | erase_messages(connection, scope)
