"""What audio exports to another site: conversations with their ledgers, the logs of their events, tombstones."""

from typing import Final

from sqlalchemy import Connection

from quickcomm.audio.adapters.sql_sessions import MIGRATIONS
from quickcomm.audio.adapters.tables import conversations, erased, events
from quickcomm.kernel.copier.copier import CopiedTable, Values
from quickcomm.kernel.copier.sql import insert_new
from quickcomm.kernel.copier.transfer import ModuleTables
from quickcomm.kernel.erasing.tombstones import KEY, add


def _write(connection: Connection, name: str, rows: list[Values]) -> None:
    if name == ERASED.name:
        add(connection, erased, rows)
    elif name == TALKS.name:
        insert_new(connection, conversations, TALKS.order, rows)
    else:
        insert_new(connection, events, EVENTS.order, rows)


ERASED: Final = CopiedTable("erased", erased, KEY)
TALKS: Final = CopiedTable("conversations", conversations, ("site", "conversation_id"))
EVENTS: Final = CopiedTable("events", events, ("site", "conversation_id", "seq"))
EXPORTED: Final = ModuleTables("audio", MIGRATIONS, (ERASED, TALKS, EVENTS), _write)
