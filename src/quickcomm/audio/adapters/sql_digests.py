"""Sums and ids of what the SQL session store has in a range, for the checker."""

from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.audio.adapters.tables import OPEN_STATES, conversations, events
from quickcomm.contracts.checking import ANSWERED, ENDED, TRANSCRIBED, Compare, Contents, Key
from quickcomm.contracts.conversations import Ledger
from quickcomm.kernel.checking.gathering import Gathering, reach, within

_ledgers: Final = msgspec.json.Decoder(tuple[Ledger, ...])
_EVENT: Final = (events.c.site, events.c.utterance_id)
_CONVERSATION: Final = (conversations.c.site, conversations.c.conversation_id)
_OF_EVENT: Final = sa.and_(
    conversations.c.site == events.c.site, conversations.c.conversation_id == events.c.conversation_id
)
_KINDS: Final = {TRANSCRIBED: "utterance", ANSWERED: "insights"}


def gather(connection: Connection, request: Compare) -> Contents:
    until = reach(connection, *_EVENT, request, events.c.kind == "utterance")
    gathering = Gathering(request, until)
    for name, kind in _KINDS.items():
        query = sa.select(*_EVENT, sa.null(), conversations.c.updated_ns).join(conversations, _OF_EVENT)
        query = query.where(within(*_EVENT, request, until), events.c.kind == kind).distinct()
        gathering.add(name, connection.execute(query))
    row = conversations.c
    query = sa.select(*_CONVERSATION, row.state, row.ledgers, row.updated_ns)
    over = []
    for each in connection.execute(query.where(within(*_CONVERSATION, request, until))):
        ledgers = _ledgers.decode(each.ledgers)
        gathering.check_ledgers(each.site, each.conversation_id, ledgers, each.updated_ns)
        if each.state not in OPEN_STATES:
            over.append((each.site, each.conversation_id, ledgers, each.updated_ns))
    gathering.add(ENDED, over)
    return gathering.contents()


def recent(connection: Connection, since_ns: int, limit: int) -> list[Key]:
    row = conversations.c
    query = sa.select(*_CONVERSATION).where(row.updated_ns >= since_ns).order_by(row.updated_ns.desc()).limit(limit)
    return [(site, name) for site, name in connection.execute(query)]
