"""Erases messages and dead letters in the tables of the bus, which are an outbox where there is a Valkey."""

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.erasing import Scope, Wanted
from quickcomm.kernel.erasing.reading import is_erased, is_meant
from quickcomm.kernel.messaging.bus.sql_tables import dead, messages

PAGE = 500


def erase_messages(connection: Connection, scope: Scope) -> dict[str, int]:
    """Delete what has words of the scope; return the rows of each table. Nothing where there are no such tables."""
    found = {}
    for table, what in ((messages, "messages"), (dead, "dead letters")):
        if sa.inspect(connection).has_table(table.name):
            query = sa.select(table.c.id, table.c.key, table.c.payload)
            rows = connection.execute(query.execution_options(yield_per=PAGE))
            ids = [row.id for row in rows if is_erased(row.payload, row.key, scope)]
            for start in range(0, len(ids), PAGE):
                connection.execute(table.delete().where(table.c.id.in_(ids[start : start + PAGE])))
            found[what] = len(ids)
    return found


def find_in_messages(connection: Connection, wanted: Wanted) -> set[str]:
    """Return the ids of utterances in messages that a name or a time stands for."""
    found = set()
    for table in (messages, dead):
        for payload in connection.execute(sa.select(table.c.payload)).scalars():
            if (utterance := is_meant(payload, wanted)) is not None:
                found.add(utterance)
    return found
