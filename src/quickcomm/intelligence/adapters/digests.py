"""Answers the checker what was answered: sums and ids of utterances, a range at a time."""

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.checking import ANSWERED, Compare, CompareIntelligence, Contents
from quickcomm.contracts.erasing import ERASED
from quickcomm.intelligence.adapters.erasing import still_there
from quickcomm.intelligence.adapters.sql_results import erased, results
from quickcomm.kernel.checking.gathering import Gathering, reach, within
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.storage import Database


def digest_answer(database: Database) -> Answer:
    async def contents(request: CompareIntelligence) -> Contents:
        return await database.read(lambda connection: _gather(connection, request))

    return CompareIntelligence, contents


def _gather(connection: Connection, request: Compare) -> Contents:
    key = (results.c.site, results.c.utterance_id)
    gathering = Gathering(request, until := reach(connection, *key, request))
    query = sa.select(*key, sa.null(), results.c.at_ns).where(within(*key, request, until))
    gathering.add(ANSWERED, connection.execute(query))
    if connection.execute(sa.select(erased.c.site).limit(1)).first() is not None:
        kept = sa.select(*key, results.c.at_ns).where(within(*key, request, until), still_there())
        for site, name, at_ns in connection.execute(kept):
            gathering.fault(ERASED, site, name, at_ns, "intelligence has its result")
    return gathering.contents()
