"""Sums and ids of what the SQL session store has in a range, for the checker."""

from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.audio.adapters.tables import BLANK, OPEN_STATES, conversations, erased, events
from quickcomm.contracts.checking import ANSWERED, ENDED, TRANSCRIBED, Compare, Contents, Key
from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.erasing import ERASED
from quickcomm.kernel.checking.gathering import Gathering, reach, within
from quickcomm.kernel.erasing.tombstones import WHOLE

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
    for site, name, at_ns in _still_there(connection, request, until):
        gathering.fault(ERASED, site, name, at_ns, "audio has it in the log of its conversation")
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


def _still_there(connection: Connection, request: Compare, until: Key | None) -> list[tuple[str, str, int]]:
    """Return utterances that were erased and have events with words."""
    if connection.execute(sa.select(erased.c.site).limit(1)).first() is None:
        return []
    buried = sa.exists().where(
        erased.c.site == events.c.site,
        erased.c.conversation_id == events.c.conversation_id,
        erased.c.utterance_id.in_((WHOLE, events.c.utterance_id)),
    )
    query = sa.select(*_EVENT, conversations.c.updated_ns).join(conversations, _OF_EVENT)
    query = query.where(within(*_EVENT, request, until), events.c.kind != BLANK, buried).distinct()
    return [(row.site, row.utterance_id, row.updated_ns) for row in connection.execute(query)]


def recent(connection: Connection, since_ns: int, limit: int) -> list[Key]:
    row = conversations.c
    query = sa.select(*_CONVERSATION).where(row.updated_ns >= since_ns).order_by(row.updated_ns.desc()).limit(limit)
    return [(site, name) for site, name in connection.execute(query)]
